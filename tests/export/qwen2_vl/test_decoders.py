"""The exported decoders in every precision: their logits, and the layers that long prompts go through."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from export.graphs.parity import smallest_cosine
from pydeper.bundle.config import Precision
from pydeper.vlm import DecodingOptions
from tests.export.qwen2_vl.uneven_vlm import (
    ROUNDED,
    Exported,
    expected_logits,
    logits_of,
    prefix_of,
    prompt,
    rounded_model,
)
from tests.support.images import random_image
from tests.support.small_vlm import SmallVLM

# The first test to need it waits for the shared export, which a busy machine makes slow.
pytestmark = pytest.mark.timeout(900)

SHORT = DecodingOptions(max_new_tokens=10)
BITS: dict[Precision, int] = {"int8": 8, "int4": 4}


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
    exact = [array.numpy()[:, :, :-1] for layer in cache.layers for array in (layer.keys, layer.values)]
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
