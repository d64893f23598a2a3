"""A real vLLM server gives the tokens that the runtime on this machine gives; run by `make test-vllm`."""

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image

from benchmarks.standin import write_standin
from export.cli.main import main
from export.qwen2_vl.folder import read_vlm_folder
from pydeper import InvalidArgumentError, VLLMAuthenticationError, VLLMIncompatibleError, VLLMServers
from pydeper.vlm import DecodingOptions, VisionLanguageModel, open_vlm
from pydeper.vlm.vllm.runtime import VLLMRuntime
from tests.support.images import random_image
from tests.support.small_vlm import PROMPTS
from tests.support.vllm.real_server import PYTHON_VARIABLE, serving

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON_VARIABLE not in os.environ, reason=f"needs vLLM: make test-vllm (${PYTHON_VARIABLE})"),
]

NAME = "Qwen2-VL-Served"
GREEDY = DecodingOptions(max_new_tokens=24)


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin(tmp_path_factory.mktemp("hub") / NAME, "served")


@pytest.fixture(scope="module")
def exported(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "vlm"
    assert main(["vlm", str(standin), "--out", str(folder), "--precision", "fp32", "--any-size"]) == 0
    return folder


@pytest.fixture(scope="module")
def local(exported: Path) -> VisionLanguageModel:
    config, tokenizer = read_vlm_folder(exported)
    return open_vlm(exported, config, PROMPTS, tokenizer)


@pytest.fixture(scope="module")
def address(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with serving(standin, NAME, log, "--enable-prompt-embeds", "--api-key", "sk-test") as address:
        yield address


@pytest.fixture(scope="module")
def served(exported: Path, address: str) -> VisionLanguageModel:
    config, tokenizer = read_vlm_folder(exported)
    return VLLMRuntime(VLLMServers(address, api_key="sk-test", timeout=600), config, PROMPTS, tokenizer)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [random_image(*size, seed) for seed, size in enumerate([(84, 84), (200, 90), (61, 140)])]


@pytest.fixture(scope="module")
def soft_tokens(local: VisionLanguageModel) -> np.ndarray:
    """Those of eight personas, as wide as the embeddings are."""
    return np.random.default_rng(0).normal(0, 0.6, (8, local.config.hidden_size)).astype(np.float32)


@pytest.mark.parametrize("style", PROMPTS.styles)
def test_greedy_tokens_are_the_local_ones(
    local: VisionLanguageModel,
    served: VisionLanguageModel,
    images: list[Image.Image],
    soft_tokens: np.ndarray,
    style: str,
) -> None:
    told = set()
    for image in images:
        here, there = local.encode_image(image), served.encode_image(image)
        each = local.generate(here, style, soft_tokens, GREEDY)
        assert served.generate(there, style, soft_tokens, GREEDY) == each
        assert served.generate(there, style, soft_tokens[:1], GREEDY) == each[:1]
        assert served.generate(there, style, None, GREEDY) == local.generate(here, style, None, GREEDY)
        assert "".join(served.stream(there, style, soft_tokens[0], GREEDY)) == each[0].text
        told |= {generation.token_ids for generation in each}
    assert len(told) > len(soft_tokens)  # personas and images make a difference


def test_rows_of_different_images(
    local: VisionLanguageModel, served: VisionLanguageModel, images: list[Image.Image], soft_tokens: np.ndarray
) -> None:
    here, there = ([model.encode_image(image) for image in images] for model in (local, served))
    expected = local.generate(here, "description", soft_tokens[:3], GREEDY)
    assert served.generate(there, "description", soft_tokens[:3], GREEDY) == expected


def test_sampling_follows_its_seed(
    served: VisionLanguageModel, images: list[Image.Image], soft_tokens: np.ndarray
) -> None:
    image = served.encode_image(images[0])

    def sampled(seed: int) -> list[str]:
        options = DecodingOptions(max_new_tokens=12, temperature=1.0, seed=seed)
        return [row.text for row in served.generate(image, "description", soft_tokens[:2], options)]

    assert sampled(1) == sampled(1) != sampled(2)


def test_what_does_not_fit_is_explained(
    exported: Path, address: str, served: VisionLanguageModel, images: list[Image.Image]
) -> None:

    config, tokenizer = read_vlm_folder(exported)
    servers = VLLMServers(address, api_key="sk-test", timeout=600)
    with pytest.raises(VLLMAuthenticationError):
        VLLMRuntime(VLLMServers(address), config, PROMPTS, tokenizer)
    with pytest.raises(VLLMIncompatibleError, match="serves another model"):
        VLLMRuntime(servers, attrs.evolve(config, base_model="Qwen/Qwen2-VL-7B-Instruct"), PROMPTS, tokenizer)
    narrow = VLLMRuntime(servers, attrs.evolve(config, hidden_size=128), PROMPTS, tokenizer)
    with pytest.raises(VLLMIncompatibleError, match=r"serves a model of hidden size 256, .* have 128 numbers"):
        narrow.generate(narrow.encode_image(images[0]), "description", np.zeros((1, 128)), GREEDY)
    with pytest.raises(InvalidArgumentError, match="server's context holds 1024"):
        served.generate(served.encode_image(random_image(1000, 1000)), "description", None, GREEDY)
    assert "vLLM 0." in served.report()["server"]


def test_the_flag_is_missing(
    standin: Path, exported: Path, images: list[Image.Image], soft_tokens: np.ndarray, tmp_path: Path
) -> None:
    config, tokenizer = read_vlm_folder(exported)
    with serving(standin, NAME, tmp_path / "vllm.log") as address:
        model = VLLMRuntime(VLLMServers(address, timeout=600), config, PROMPTS, tokenizer)
        with pytest.raises(VLLMIncompatibleError, match="start vLLM with --enable-prompt-embeds"):
            model.generate(model.encode_image(images[0]), "description", soft_tokens[:1], GREEDY)
