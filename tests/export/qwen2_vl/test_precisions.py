"""Every precision of an export: how near it is to transformers, and to transformers with weights rounded plainly."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from export.graphs.nbits import quantize_nbits, round_weights
from export.graphs.parity import cpu_session, smallest_cosine
from export.qwen2_vl.export import SUFFIXES, VLMExport, export_vlm
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.bundle.vlm_files import find_files
from pydeper.runtime.session import CPU
from pydeper.vlm import DecodingOptions, VisionLanguageModel, open_vlm
from pydeper.vlm.decoder import Decoder
from pydeper.vlm.kv_cache import Prefix
from tests.support.images import random_image
from tests.support.onnx_graphs import linear, run
from tests.support.reference import greedy, image_inputs
from tests.support.small_vlm import PROMPTS, SmallVLM
from training.vlm.steered_vlm import vlm_config

SHORT = DecodingOptions(max_new_tokens=10)
BITS: dict[Precision, int] = {"int8": 8, "int4": 4}
ROUNDED: tuple[Precision, ...] = ("fp16", "int8", "int4")


@attrs.frozen
class Exported:
    """One model in transformers and, in every precision, in files.

    Attributes:
        model: In float32.
        source: What was exported, in bfloat16.
        before: The source's weights before that.
        folder: Holds a folder of each precision.
    """

    model: Qwen2VLForConditionalGeneration
    source: Qwen2VLForConditionalGeneration
    before: dict[str, torch.Tensor]
    folder: Path
    config: VLMConfig
    tokenizer: Tokenizer
    reports: dict[Precision, VLMExport]

    def open(self, precision: Precision) -> VisionLanguageModel:
        folder = self.folder / precision
        return open_vlm(folder, self.config, PROMPTS, self.tokenizer, threads=1, precision=precision)

    def decoder(self, precision: Precision, *, streams: bool = True) -> Decoder:
        files = find_files(self.folder / precision, precision)
        files = files if streams else attrs.evolve(files, prefill=None)
        return Decoder(files, self.config, providers=CPU, threads=1)


@pytest.fixture(scope="session")
def uneven_vlm(tokenizer: Tokenizer) -> Qwen2VLForConditionalGeneration:
    """hidden 192, 3 layers, feed-forward of 320: none is a multiple of the 128 inputs that share a scale."""
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + 5,
            "hidden_size": 192,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={"depth": 2, "embed_dim": 192, "hidden_size": 192, "num_heads": 4, "mlp_ratio": 2},
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = (
                0.6 if "embed_tokens" in name else 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            )
            offset = float(("norm" in name or "ln_q" in name) and not name.endswith("bias"))
            parameter.copy_(offset + spread * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def exported(
    uneven_vlm: Qwen2VLForConditionalGeneration, small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Exported from bfloat16, in training mode, as a trainer might have it."""
    source = copy.deepcopy(uneven_vlm).to(torch.bfloat16).train()
    before = copy.deepcopy(source.state_dict())
    folder = tmp_path_factory.mktemp("precisions")
    reports = {precision: export_vlm(source, folder / precision, precision) for precision in SUFFIXES}
    config = vlm_config(source.config, small_vlm.tokenizer, small_vlm.config.vision, base_model="random")
    model = copy.deepcopy(source).float().eval()
    return Exported(model, source, before, folder, config, small_vlm.tokenizer, reports)


def rounded(weight: np.ndarray, bits: int) -> np.ndarray:
    """(N, K), each 128 inputs in whole steps of their largest weight divided by -2^(bits - 1)."""
    half = 2 ** (bits - 1)
    result = np.empty_like(weight)
    for start in range(0, weight.shape[1], 128):
        block = weight[:, start : start + 128]
        extreme = np.take_along_axis(block, np.abs(block).argmax(axis=1)[:, None], axis=1)
        step = np.where(extreme == 0, 1, extreme / -half)
        result[:, start : start + 128] = np.clip(np.floor(block / step + 0.5), -half, half - 1) * step
    return result


