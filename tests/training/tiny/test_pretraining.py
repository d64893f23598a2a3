"""What the tiny model's towers are trained to tell, token by token."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES
from training.tiny.pretraining.dense_targets import (
    MEASURES,
    TARGETS,
    DenseHeads,
    dense_measures,
    dense_targets,
)
from training.tiny.pretraining.sketches import SketchTask
from training.tiny.pretraining.vision import (
    DrawnScenes,
    Level,
    VisionTask,
    initialise_tower,
    tower_tokens,
)
from training.tiny.world.sampling import CLEAR, Layout, sample_scene
from training.tiny.world.scenes import MAX_MENTIONED, ORDERS, SMALL, Scene

NAMES = list(TARGETS)


def _tower() -> Qwen2VisionTransformerPretrainedModel:
    torch.manual_seed(0)
    config = Qwen2VLVisionConfig(depth=3, embed_dim=32, num_heads=2, hidden_size=48, patch_size=4)
    tower = Qwen2VisionTransformerPretrainedModel(config)
    initialise_tower(tower)
    return tower.requires_grad_(False)


def _patches(images: int, grid: tuple[int, int]) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(images, 4 * grid[0] * grid[1], 2 * 3 * 4 * 4)


@pytest.mark.parametrize("grid", [(2, 2), (1, 3), (3, 2)])
def test_merged_tokens_are_those_of_transformers(grid: tuple[int, int]) -> None:
    tower, patches = _tower(), _patches(2, grid)
    shapes = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]] * 2)
    expected = tower(patches.flatten(0, 1), grid_thw=shapes).pooler_output
    merged, _ = tower_tokens(tower, patches, grid)
    torch.testing.assert_close(merged.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_early_tokens_are_the_patches_row_after_row() -> None:
    """Where one patch differs, the early tokens differ most at its own row and column."""
    tower, grid = _tower(), (2, 3)
    plain = torch.zeros(1, 4 * 6, 2 * 3 * 4 * 4)
    for place in range(24):
        marked = plain.clone()
        marked[0, place] = 3.0
        changes = (tower_tokens(tower, marked, grid)[1] - tower_tokens(tower, plain, grid)[1]).norm(dim=-1)[0]
        token, (down, across) = place // 4, divmod(place % 4, 2)
        row, column = 2 * (token // 3) + down, 2 * (token % 3) + across
        assert int(changes.argmax()) == row * 6 + column


def test_on_even_paper_a_tower_cannot_tell_one_place_from_another() -> None:
    """Why no viewer's order asks where in the picture an object lies."""
    merged, early = tower_tokens(_tower(), torch.ones(1, 4 * 12, 2 * 3 * 4 * 4), (3, 4))
    for tokens in (merged[0], early[0]):
        torch.testing.assert_close(tokens, tokens[:1].expand_as(tokens), rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(6, 14), st.integers(6, 14))
def test_every_object_has_one_central_token_that_tells_its_places(seed: int, rows: int, columns: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), CLEAR)
    targets = dict(zip(NAMES, dense_targets(scene, rows, columns), strict=True))
    central = np.flatnonzero(targets["centre"])
    expected = {}
    for thing in scene.objects:
        x, y = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
        expected[int(y * rows) * columns + int(x * columns)] = thing
    assert set(central) == set(expected)
    for order in ORDERS:
        assert set(np.flatnonzero(targets[order])) == set(central)
        if len(expected) == len(scene.objects):  # no two in one token
            ranked = scene.ranked(order)
            assert all(ranked[targets[order][token] - 1] is thing for token, thing in expected.items())
    for token, thing in expected.items():
        if len(expected) == len(scene.objects):
            assert list(SHAPES)[targets["shape"][token] - 1] == thing.shape
            assert list(COLOURS)[targets["colour"][token] - 1] == thing.colour


def test_measures_point_from_each_token_to_its_object_s_centre() -> None:
    scene = sample_scene(np.random.default_rng(3), Layout((1, 1), extents=(0.4, 0.4)))
    (thing,) = scene.objects
    rows, columns = 20, 30
    measures = dict(zip(MEASURES, dense_measures(scene, rows, columns), strict=True))
    there = dense_targets(scene, rows, columns, ["shape"])[0] > 0
    assert there.sum() > 4
    for token in np.flatnonzero(there):
        row, column = divmod(int(token), columns)
        x = (column + 0.5) / columns * scene.canvas[0] + measures["centre from token, across"][token]
        y = (row + 0.5) / rows * scene.canvas[1] + measures["centre from token, down"][token]
        assert (x, y) == pytest.approx(thing.centre, abs=1e-5)
        assert measures["log of extent"][token] == pytest.approx(math.log(thing.extent / SMALL), abs=1e-5)
    assert all((numbers[~there] == 0).all() for numbers in measures.values())


