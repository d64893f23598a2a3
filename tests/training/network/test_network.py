"""The network against a per-sample restatement with plain loops, and the properties that batching must keep."""

# ruff: noqa: N806 - the letters of the paper: V, L, T, Z, Q

import json
import math
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from tests.support.small_network import CONFIG, SWITCHES, collate, draw_sample
from training.network import Adapter, Deper, ImageEncoder, NetworkConfig, PersonaEncoder, TextTable
from training.network.box_pooling import pool_boxes
from training.network.positions import encode_how_long, encode_order, encode_where, sinusoid
from training.network.trajectory_decoder import FiLM

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)
LENGTHS = st.tuples(st.integers(0, 6), st.integers(0, 5))


@pytest.fixture(scope="module")
def deper() -> Deper:
    torch.manual_seed(0)
    return Deper(CONFIG, num_subjects=4).double().eval()


class Plain:
    """The network on one sample, straight from the formulas: no batch, no padding, no masks, head by head."""

    def __init__(self, deper: Deper) -> None:
        self.config = deper.persona_encoder.config
        self.weights = {name: value.detach() for name, value in deper.state_dict().items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / ((x * x).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def gelu(self, x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def attend(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.attention.{part}", y)
            for part, y in (("query", x), ("key", context), ("value", context))
        )
        width = CONFIG.hidden_size // CONFIG.num_heads
        rows = []
        for i in range(len(x)):
            heads = []
            for h in range(CONFIG.num_heads):
                part = slice(h * width, (h + 1) * width)
                weights = torch.stack(
                    [(q[i, part] * k[j, part]).sum() / math.sqrt(width) for j in range(len(context))]
                ).exp()
                heads.append(sum(w * v[j, part] for j, w in enumerate(weights)) / weights.sum())
            rows.append(torch.cat(heads))
        answer = self.linear(f"{name}.attention.output", torch.stack(rows)) if rows else x
        return self.norm(f"{name}.norm", x + answer)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        inner = self.linear(f"{name}.layers.3", self.gelu(self.linear(f"{name}.layers.0", x)))
        return self.norm(f"{name}.norm", x + inner)

    def readout(self, name: str, context: Tensor) -> Tensor:
        x = self.attend(f"{name}.cross_attention", self.weights[f"{name}.query"][0], context)
        return self.linear(f"{name}.head.3", self.gelu(self.linear(f"{name}.head.1", self.norm(f"{name}.head.0", x))))[
            0
        ]

    def embed_trajectory(self, image: Tensor, boxes: Tensor, durations: Tensor) -> Tensor:
        name = "persona_encoder.trajectory_embedding.projection"
        rows = [torch.zeros(0, CONFIG.hidden_size, dtype=torch.float64)]
        for i, (box, duration) in enumerate(zip(boxes.tolist(), durations.tolist(), strict=True)):
            x, y = (box[0] + box[2]) / 2 * CONFIG.grid_size, (box[1] + box[3]) / 2 * CONFIG.grid_size
            half = CONFIG.hidden_size // 2
            where = plain_sinusoid(x, half) + plain_sinusoid(y, half)
            extra = where
            if self.config.dynamics:
                when, how_long = plain_sinusoid(i, 2 * half), plain_sinusoid(duration * 100, 2 * half)
                extra = [sum(parts) for parts in zip(where, when, how_long, strict=True)]
            seen = self.linear(name, plain_pooling(image, box, CONFIG.grid_size))
            rows.append((seen + torch.tensor(extra, dtype=torch.float64))[None])
        return torch.cat(rows)

    def __call__(self, image: Tensor, words: Tensor, boxes: Tensor, durations: Tensor) -> dict[str, Tensor]:
        V = self.linear("persona_encoder.image_projection", image)
        L = self.linear("persona_encoder.text_projection", words)
        if self.config.word_order:
            places = [plain_sinusoid(i, CONFIG.hidden_size) for i in range(len(words))]
            L = L + self.config.word_order * torch.tensor(places, dtype=torch.float64).view(L.shape)
        L_0 = L
        T = self.embed_trajectory(image, boxes, durations)
        T = T if self.config.trajectory else T[:0]
        for layer in range(CONFIG.encoder_layers):
            streams = []
            for stream, tokens, other in (("text", L, T), ("trajectory", T, L)):
                name = f"persona_encoder.dual_context.layers.{layer}.{stream}"
                tokens = self.attend(f"{name}.self_attention", tokens, tokens)
                context = torch.cat((V, other)) if self.config.dual_context else V
                tokens = self.attend(f"{name}.cross_attention", tokens, context)
                streams.append(self.feed_forward(f"{name}.feed_forward", tokens))
            L, T = streams
        Z = torch.cat((L, T))
        z_s = self.readout("persona_encoder.extractor", Z)
        latent = self.config.trajectory_latent
        z_traj = (
            self.readout("trajectory_decoder.latent", Z)
            if latent
            else self.linear("trajectory_decoder.from_subject", z_s)
        )
        Q = self.weights["trajectory_decoder.box_queries"][0] + z_traj
        for layer in range(CONFIG.decoder_layers):
            name = f"trajectory_decoder.layers.{layer}"
            Q = self.attend(f"{name}.self_attention", Q, Q)
            Q = self.attend(f"{name}.latent_attention", Q, z_traj[None])
            Q = self.attend(f"{name}.context_attention", Q, torch.cat((V, L_0)))
            if self.config.film:
                film = self.linear(f"{name}.film.gamma_beta.1", self.norm(f"{name}.film.gamma_beta.0", z_s)).tanh()
                Q = Q * (1 + film[: CONFIG.hidden_size]) + film[CONFIG.hidden_size :]
            Q = self.feed_forward(f"{name}.feed_forward", Q)
        numbers = self.linear("trajectory_decoder.head", Q)
        x1, y1, x2, y2 = (1 / (1 + torch.exp(-numbers[:, i])) for i in range(4))
        boxes = torch.stack(
            (torch.minimum(x1, x2), torch.minimum(y1, y2), torch.maximum(x1, x2), torch.maximum(y1, y2)), -1
        )
        logits = self.linear("subject_head.classifier", z_s)
        return {"dual": Z, "z_s": z_s, "logits": logits, "boxes": boxes, "validity": numbers[:, 4]}


def plain_sinusoid(value: float, size: int) -> list[float]:
    return [(math.cos if i % 2 else math.sin)(value / 10_000 ** (2 * (i // 2) / size)) for i in range(size)]


def plain_pooling(tokens: Tensor, box: list[float], grid_size: int) -> Tensor:
    x1, y1, x2, y2 = box
    inside = [
        tokens[row * grid_size + column]
        for row in range(grid_size)
        for column in range(grid_size)
        if x1 <= (column + 0.5) / grid_size <= x2 and y1 <= (row + 0.5) / grid_size <= y2
    ]
    if not inside:
        column, row = (min(int((a + b) / 2 * grid_size), grid_size - 1) for a, b in ((x1, x2), (y1, y2)))
        inside = [tokens[row * grid_size + column]]
    return sum(inside) / len(inside)


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
    assert names == expected


@settings(max_examples=40)
@given(
    seed=SEEDS,
    lengths=LENGTHS,
    mates=st.lists(LENGTHS, max_size=3),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_padding_and_batch_mates_never_change_a_sample(
    deper: Deper, seed: int, lengths: tuple[int, int], mates: list[tuple[int, int]], extra: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sample, *others = [draw_sample(*length, generator) for length in (lengths, *mates)]
    alone = deper(*collate([sample], max(1, lengths[0]), max(1, lengths[1])))
    longest = [max(1, *(length[i] for length in (lengths, *mates))) + extra[i] for i in (0, 1)]
    together = deper(*collate([*others, sample], *longest))
    for name in ("subject_embedding", "subject_logits", "boxes", "validity_logits"):
        torch.testing.assert_close(getattr(together, name)[-1], getattr(alone, name)[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("missing", [("text",), ("trajectory",), ("text", "trajectory")])
def test_a_missing_modality_is_finite_with_gradients(missing: tuple[str, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = Deper(CONFIG, num_subjects=4)
    samples = [draw_sample(0 if "text" in missing else 3, 0 if "trajectory" in missing else 3, torch.Generator())] * 2
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
    unused = inputs[1].grad if "text" in missing else inputs[4].grad
    assert unused is None or not unused.any()


def test_every_parameter_learns() -> None:
    model = Deper(CONFIG, num_subjects=4)
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


@settings(max_examples=40)
@given(seed=SEEDS, grid_size=st.integers(1, 7), data=st.data())
def test_box_pooling_is_the_mean_of_the_covered_cells(seed: int, grid_size: int, data: st.DataObject) -> None:
    edge = st.floats(0, 1) | st.sampled_from([(i + 0.5) / grid_size for i in range(grid_size)])
    pairs = data.draw(st.lists(st.tuples(edge, edge, edge, edge), min_size=1, max_size=5))
    boxes = [[min(a, b), min(c, d), max(a, b), max(c, d)] for a, b, c, d in pairs]
    tokens = torch.randn(grid_size**2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pooled = pool_boxes(tokens[None], torch.tensor([boxes], dtype=torch.float64), grid_size)[0]
    torch.testing.assert_close(pooled, torch.stack([plain_pooling(tokens, b, grid_size) for b in boxes]))


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


@pytest.fixture(scope="module")
def backbone() -> DINOv3ConvNextModel:
    torch.manual_seed(3)
    return DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], drop_path_rate=0.5))


def test_the_image_encoder_is_the_last_feature_map(backbone: DINOv3ConvNextModel, tmp_path: Path) -> None:
    backbone.save_pretrained(tmp_path)
    encoder = ImageEncoder.from_pretrained(tmp_path).train()
    pixels = torch.randn(2, 3, 96, 96, requires_grad=True)
    tokens = encoder(pixels)
    assert tokens.shape == (2, 9, encoder.channels)
    assert not tokens.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    feature_map = pixels
    with torch.no_grad():
        for stage in encoder.backbone.model.stages:
            feature_map = stage(feature_map)
        for row in range(3):
            for column in range(3):
                expected = encoder.backbone.layer_norm(feature_map[:, :, row, column])
                torch.testing.assert_close(tokens[:, row * 3 + column], expected)


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "model.embed_tokens.weight", "model.language_model.embed_tokens.weight"]
)
@pytest.mark.parametrize("sharded", [False, True])
def test_the_text_table_reads_the_embeddings_alone(tmp_path: Path, name: str, sharded: bool) -> None:
    weight = torch.randn(7, 5).to(torch.bfloat16)
    if sharded:
        save_file({name: weight}, tmp_path / "model-00002-of-00002.safetensors")
        index = {
            "weight_map": {
                "lm_head.weight": "model-00001-of-00002.safetensors",
                name: "model-00002-of-00002.safetensors",
            }
        }
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    else:
        save_file({name: weight, "model.norm.weight": torch.ones(5)}, tmp_path / "model.safetensors")
    table = TextTable.from_pretrained(tmp_path)
    ids = torch.tensor([[0, 6, 3]])
    assert torch.equal(table(ids), weight[ids].float())
    assert table.channels == 5
    assert not table.state_dict()
    assert not list(table.parameters())


def test_the_text_table_is_found_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--org--vlm"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="org/vlm holds neither"):
        TextTable.from_pretrained("org/vlm")
    save_file({"embed_tokens.weight": torch.ones(3, 2)}, repository / "snapshots" / "abc" / "model.safetensors")
    assert TextTable.from_pretrained("org/vlm").weight.shape == (3, 2)


def test_a_text_table_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither"):
        TextTable.from_pretrained(tmp_path)
    index = {"weight_map": {"embed_tokens.weight": "gone.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"lacks gone\.safetensors"):
        TextTable.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(
        {"a.embed_tokens.weight": torch.ones(1, 1), "b.embed_tokens.weight": torch.ones(1, 1)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match="holds 2 tensors"):
        TextTable.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a text table is"):
        TextTable(torch.ones(3))