def rounded_model(model: Qwen2VLForConditionalGeneration, bits: int) -> Qwen2VLForConditionalGeneration:
    """The model with the weights of its decoder rounded; the embedding table stays."""
    other = copy.deepcopy(model)
    other.lm_head = copy.deepcopy(other.lm_head)
    linears = [m for m in (*other.model.language_model.modules(), other.lm_head) if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer in linears:
            layer.weight.copy_(torch.from_numpy(rounded(layer.weight.numpy(), bits)))
    return other


def prompt(exported: Exported, tokens: int, seed: int = 0) -> np.ndarray:
    """(1, tokens, hidden) embeddings as wide as the table's."""
    rng = np.random.default_rng(seed)
    return (0.6 * rng.standard_normal((1, tokens, exported.config.hidden_size))).astype(np.float32)


@torch.no_grad()
def expected_logits(model: Qwen2VLForConditionalGeneration, embeddings: np.ndarray, last: int) -> np.ndarray:
    """(last, V) logits of the last positions, text throughout."""
    positions = torch.arange(embeddings.shape[1]).expand(3, 1, -1)
    text = model.model.language_model(
        inputs_embeds=torch.from_numpy(embeddings), position_ids=positions, use_cache=False
    )
    return model.lm_head(text.last_hidden_state[0, -last:]).numpy()


def logits_of(decoder: Decoder, embeddings: np.ndarray, pieces: Sequence[int]) -> np.ndarray:
    """(pieces, V) logits after each piece of a sequence."""
    cache = decoder.start([decoder.empty], embeddings.shape[1])
    parts = np.split(embeddings, np.cumsum(pieces)[:-1], axis=1)
    return np.concatenate([decoder.extend(cache, part) for part in parts])


def prefix_of(decoder: Decoder, embeddings: np.ndarray) -> Prefix:
    cache = decoder.start([decoder.empty], embeddings.shape[1])
    decoder.extend(cache, embeddings, logits=False)
    return cache.prefix(embeddings.shape[1], embeddings.shape[1])


# Whole models


@pytest.mark.parametrize("precision", ROUNDED)
def test_every_precision_opens_and_describes(exported: Exported, precision: Precision) -> None:
    model = exported.open(precision)
    report = model.report()
    assert report["precision"] == precision
    assert report["decoder"] == f"decoder_model_merged{SUFFIXES[precision]}.onnx"
    assert report["vision encoder"] == f"vision_encoder{'_fp16' if precision == 'fp16' else '_int8'}.onnx"
    assert report["key/value cache"] == "written in place"
    soft = np.random.default_rng(0).standard_normal((3, exported.config.hidden_size)).astype(np.float32)
    encoded = model.encode_image(random_image(84, 84))
    together = model.generate(encoded, "description", soft, SHORT)
    alone = [model.generate(encoded, "description", row[None], SHORT)[0] for row in soft]
    # Sums of one row and of several are not formed in one order, so only what has one prompt alone is equal for sure.
    assert [generation.token_ids[0] for generation in together] == [generation.token_ids[0] for generation in alone]
    assert len({generation.token_ids for generation in together}) == 3
    assert "".join(model.stream(encoded, "description", soft[0], SHORT)) == alone[0].text


def test_half_precision_chooses_the_tokens_of_transformers(exported: Exported) -> None:
    model = exported.open("fp16")
    rng = np.random.default_rng(1)
    equal = []
    for seed in range(4):
        image, soft = random_image(84, 84, seed), rng.standard_normal(exported.config.hidden_size).astype(np.float32)
        (found,) = model.generate(model.encode_image(image), "description", soft[None], SHORT)
        expected = greedy(exported.model, exported.config, exported.tokenizer, PROMPTS, "description", image, soft, 10)
        # Once a near tie is decided otherwise, the rest is another text.
        equal += [mine == theirs for mine, theirs in zip(found.token_ids, expected, strict=False)]
        assert found.token_ids[0] == expected[0]
    assert np.mean(equal) > 0.8


# Decoders


@pytest.mark.parametrize("precision", ROUNDED)
def test_logits_are_those_of_the_rounded_weights(exported: Exported, precision: Precision) -> None:
    """Of a prompt that the decoder itself computes, and of tokens that follow one by one."""
    embeddings = prompt(exported, 23)
    found = logits_of(exported.decoder(precision), embeddings, [20, 1, 1, 1])
    plain = expected_logits(exported.model, embeddings, 4)
    if precision == "fp16":
        assert smallest_cosine(found, plain) > 0.9999
        return
    near = expected_logits(rounded_model(exported.model, BITS[precision]), embeddings, 4)
    assert smallest_cosine(found, near) > 0.98
    if precision == "int4":  # so that the comparison tells one rounding from none
        assert smallest_cosine(found, near) > smallest_cosine(found, plain)


@pytest.mark.parametrize("bits", [4, 8])
@given(
    st.integers(1, 20),
    st.integers(1, 300),
    st.floats(1e-4, 1e4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_rounding_is_the_plain_one_and_the_one_that_is_stored(
    bits: int, outputs: int, features: int, scale: float, seed: int
) -> None:
    weight = (scale * np.random.default_rng(seed).standard_normal((outputs, features))).astype(np.float32)
    layer = nn.Linear(features, outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    round_weights(layer, bits)
    once = layer.weight.detach().numpy().copy()
    steps = np.abs(weight).max() / 2 ** (bits - 1)
    assert np.abs(once - rounded(weight, bits)).max() <= 1.001 * steps  # a tie may fall to either side
    assert np.isclose(once, rounded(weight, bits), rtol=1e-4, atol=1e-6 * steps).mean() > 0.99
    round_weights(layer, bits)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), once)

    # What the graph stores of rounded weights is these weights: activations of one number are exact in 8 bits.
    model = linear(once.T.copy())
    quantize_nbits(model, bits)
    np.testing.assert_allclose(
        run(model, np.eye(features, dtype=np.float32)), once.T, rtol=1e-5, atol=1e-5 * float(np.abs(once).max())
    )


def test_weights_of_zero_stay_zero() -> None:
    layer = nn.Linear(130, 3, bias=False)
    with torch.no_grad():
        layer.weight[1:] = 0
    for bits in (8, 4):
        round_weights(layer, bits)
        assert np.all(layer.weight.detach().numpy()[1:] == 0)
        assert np.any(layer.weight.detach().numpy()[0] != 0)


# Long prompts


def test_a_long_prompt_goes_through_layers_of_its_own(exported: Exported) -> None:
    assert exported.decoder("int4").streams
    assert not exported.decoder("fp16").streams
    embeddings = prompt(exported, 48)
    streamed = prefix_of(exported.decoder("int4"), embeddings)
    whole = prefix_of(exported.decoder("int4", streams=False), embeddings)
    with torch.no_grad():
        cache = exported.model.model.language_model(
            inputs_embeds=torch.from_numpy(embeddings),
            position_ids=torch.arange(48).expand(3, 1, -1),
            use_cache=True,
        ).past_key_values
    exact = [array.numpy() for layer in cache.layers for array in (layer.keys, layer.values)]
    assert any(np.any(a != b) for a, b in zip(streamed.layers, whole.layers, strict=True))
    for found, decoder, expected in zip(streamed.layers, whole.layers, exact, strict=True):
        assert smallest_cosine(found, expected) > 0.98
        assert smallest_cosine(found, expected) > smallest_cosine(decoder, expected)  # 8 bits are more than 4
    short = prompt(exported, 12)
    for mine, other in zip(
        prefix_of(exported.decoder("int4"), short).layers,
        prefix_of(exported.decoder("int4", streams=False), short).layers,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("pieces", [[60, 20], [60, 40], [10, 90], [30, 30, 30, 10]])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_prompt_in_one_pass_or_several(exported: Exported, precision: Precision, pieces: list[int]) -> None:
    decoder, embeddings = exported.decoder(precision), prompt(exported, sum(pieces))
    one, several = logits_of(decoder, embeddings, [sum(pieces)]), logits_of(decoder, embeddings, pieces)
    exact = expected_logits(exported.model, embeddings, 1)[0]
    # Weights as wide as these make much of a rounding to 4 bits; one that went wrong gives a cosine around 0.
    least = {"int8": 0.995, "int4": 0.85}[precision]
    assert smallest_cosine(one[-1], several[-1]) > least
    assert min(smallest_cosine(one[-1], exact), smallest_cosine(several[-1], exact)) > least


def test_the_first_persona_of_an_image_is_described_as_a_later_one(small_vlm: SmallVLM) -> None:
    """The first is computed together with the image; later ones go on after it."""
    model = small_vlm.open()
    soft = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    for size in ((84, 84), (500, 400)):
        image = random_image(*size)
        known = model.encode_image(image)
        model.generate(known, "description", soft, SHORT)
        for row in soft:
            first = model.generate(model.encode_image(image), "description", row[None], SHORT)
            assert first == model.generate(known, "description", row[None], SHORT)


def test_layers_that_were_given_back_are_read_again(exported: Exported) -> None:
    decoder, prompts = exported.decoder("int4"), [prompt(exported, tokens, tokens) for tokens in range(30, 42)]
    expected = [prefix_of(decoder, embeddings).layers for embeddings in prompts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda embeddings: prefix_of(decoder, embeddings).layers, prompts))
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell what is in memory")
def test_layers_leave_the_memory_when_they_are_done(exported: Exported) -> None:
    weights = exported.folder / "int4" / "decoder_layers_int8.npy"
    decoder = exported.decoder("int4")
    prefix_of(decoder, prompt(exported, 40))
    assert resident(weights) < weights.stat().st_size / exported.config.num_layers
    touched = np.load(weights, mmap_mode="r")
    touched["qkv"].sum()
    touched["down"].sum()
    assert resident(weights) > weights.stat().st_size / 2  # the measure itself


def resident(file: Path) -> int:
    """Bytes of a mapped file that are in memory."""
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            inside = rest.endswith(str(file))
        elif inside and name == "Rss:":
            size += int(rest.split()[0]) * 1024
    return size


# Vision encoders


@pytest.mark.parametrize("precision", ROUNDED)
def test_image_features_in_every_precision(exported: Exported, precision: Precision) -> None:
    model = exported.open(precision)
    for size in ((84, 84), (60, 200), (500, 400)):
        image = random_image(*size)
        with torch.no_grad():
            expected = exported.model.model.visual(*image_inputs(image, exported.config)).pooler_output
        cosine = smallest_cosine(model.encode_image(image).features, expected)
        assert cosine > (0.9999 if precision == "fp16" else 0.99)
    assert exported.reports[precision].vision_cosine > 0.99


def test_wide_vision_encoders_multiply_integers(exported: Exported) -> None:
    graph = onnx.load(exported.folder / "int4" / "vision_encoder_int8.onnx").graph
    integers = sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node)
    assert integers == 11  # in each of two blocks qkv, proj and two of the MLP; the patches; the merger's two


@pytest.mark.parametrize("precision", SUFFIXES)
def test_several_images_in_one_call(exported: Exported, precision: Precision) -> None:
    session = cpu_session(find_files(exported.folder / precision, precision).vision_encoder)
    rng = np.random.default_rng(0)

    def features(grids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        pixels = rng.standard_normal((int(np.prod(grids, axis=1).sum()), 1176), dtype=np.float32)
        (found,) = session.run(None, {"pixel_values": pixels, "image_grid_thw": np.array(grids)})
        with torch.no_grad():
            expected = exported.model.model.visual(torch.from_numpy(pixels), torch.tensor(grids)).pooler_output
        return found, expected.numpy()

    for grids in ([[1, 4, 6]], [[1, 4, 6], [1, 6, 4]], [[1, 2, 12], [1, 12, 2], [1, 4, 6]]):
        assert smallest_cosine(*features(grids)) > 0.99
    for grids in ([[1, 4, 6], [1, 4, 4]], [[1, 4, 4], [1, 4, 6], [1, 4, 5]], [[1, 2, 2], [1, 4, 8]]):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="Reshape"):
            features(grids)


# The source


def test_exports_leave_the_model_alone(exported: Exported) -> None:
    after = exported.source.state_dict()
    assert after.keys() == exported.before.keys()
    assert all(torch.equal(after[name], weights) for name, weights in exported.before.items())
    assert exported.source.dtype == torch.bfloat16
    assert exported.source.training
    assert exported.source.lm_head.weight is exported.source.get_input_embeddings().weight


def test_reports_tell_the_precisions_apart(exported: Exported) -> None:
    cosines = [exported.reports[precision].logits_cosine for precision in SUFFIXES]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 1 - 1e-9
    assert cosines[2] > 0.99
    assert [report.prefill_cosine is None for report in exported.reports.values()] == [True, True, False, False]
    assert all(max(report.prefill_error, report.step_error) < 0.25 for report in exported.reports.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int2"}, "precision is 'int2'; choose one of 'fp32', 'fp16', 'int8', 'int4'"),
        ({"precision": "int4", "store_fp16": True}, "store_fp16 goes with precision 'fp32' only, got 'int4'"),
    ],
)
def test_settings_that_make_no_sense(
    torch_vlm: Qwen2VLForConditionalGeneration, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    wrong: Callable[..., VLMExport] = export_vlm
    with pytest.raises(ValueError, match=message):
        wrong(torch_vlm, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()
