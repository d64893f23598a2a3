"""How the tiny model's language side is taught: several answers to an image at once, and where the next object is."""

import attrs
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pydeper.vlm.prompt import rotary_positions
from training.config import load_config
from training.paths import CONFIGS
from training.tiny.config import TinyConfig
from training.tiny.pretraining.language import (
    STYLE,
    Answer,
    LanguageTask,
    PointerHead,
    described_together_losses,
    see_scenes,
    trait_tokens,
)
from training.tiny.vlm import build_vlm
from training.tiny.world.sampling import CLEAR, Layout, sample_scene
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import PLAIN, sample_viewer
from training.vlm.steered_vlm import SteeredVLM

SMALL = ("hidden_size=128", "intermediate_size=64", "layers=2", "heads=2", "key_value_heads=1", "vision_width=32")


@pytest.fixture(scope="module")
def vlm() -> SteeredVLM:
    settings = [f"vlm.{setting}" for setting in (*SMALL, "vision_depth=2", "vision_heads=2")]
    return build_vlm(load_config(TinyConfig, CONFIGS / "tiny.toml", settings))


def answers_to(vlm: SteeredVLM, scene: Scene, rng: np.random.Generator) -> list[Answer]:
    """As nobody in particular, as asked in words, and as a soft token asks."""
    viewer = sample_viewer(rng)
    prompt = vlm.template.with_persona(STYLE)
    return [
        Answer.of(scene, PLAIN, list(vlm.template.without_persona(STYLE))),
        Answer.of(scene, viewer, [*prompt.before, *prompt.after]),
        Answer.of(scene, viewer, vlm.steered_prompt(STYLE), viewer.words()),
    ]


def test_an_answer_knows_the_centres_of_what_it_names_in_its_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        scene, viewer = sample_scene(rng, CLEAR), sample_viewer(rng)
        answer = Answer.of(scene, viewer, [1, 2])
        assert answer.description == viewer.describe(scene)
        assert len(answer.centres) == len(viewer.visit(scene))
        for (x, y), thing in zip(answer.centres, viewer.visit(scene), strict=True):
            left, top, right, bottom = thing.box
            assert (x, y) == pytest.approx(((left + right) / 2, (top + bottom) / 2))
    assert Answer.of(sample_scene(rng, Layout((0, 0))), PLAIN, []).centres == ()


@torch.no_grad()
def test_the_loss_of_answers_is_that_of_one_row_an_answer(vlm: SteeredVLM) -> None:
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng, Layout((1, 5)), (1.0, 1.0)) for _ in range(2)]
    seen = [torch.randn(3, 4, 128) for _ in scenes]
    answers = [answers_to(vlm, scene, rng) for scene in scenes]
    found = described_together_losses(vlm, PointerHead(128), seen, answers)["loss of answers"]

    tokens, merge = vlm.config.tokens, vlm.config.vision.merge_size
    losses = []
    for features, own in zip(seen, answers, strict=True):
        image = vlm.template.image_ids(12)
        for answer in own:
            said = [*vlm.text_ids(answer.description), tokens.end[0]]
            ids = [*image, *answer.prompt, *said]
            grid = np.array([[1, 3 * merge, 4 * merge]])
            positions, _ = rotary_positions(np.array(ids), tokens.image, grid, merge)
            row = torch.tensor([ids])
            embeds = vlm.embed([features.flatten(0, 1)], None, row)
            if answer.traits:
                soft = trait_tokens(vlm, [answer.traits])
                embeds = embeds.masked_scatter((row == tokens.subject)[..., None], soft)
            hidden = vlm.model.model.language_model(
                inputs_embeds=embeds, position_ids=torch.from_numpy(positions)[:, None], use_cache=False
            ).last_hidden_state
            logits = vlm.model.lm_head(hidden)[0, -len(said) - 1 : -1]
            losses.append(F.cross_entropy(logits, torch.tensor(said), reduction="none"))
    torch.testing.assert_close(found, torch.cat(losses).mean(), rtol=1e-4, atol=1e-5)


def test_the_pointer_learns_to_find_the_objects(vlm: SteeredVLM) -> None:
    """Image tokens that are all different: where the next object is can be learned by heart, and nothing else."""
    rng = np.random.default_rng(2)
    scene = sample_scene(rng, CLEAR, (1.0, 1.0))
    seen, answers = [torch.randn(7, 7, 128)], [answers_to(vlm, scene, rng)[:1]]
    pointer = PointerHead(128)
    optimizer = torch.optim.Adam([*vlm.model.model.language_model.parameters(), *pointer.parameters()], lr=3e-3)
    for _ in range(60):
        losses = described_together_losses(vlm, pointer, seen, answers)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(losses["pointer right"]) == 1
    # Asked for the objects elsewhere, it would be wrong.
    moved = [(1 - x, 1 - y) for x, y in answers[0][0].centres]
    turned = [[attrs.evolve(answers[0][0], centres=tuple(moved))]]
    assert float(described_together_losses(vlm, pointer, seen, turned)["pointer right"].detach()) < 0.5


def test_a_pointer_alone_teaches_the_language_side_nothing(vlm: SteeredVLM) -> None:
    rng = np.random.default_rng(3)
    scene = sample_scene(rng, CLEAR, (1.0, 1.0))
    seen, answers = [torch.randn(5, 5, 128)], [answers_to(vlm, scene, rng)]
    language = vlm.model.model.language_model.requires_grad_(True)

    def gradient(seed: int, *, alone: bool) -> torch.Tensor:
        torch.manual_seed(seed)
        pointer = PointerHead(128)
        vlm.model.zero_grad(set_to_none=True)
        described_together_losses(vlm, pointer, seen, answers, pointer_alone=alone)["loss"].backward()
        assert all(parameter.grad is not None for parameter in pointer.parameters())
        gradient = language.layers[0].mlp.down_proj.weight.grad
        assert gradient is not None
        return gradient

    # Which pointer it is makes no difference to the language side, unless it is taught by it.
    torch.testing.assert_close(gradient(0, alone=True), gradient(1, alone=True))
    assert not torch.allclose(gradient(0, alone=False), gradient(1, alone=False), rtol=0.1)


def test_scenes_with_nothing_to_point_at(vlm: SteeredVLM) -> None:
    empty = sample_scene(np.random.default_rng(0), Layout((0, 0)), (1.0, 1.0))
    answers = [[Answer.of(empty, PLAIN, list(vlm.template.without_persona(STYLE)))]]
    losses = described_together_losses(vlm, PointerHead(128), [torch.randn(2, 2, 128)], answers)
    assert list(losses) == ["loss"]
    assert torch.isfinite(losses["loss"])


def test_batches_are_the_same_whenever_a_step_is_asked_for(vlm: SteeredVLM) -> None:
    task = LanguageTask(vlm, see_scenes(vlm, 12, seed=3), batch_size=8, learning_rate=1e-3, seed=4)
    first, other, again = (float(task.losses(step, 0)["loss"].detach()) for step in (5, 6, 5))
    assert first == again
    assert first != other