def test_a_crowd_s_later_places_are_one_class_and_an_empty_scene_has_none() -> None:
    crowd = sample_scene(np.random.default_rng(0), Layout((9, 9), extents=(0.09, 0.12)))
    places = dense_targets(crowd, 40, 40, ["rightward"])[0]
    assert sorted(places[places > 0]) == [*range(1, MAX_MENTIONED + 1), *[MAX_MENTIONED + 1] * 3]
    assert not dense_targets(sample_scene(np.random.default_rng(0), Layout((0, 0))), 5, 7).any()


def test_heads_that_know_have_no_loss_and_heads_that_do_not_are_told_so() -> None:
    """One-hot tokens of the true classes, and heads that read them: everything is right; shuffled, little is."""
    rng = np.random.default_rng(8)
    scene = sample_scene(rng, CLEAR)
    targets = torch.from_numpy(dense_targets(scene, 8, 8))[None]
    measures = torch.from_numpy(dense_measures(scene, 8, 8))[None]
    hot = [torch.nn.functional.one_hot(targets[:, i], TARGETS[name]) for i, name in enumerate(NAMES)]
    tokens = torch.cat([*(30.0 * own for own in hot), measures.mT], dim=-1)
    heads = DenseHeads(tokens.shape[-1], NAMES).requires_grad_(False)
    for parameter in heads.parameters():
        parameter.zero_()
    start = 0
    for name in NAMES:
        heads.heads[name].weight[:, start : start + TARGETS[name]] = torch.eye(TARGETS[name])
        start += TARGETS[name]
    heads.measures.weight[:, start:] = torch.eye(len(MEASURES))
    right = heads.losses(tokens, targets, measures)
    assert float(right["loss"]) < 1e-3
    assert {name: float(value) for name, value in right.items() if name.endswith("right")} == {
        **{f"{name} right": 1.0 for name in NAMES if name not in ORDERS},
        "places in orders right": 1.0,
    }
    assert float(right["invented"]) == 0
    wrong = heads.losses(tokens.roll(17, dims=1), targets, measures)
    assert float(wrong["loss"]) > 10
    assert float(wrong["places in orders right"]) < 0.5


def test_the_heads_gradients_stop_at_new_heads() -> None:
    tower = _tower().requires_grad_(True)
    scenes = DrawnScenes(
        preprocess=lambda drawn, _canvas, _close: (_patches(len(drawn), (3, 4)), (3, 4)),
        levels=(Level(48, ("shape", "centre")), Level(32, ("colour", "centre"), finer=2)),
        batch_size=2,
        close_ups=0,
        seed=0,
    )
    task = VisionTask("tower", tower, tower_tokens, scenes, learning_rate=1e-3, heads_warmup=3)
    for step, reached in ((2, False), (3, True)):
        task.state.zero_grad(set_to_none=True)
        task.losses(step, 0)["loss"].backward()
        assert all(parameter.grad is not None for parameter in task.state["heads"].parameters())
        assert any(parameter.grad is not None for parameter in tower.parameters()) is reached


def test_a_tower_learns_to_see_sketches_as_it_sees_even_drawings() -> None:
    def preprocess(
        scenes: Sequence[Scene], _canvas: tuple[float, float], _close: bool
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        """Patches of one colour for a scene, another one where it is sketched."""
        colours = torch.tensor([[scene.seed % 7 / 7, scene.seed % 11 / 11, scene.seed % 13 / 13] for scene in scenes])
        shift = torch.tensor([[1.0 * scene.sketched] for scene in scenes])
        pixels = (colours - shift).repeat_interleave(2 * 4 * 4, dim=1)
        return pixels[:, None].expand(-1, 4 * 4, -1).contiguous(), (2, 2)

    task = SketchTask(_tower().requires_grad_(True), preprocess, batch_size=8, seed=0, learning_rate=3e-3)
    optimizer = torch.optim.AdamW(task.parameter_groups())
    before = task.losses(0, 0)
    for step in range(80):
        optimizer.zero_grad()
        task.losses(step, 0)["loss"].backward()
        optimizer.step()
    after = task.losses(80, 0)
    assert float(before["even"]) == 0
    assert float(before["loss"].detach()) == pytest.approx(float(before["sketched"]) / 2)
    assert max(float(after["sketched"]), float(after["even"])) < float(before["sketched"]) / 4
