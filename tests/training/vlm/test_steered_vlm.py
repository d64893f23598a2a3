"""The frozen VLM as training drives it, against transformers' own forward pass."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support import reference
from tests.support.images import random_image
from tests.support.small_vlm import SmallVLM
from training.losses.description import language_loss
from training.vlm.steered_vlm import IGNORE_INDEX, PromptBatch, SteeredVLM

STYLE = "description"
TEXTS = ["A red bus, then a dog.", "Two.", "Somebody who walks along a wall with a red umbrella <|im_end|> and a dog"]
IMAGES = [random_image(90, 60, 1), random_image(140, 56, 2), random_image(60, 60, 3)]


@pytest.fixture(scope="module")
def steered(small_vlm: SmallVLM) -> SteeredVLM:
    return SteeredVLM(small_vlm.model, small_vlm.tokenizer, small_vlm.config, small_vlm.prompts)


@pytest.fixture(scope="module")
def soft_tokens(steered: SteeredVLM) -> torch.Tensor:
    return torch.randn(len(TEXTS), steered.config.hidden_size, generator=torch.Generator().manual_seed(0))


def batch_of(steered: SteeredVLM, rows: list[int]):
    grids = steered.grids([IMAGES[row] for row in rows])
    return steered.prompt_batch([steered.steered_prompt(STYLE)] * len(rows), [TEXTS[row] for row in rows], grids)


def loss_of(
    steered: SteeredVLM, features: Sequence[torch.Tensor], soft_tokens: torch.Tensor, batch: PromptBatch
) -> torch.Tensor:
    return language_loss(steered.model, steered.embed(features, soft_tokens, batch.input_ids), batch)


@torch.no_grad()
def test_the_description_loss_is_that_of_the_answer_alone(steered, soft_tokens, small_vlm):
    rows = list(range(len(TEXTS)))
    batch = batch_of(steered, rows)
    loss = loss_of(steered, steered.image_features(IMAGES), soft_tokens, batch)

    total, count = 0.0, 0
    for row in rows:
        pixel_values, grid = reference.image_inputs(IMAGES[row], small_vlm.config)
        tokens = int(grid.prod()) // small_vlm.config.vision.merge_size**2
        prompt = reference.prompt_ids(small_vlm.tokenizer, small_vlm.prompts, STYLE, tokens, with_persona=True)
        answer = [*steered.text_ids(TEXTS[row]), small_vlm.tokenizer.token_to_id("<|im_end|>")]
        for i, token in enumerate(answer):
            logits = reference.step_logits(
                small_vlm.model, small_vlm.config, [*prompt, *answer[:i]], pixel_values, grid, soft_tokens[row].numpy()
            )
            total += float(F.cross_entropy(torch.from_numpy(logits)[None], torch.tensor([token])))
            count += 1
    assert int((batch.labels != IGNORE_INDEX).sum()) == count
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


@torch.no_grad()
def test_padding_and_batch_mates_do_not_change_the_loss(steered, soft_tokens):
    features = steered.image_features(IMAGES)
    alone = [float(loss_of(steered, [features[i]], soft_tokens[[i]], batch_of(steered, [i]))) for i in range(3)]
    counts = [int((batch_of(steered, [i]).labels != IGNORE_INDEX).sum()) for i in range(3)]
    together = float(loss_of(steered, features, soft_tokens, batch_of(steered, [0, 1, 2])))
    assert together == pytest.approx(np.average(alone, weights=counts), rel=1e-4)


def test_the_loss_reaches_the_soft_tokens_and_nothing_of_the_model(steered, soft_tokens):
    wanted = soft_tokens.clone().requires_grad_(True)
    loss_of(steered, steered.image_features(IMAGES), wanted, batch_of(steered, [0, 1, 2])).backward()
    assert (wanted.grad.abs().sum(-1) > 0).all()
    assert all(parameter.grad is None for parameter in steered.model.parameters())


def test_a_special_token_in_a_description_is_only_letters(steered):
    batch = batch_of(steered, [2])
    answer = batch.labels[0][batch.labels[0] != IGNORE_INDEX].tolist()
    end = steered.config.tokens.end[0]
    assert answer.count(end) == 1
    assert answer[-1] == end


@pytest.mark.parametrize("row", [0, 1, 2, None])
def test_greedy_decoding_is_that_of_the_plain_loop_and_of_the_runtime(steered, soft_tokens, small_vlm, vlm, row):
    soft = None if row is None else soft_tokens[row]
    array = None if soft is None else soft.numpy()
    image = IMAGES[row or 0]
    found = steered.greedy(image, soft, STYLE, 12)
    expected = reference.greedy(
        small_vlm.model, small_vlm.config, small_vlm.tokenizer, small_vlm.prompts, STYLE, image, array, 12
    )
    assert found == expected
    from pydeper.vlm import DecodingOptions

    soft_rows = None if array is None else array[None]
    generation = vlm.generate(vlm.encode_image(image), STYLE, soft_rows, DecodingOptions(max_new_tokens=12))[0]
    assert list(generation.token_ids) == found
