"""L_des over cached prefixes against the plain forward pass over everything: the same loss, the same gradients."""

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.images import random_image
from tests.support.small_vlm import SmallVLM
from tests.support.training_run import log_of
from training.__main__ import main
from training.losses.description import DescriptionLoss, language_loss
from training.vlm.steered_vlm import SteeredVLM

# Images of five shapes: prefixes of five lengths.
IMAGES = [random_image(*size, seed) for seed, size in enumerate([(90, 60), (140, 56), (60, 60), (56, 140), (120, 100)])]
WORDS = ["a", "red", "circle", "and", "blue", "square", "then", "on", "the", "left,", "Somebody", "😀", "<|im_end|>"]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def steered(small_vlm: SmallVLM, request: pytest.FixtureRequest) -> SteeredVLM:
    model = copy.deepcopy(small_vlm.model)
    model.set_attn_implementation(request.param)
    return SteeredVLM(model, small_vlm.tokenizer, small_vlm.config, small_vlm.prompts)


@pytest.fixture(scope="module")
def sdpa(small_vlm: SmallVLM) -> SteeredVLM:
    return SteeredVLM(copy.deepcopy(small_vlm.model), small_vlm.tokenizer, small_vlm.config, small_vlm.prompts)


class Features:
    """Image maps by number, computed once, counting what is asked for."""

    def __init__(self, vlm: SteeredVLM) -> None:
        self.maps, self.asked = vlm.image_maps(IMAGES), 0

    def of(self, numbers: Sequence[int]) -> list[Tensor]:
        self.asked += len(numbers)
        return [self.maps[number] for number in numbers]


def plain(
    vlm: SteeredVLM, images: Sequence[int], soft_tokens: Tensor, texts: Sequence[str], style: str, bf16: bool = False
) -> Tensor:
    grids = vlm.grids([IMAGES[number] for number in images])
    batch = vlm.prompt_batch([vlm.steered_prompt(style)] * len(texts), texts, grids)
    features = vlm.image_features([IMAGES[number] for number in images])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return language_loss(vlm.model, vlm.embed(features, soft_tokens, batch.input_ids), batch)


def soft_tokens_of(vlm: SteeredVLM, count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, vlm.config.hidden_size, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def gradient(loss: Tensor, soft_tokens: Tensor) -> Tensor:
    return torch.autograd.grad(loss, soft_tokens)[0]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@settings(max_examples=15)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, len(IMAGES) - 1), st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)),
        min_size=1,
        max_size=5,
    ),
    style=st.sampled_from(["description", "caption"]),
    cache_bytes=st.sampled_from([0, 40_000, 2**30]),
    checkpointing=st.booleans(),
)
def test_loss_and_gradients_are_those_of_the_plain_pass(steered, rows, style, cache_bytes, checkpointing):
    images, texts = [image for image, _ in rows], [" ".join(words) for _, words in rows]
    soft = soft_tokens_of(steered, len(rows))
    loss_of = DescriptionLoss(
        steered, Features(steered).of, style, cache_bytes=cache_bytes, checkpointing=checkpointing
    )
    expected = plain(steered, images, soft, texts, style)
    wanted = gradient(expected, soft)
    for _ in range(2):  # the second time from what was kept
        found = loss_of(images, soft, texts)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        assert distance(gradient(found, soft), wanted) < 1e-5


def test_nothing_of_the_frozen_model_gets_a_gradient(sdpa):
    soft = soft_tokens_of(sdpa, 2)
    DescriptionLoss(sdpa, Features(sdpa).of)([0, 1], soft, ["a", "b"]).backward()
    assert (soft.grad.abs().sum(-1) > 0).all()
    assert all(parameter.grad is None for parameter in sdpa.model.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_under_bfloat16_it_is_as_close_as_rounding_allows(sdpa, checkpointing):
    images, texts = [0, 1, 4], ["a red circle", "then on the left, a wall", "blue"]
    soft = soft_tokens_of(sdpa, 3)
    exact = gradient(plain(sdpa, images, soft, texts, "description"), soft)
    rounded = gradient(plain(sdpa, images, soft, texts, "description", bf16=True), soft)
    loss_of = DescriptionLoss(sdpa, Features(sdpa).of, bf16=True, checkpointing=checkpointing)
    loss = loss_of(images, soft, texts)
    assert loss.dtype == torch.float32
    assert distance(gradient(loss, soft), exact) < 2 * distance(rounded, exact) < 0.1


def test_weights_in_bfloat16_are_as_close_as_rounding_allows(sdpa, small_vlm):
    images, texts = [0, 1, 4], ["a red circle", "then on the left, a wall", "blue"]
    soft = soft_tokens_of(sdpa, 3)
    exact = gradient(plain(sdpa, images, soft, texts, "description"), soft)
    model = copy.deepcopy(sdpa.model).to(torch.bfloat16)
    half = SteeredVLM(model, sdpa.tokenizer, sdpa.config, small_vlm.prompts)
    rounded = gradient(plain(half, images, soft, texts, "description", bf16=True), soft)
    found = gradient(DescriptionLoss(half, Features(half).of, bf16=True)(images, soft, texts), soft)
    assert distance(found, exact) < 2 * distance(rounded, exact) < 0.4


def test_an_image_is_prefilled_once_for_all_rows_and_steps(sdpa):
    features = Features(sdpa)
    loss_of = DescriptionLoss(sdpa, features.of)
    soft = soft_tokens_of(sdpa, 4)
    loss_of([2, 0, 2, 2], soft, ["a", "b", "c", "d"])
    assert features.asked == 2
    loss_of([0, 1, 2, 0], soft, ["a", "b", "c", "d"])
    assert features.asked == 3


def saved_bytes(loss_of: DescriptionLoss, images: list[int], soft: Tensor, texts: list[str]) -> int:
    """Bytes that the forward pass holds for the backward pass, each storage counted once."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    loss_of(images, soft, texts)  # prefixes are kept from here on
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(images, soft, texts)
    del loss
    return sum(storages.values())


def test_checkpointing_holds_less_for_the_backward_pass(sdpa):
    images, texts = [0, 1, 2, 3], [" ".join(WORDS)] * 4
    soft = soft_tokens_of(sdpa, 4)
    whole, checkpointed = (
        saved_bytes(DescriptionLoss(sdpa, Features(sdpa).of, checkpointing=on), images, soft, texts)
        for on in (False, True)
    )
    assert checkpointed < whole / 3


def test_attention_without_masks_is_refused(sdpa, monkeypatch):
    monkeypatch.setattr(sdpa.model.config.text_config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ValueError, match="load with sdpa or eager"):
        DescriptionLoss(sdpa, Features(sdpa).of)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_compiled_steps_are_the_plain_ones(config_file, tmp_path):
    for stage in ("stage1", "stage2"):
        logs = []
        for compiled in ("false", "true"):
            out = ["--out", str(tmp_path / compiled), "--set", f"{stage}.compile={compiled}"]
            dropout = ["--set", "network.dropout=0.0"]  # compiled code draws other masks
            assert main([stage, "--config", str(config_file), *out, *dropout]) == 0
            logs.append([line["loss"] for line in log_of(tmp_path / compiled / stage.replace("stage", "stage-"))])
        assert logs[0] == pytest.approx(logs[1], rel=1e-4)
