"""The network against its plain restatement, and the properties that batching must keep."""

import re
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.training.network.plain_network import Plain, plain_pooling, plain_sinusoid
from tests.training.network.small_network import CONFIG, SWITCHES, collate, draw_sample
from training.network import Adapter, Deper, NetworkConfig, PersonaEncoder
from training.network.film import FiLM
from training.network.fixations.box_pooling import BoxPooling, pool_boxes
from training.network.fixations.kinematics import kinematics
from training.network.positions import encode_how_long, encode_order, encode_where, sinusoid

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)
LENGTHS = st.tuples(st.integers(0, 6), st.integers(0, 5))


@pytest.fixture(scope="module")
def deper() -> Deper:
    torch.manual_seed(0)
    return Deper(CONFIG, num_subjects=4).double().eval()


def check_against_formulas(deper: Deper, seed: int, lengths: list[tuple[int, int]], extra: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = [draw_sample(*length, generator) for length in lengths]
    padded = [max(1, *(length[i] for length in lengths)) + extra for i in (0, 1)]
    output, plain = deper(*collate(samples, *padded)), Plain(deper)
    for i, sample in enumerate(samples):
        expected = plain(*sample)
        context = output.context
        torch.testing.assert_close(context.dual[i][context.dual_mask[i]], expected["dual"])
        assert not context.dual[i][~context.dual_mask[i]].any()
        torch.testing.assert_close(output.subject_embedding[i], expected["z_s"])
        torch.testing.assert_close(output.subject_logits[i], expected["logits"])
        torch.testing.assert_close(output.boxes[i], expected["boxes"])
        torch.testing.assert_close(output.validity_logits[i], expected["validity"])


@settings(max_examples=12)
@given(seed=SEEDS, lengths=st.lists(LENGTHS.filter(any), min_size=1, max_size=3), extra=st.integers(0, 2))
def test_the_network_is_the_formulas_sample_by_sample(
    deper: Deper, seed: int, lengths: list[tuple[int, int]], extra: int
) -> None:
    check_against_formulas(deper, seed, lengths, extra)


@pytest.mark.parametrize("off", [*((switch,) for switch in SWITCHES), SWITCHES])
def test_an_ablated_network_is_its_formulas_sample_by_sample(off: tuple[str, ...]) -> None:
    torch.manual_seed(2)
    config = attrs.evolve(CONFIG, **dict.fromkeys(off, False))
    check_against_formulas(Deper(config, num_subjects=4).double().eval(), 3, [(3, 4), (2, 0), (5, 2)], 1)


def test_a_network_that_reads_words_in_order_is_its_formulas_sample_by_sample() -> None:
    torch.manual_seed(2)
    deper = Deper(attrs.evolve(CONFIG, word_order=0.5), num_subjects=4).double().eval()
    check_against_formulas(deper, 3, [(3, 4), (2, 0), (5, 2), (0, 3)], 1)


@pytest.fixture(scope="module")
def with_kinematics() -> Deper:
    torch.manual_seed(2)
    return Deper(attrs.evolve(CONFIG, kinematics=True), num_subjects=4).double().eval()


@settings(max_examples=12)
@given(seed=SEEDS, lengths=st.lists(LENGTHS.filter(any), min_size=1, max_size=3), extra=st.integers(0, 2))
def test_a_network_with_kinematics_is_its_formulas_sample_by_sample(
    with_kinematics: Deper, seed: int, lengths: list[tuple[int, int]], extra: int
) -> None:
    check_against_formulas(with_kinematics, seed, lengths, extra)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_order_of_words_matters_where_it_has_a_weight(weight: float) -> None:
    torch.manual_seed(2)
    deper = Deper(attrs.evolve(CONFIG, word_order=weight), num_subjects=4).double().eval()
    image, words, boxes, durations = draw_sample(4, 3, torch.Generator().manual_seed(1))
    one, other = (
        deper(*collate([(image, text, boxes, durations)], 4, 3)).subject_embedding
        for text in (words, words[[2, 0, 3, 1]])
    )
    assert torch.allclose(one, other) == (not weight)


def test_the_whole_network_has_the_weights_and_buffers_that_it_always_had() -> None:
    """Published checkpoints name them; see the built-in model."""
    names = {re.sub(r"layers\.\d+", "layers.*", name) for name in Deper(CONFIG, num_subjects=4).state_dict()}
    streams = [f"persona_encoder.dual_context.layers.*.{stream}" for stream in ("text", "trajectory")]
    readouts = ["persona_encoder.extractor", "trajectory_decoder.latent"]
    decoder = "trajectory_decoder.layers.*"
    attentions = [f"{stream}.{kind}_attention" for stream in streams for kind in ("self", "cross")]
    attentions += [f"{readout}.cross_attention" for readout in readouts]
    attentions += [f"{decoder}.{kind}_attention" for kind in ("self", "latent", "context")]
    blocks = [f"{stream}.feed_forward" for stream in [*streams, decoder]]
    layers = [f"{at}.attention.{part}" for at in attentions for part in ("query", "key", "value", "output")]
    layers += [f"{block}.layers.*" for block in blocks] + [f"{block}.norm" for block in attentions + blocks]
    layers += [f"{readout}.head.{i}" for readout in readouts for i in (0, 1, 3)]
    layers += [f"{decoder}.film.gamma_beta.{i}" for i in (0, 1)]
    layers += [f"persona_encoder.{name}_projection" for name in ("image", "text")]
    layers += ["persona_encoder.trajectory_embedding.projection", "subject_head.classifier", "trajectory_decoder.head"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    expected |= {f"{readout}.query" for readout in readouts} | {"trajectory_decoder.box_queries"}
    expected.add("persona_encoder.box_pooling_by_overlap")  # a mark without numbers
    assert names == expected


@pytest.mark.parametrize("network", ["deper", "with_kinematics"])
@settings(max_examples=30)
@given(
    seed=SEEDS,
    lengths=LENGTHS,
    mates=st.lists(LENGTHS, max_size=3),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_padding_and_batch_mates_never_change_a_sample(
    request: pytest.FixtureRequest,
    network: str,
    seed: int,
    lengths: tuple[int, int],
    mates: list[tuple[int, int]],
    extra: tuple[int, int],
) -> None:
    deper = request.getfixturevalue(network)
    generator = torch.Generator().manual_seed(seed)
    sample, *others = [draw_sample(*length, generator) for length in (lengths, *mates)]
    alone = deper(*collate([sample], max(1, lengths[0]), max(1, lengths[1])))
    longest = [max(1, *(length[i] for length in (lengths, *mates))) + extra[i] for i in (0, 1)]
    together = deper(*collate([*others, sample], *longest))
    for name in ("subject_embedding", "subject_logits", "boxes", "validity_logits"):
        torch.testing.assert_close(getattr(together, name)[-1], getattr(alone, name)[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kinematics", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("missing", [("text",), ("trajectory",), ("text", "trajectory"), ("all but one fixation",)])
def test_a_missing_modality_is_finite_with_gradients(
    missing: tuple[str, ...], dtype: torch.dtype, kinematics: bool
) -> None:
    torch.manual_seed(1)
    model = Deper(attrs.evolve(CONFIG, kinematics=kinematics), num_subjects=4)
    fixations = 0 if "trajectory" in missing else 1 if "all but one fixation" in missing else 3
    samples = [draw_sample(0 if "text" in missing else 3, fixations, torch.Generator())] * 2
    inputs = [x.float() if x.is_floating_point() else x for x in collate(samples, 4, 4)]
    for x in inputs:
        x.requires_grad_(x.is_floating_point())
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = model(*inputs)
    total = (
        output.subject_logits.float().square().sum() + output.boxes.float().sum() + output.validity_logits.float().sum()
    )
    total.backward()
    assert total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs)
    unused = inputs[1].grad if "text" in missing else inputs[4].grad if "trajectory" in missing else None
    assert unused is None or not unused.any()


@pytest.mark.parametrize("kinematics", [False, True])
def test_every_parameter_learns(kinematics: bool) -> None:
    model = Deper(attrs.evolve(CONFIG, kinematics=kinematics), num_subjects=4)
    inputs = collate([draw_sample(4, 4, torch.Generator())] * 2, 4, 4)
    output = model.double()(*inputs)
    (output.subject_logits.square().sum() + output.boxes.sum() + output.validity_logits.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # Softmax ignores what is added to every score, and one key alone leaves nothing to choose.
        if (
            not name.endswith("key.bias")
            and "latent_attention.attention.query" not in name
            and "latent_attention.attention.key" not in name
        ):
            assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", ["overlap", "centre"])
@settings(max_examples=40)
@given(seed=SEEDS, grid_size=st.integers(1, 7), data=st.data())
def test_box_pooling_is_the_mean_of_the_covered_cells(
    kind: BoxPooling, seed: int, grid_size: int, data: st.DataObject
) -> None:
    edge = st.floats(0, 1) | st.sampled_from([i / 2 / grid_size for i in range(2 * grid_size + 1)])
    pairs = data.draw(st.lists(st.tuples(edge, edge, edge, edge), min_size=1, max_size=5))
    boxes = [[min(a, b), min(c, d), max(a, b), max(c, d)] for a, b, c, d in pairs]
    tokens = torch.randn(grid_size**2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pooled = pool_boxes(tokens[None], torch.tensor([boxes], dtype=torch.float64), grid_size, kind)[0]
    torch.testing.assert_close(pooled, torch.stack([plain_pooling(tokens, b, grid_size, kind) for b in boxes]))


def test_a_box_takes_in_every_cell_that_it_overlaps() -> None:
    """A 4×4 grid: most of a cell, parts of its neighbours; a box along the cells' edges; a point."""
    numbers = torch.arange(16.0)[None, :, None]

    def cells(*box: float, kind: BoxPooling = "overlap") -> list[int]:
        """Which cells were pooled, told from the weights of their mean."""
        weights = pool_boxes(torch.eye(16)[None], torch.tensor([[box]]), 4, kind)[0, 0]
        mean = pool_boxes(numbers, torch.tensor([[box]]), 4, kind).item()
        chosen = [number for number, weight in enumerate(weights.tolist()) if weight]
        assert mean == pytest.approx(sum(chosen) / len(chosen))
        return chosen

    assert cells(0.2, 0.2, 0.6, 0.4) == [0, 1, 2, 4, 5, 6]
    assert cells(0.2, 0.2, 0.6, 0.4, kind="centre") == [5]
    assert cells(0.25, 0.25, 0.75, 0.5) == [5, 6]
    assert cells(0.3, 0.3, 0.3, 0.3) == cells(0.3, 0.3, 0.3, 0.3, kind="centre") == [5]
    assert cells(1.0, 1.0, 1.0, 1.0) == [15]
    assert cells(0.0, 0.0, 1.0, 1.0) == [*range(16)]


def test_weights_of_another_pooling_are_refused() -> None:
    by_centre = Deper(attrs.evolve(CONFIG, box_pooling="centre"), num_subjects=4).state_dict()
    with pytest.raises(RuntimeError, match="box_pooling_by_overlap"):
        Deper(CONFIG, num_subjects=4).load_state_dict(by_centre)


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(0, 6), padding=st.integers(0, 3), data=st.data())
def test_kinematics_are_finite_at_the_edges_and_padding_never_matters(
    seed: int, count: int, padding: int, data: st.DataObject
) -> None:
    """Boxes that are points, fixations on one place, durations of 0 or of hours."""
    edge, seconds = st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1e-9, 0.2, 3600.0])
    rows = st.lists(st.tuples(edge, edge, seconds), min_size=count + padding, max_size=count + padding)
    drawn = torch.tensor(data.draw(rows), dtype=torch.float64).view(-1, 3)
    boxes, durations = drawn[:, [0, 1, 0, 1]], drawn[:, 2]
    mask = torch.arange(count + padding) < count
    inputs = [torch.cat((x, x[:1])) if not len(drawn) else x for x in (boxes, durations)]
    if not len(drawn):
        inputs, mask = [torch.zeros(1, 4), torch.zeros(1)], torch.tensor([False])
    inputs = [x.requires_grad_() for x in inputs]
    fixations, scanpath = kinematics(inputs[0][None], inputs[1][None], mask[None])
    assert fixations.isfinite().all()
    assert scanpath.isfinite().all()
    (fixations.sum() + scanpath.sum()).backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[count:].any()


def test_standardised_kinematics_are_small_numbers_for_people_who_look_at_photographs() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = (0.5 + 0.2 * torch.randn(200, 8, 2, generator=generator)).clamp(0.05, 0.95)
    boxes = torch.cat((centres - 0.05, centres + 0.05), dim=-1)
    durations = torch.exp(-1.4 + 0.5 * torch.randn(200, 8, generator=generator))
    for numbers in kinematics(boxes, durations, torch.ones(200, 8, dtype=torch.bool)):
        assert numbers.abs().mean() < 1.5
        assert numbers.abs().max() < 10


def test_weights_with_kinematics_and_without_are_refused_by_each_other() -> None:
    config = attrs.evolve(CONFIG, kinematics=True)
    for one, other in ((CONFIG, config), (config, CONFIG)):
        with pytest.raises(RuntimeError, match=r"trajectory_embedding\.kinematics"):
            Deper(one, num_subjects=4).load_state_dict(Deper(other, num_subjects=4).state_dict())


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), half=st.integers(1, 8))
def test_sinusoids_follow_the_formula(values: list[float], half: int) -> None:
    expected = torch.tensor([plain_sinusoid(v, 2 * half) for v in values], dtype=torch.float64)
    torch.testing.assert_close(sinusoid(torch.tensor(values, dtype=torch.float64), 2 * half), expected)


def test_where_when_and_how_long() -> None:
    boxes = torch.tensor([[[0.0, 0.2, 0.5, 0.4], [0.5, 0.5, 1.0, 1.0]]], dtype=torch.float64)
    where = encode_where(boxes, 14, 8)[0]
    torch.testing.assert_close(
        where[0], torch.tensor(plain_sinusoid(0.25 * 14, 4) + plain_sinusoid(0.3 * 14, 4)).double()
    )
    torch.testing.assert_close(encode_order(boxes, 8)[0, 1], torch.tensor(plain_sinusoid(1, 8)).double())
    how_long = encode_how_long(torch.tensor([[0.25, 1.5]], dtype=torch.float64), 8)[0]
    torch.testing.assert_close(how_long[1], torch.tensor(plain_sinusoid(150, 8)).double())
    with pytest.raises(ValueError, match="even"):
        sinusoid(boxes, 3)


def test_film_is_the_identity_where_gamma_and_beta_are_zero() -> None:
    film = FiLM(CONFIG)
    nn.init.zeros_(film.gamma_beta[1].weight)
    nn.init.zeros_(film.gamma_beta[1].bias)
    queries = torch.randn(2, 3, CONFIG.hidden_size)
    assert torch.equal(film(queries, torch.randn(2, CONFIG.subject_embedding_size)), queries)


@settings(max_examples=20)
@given(seed=SEEDS, scale=st.floats(0.1, 100))
def test_decoded_boxes_are_ordered_and_inside_the_image(deper: Deper, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    context = deper.persona_encoder.encode(*collate([draw_sample(3, 3, generator)], 3, 3))
    z_s = torch.randn(1, CONFIG.subject_embedding_size, generator=generator, dtype=torch.float64) * scale
    boxes = deper.trajectory_decoder(z_s, context).boxes
    assert boxes.shape == (1, CONFIG.max_fixations, 4)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()


def test_the_order_of_fixations_matters(deper: Deper) -> None:
    image, words, boxes, durations = draw_sample(3, 4, torch.Generator().manual_seed(2))
    forth = deper(*collate([(image, words, boxes, durations)], 3, 4)).subject_embedding
    back = deper(*collate([(image, words, boxes.flip(0), durations.flip(0))], 3, 4)).subject_embedding
    assert not torch.allclose(forth, back)


def test_encode_then_extract_is_forward(deper: Deper) -> None:
    inputs = collate([draw_sample(3, 4, torch.Generator())], 3, 4)
    encoder = deper.persona_encoder
    assert torch.equal(encoder.extract(encoder.encode(*inputs)), encoder(*inputs).subject_embedding)


def test_freezing_the_context_leaves_the_extractor_to_learn() -> None:
    encoder = PersonaEncoder(CONFIG).double().freeze_context().train()
    learning = {name.split(".")[0] for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert learning == {"extractor"}
    assert {name for name, child in encoder.named_children() if child.training} == {"extractor"}
    inputs = collate([draw_sample(3, 4, torch.Generator())], 3, 4)
    assert torch.equal(encoder.encode(*inputs).dual, encoder.encode(*inputs).dual)  # no dropout
    assert not torch.equal(encoder(*inputs).subject_embedding, encoder(*inputs).subject_embedding)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"hidden_size": 18}, ValueError),
        ({"hidden_size": 16, "num_heads": 3}, ValueError),
        ({"grid_size": 0}, ValueError),
        ({"encoder_layers": 1.5}, TypeError),
        ({"num_heads": True}, TypeError),
        ({"dropout": 1.0}, ValueError),
        ({"film": 1}, TypeError),
        ({"kinematics": 1}, TypeError),
        ({"kinematics": True, "dynamics": False}, ValueError),
        ({"kinematics": True, "trajectory": False}, ValueError),
        ({"word_order": -0.1}, ValueError),
        ({"word_order": float("nan")}, ValueError),
        ({"word_order": float("inf")}, ValueError),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"NetworkConfig.{next(iter(wrong)) if 'num_heads' not in wrong else ''}"):
        NetworkConfig(**wrong)


def test_the_defaults_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = Deper(NetworkConfig(), num_subjects=89)
    assert model.persona_encoder.image_projection.weight.shape == (384, 768)
    assert model.trajectory_decoder.box_queries.shape == (1, 30, 384)


def test_the_adapter_is_one_linear_map() -> None:
    adapter = Adapter(12, 20)
    assert [name for name, _ in adapter.named_parameters()] == ["projection.weight"]
    assert adapter(torch.zeros(3, 12)).shape == (3, 20)
    assert not adapter(torch.zeros(3, 12)).any()
