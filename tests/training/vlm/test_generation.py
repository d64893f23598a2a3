"""Batched greedy decoding over a KV cache, against one whole forward pass a token."""

import attrs
import numpy as np
import pytest
import torch

from pydeper.errors import InvalidArgumentError
from tests.support.images import random_image
from tests.support.small_vlm import PROMPTS
from training.vlm.generation import Prompt, greedy, image_ids, see
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config

STYLE = "description"
IMAGES = [random_image(90, 60, 1), random_image(140, 56, 2), random_image(60, 60, 3), random_image(60, 120, 4)]
NEW = 24


@pytest.fixture(scope="module")
def steered(torch_vlm, tokenizer) -> SteeredVLM:
    config = vlm_config(torch_vlm.config, tokenizer, vision_config(torch_vlm.config, None), base_model="random")
    return SteeredVLM(torch_vlm, tokenizer, config, PROMPTS)


@pytest.fixture(scope="module")
def soft_tokens(steered: SteeredVLM) -> torch.Tensor:
    return torch.randn(len(IMAGES), steered.config.hidden_size, generator=torch.Generator().manual_seed(0))


def prompt_of(steered: SteeredVLM, number: int, soft_token: torch.Tensor | None) -> Prompt:
    seen = see(steered, [IMAGES[number]])[0]
    rest = steered.template.without_persona(STYLE) if soft_token is None else steered.steered_prompt(STYLE)
    return Prompt([*image_ids(steered, seen), *rest], [seen], soft_token)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_tokens_are_those_of_the_plain_loop(steered, soft_tokens, batch_size):
    wanted = [(i, soft_tokens[i]) for i in range(len(IMAGES))] + [(i, None) for i in range(len(IMAGES))]
    # Random weights go on for ever; words that three of the rows come to say are made their ends.
    words = [steered.greedy(IMAGES[i], soft_tokens[i], STYLE, NEW)[4 * i + 2] for i in range(3)]
    tokens = attrs.evolve(steered.config.tokens, end=(*steered.config.tokens.end, *words))
    config = attrs.evolve(steered.config, tokens=tokens)
    steered = SteeredVLM(steered.model, steered.tokenizer, config, PROMPTS)
    expected = [steered.greedy(IMAGES[i], soft, STYLE, NEW) for i, soft in wanted]
    assert len({len(ids) for ids in expected}) > 2  # rows end at different steps
    prompts = [prompt_of(steered, i, soft) for i, soft in wanted]
    assert greedy(steered, prompts, NEW, batch_size=batch_size) == expected


def test_a_prompt_of_two_images_reads_both_in_their_order(steered):
    one, two = see(steered, IMAGES[:2])
    tail = steered.template.without_persona(STYLE)
    prompts = [
        Prompt([*image_ids(steered, a), *tail, *image_ids(steered, b), *tail], [a, b])
        for a, b in ((one, two), (two, one), (one, one))
    ]
    together = greedy(steered, prompts, NEW)
    assert together == [greedy(steered, [prompt], NEW)[0] for prompt in prompts]
    # transformers' own rotary positions for two images, and a whole forward pass a token
    ids = list(prompts[0].ids)
    for token in together[0]:
        inputs = torch.tensor([ids])
        grids = torch.from_numpy(np.stack([one.grid, two.grid]))
        is_image = (inputs == steered.config.tokens.image).long()
        positions, _ = steered.model.model.get_rope_index(inputs, is_image, image_grid_thw=grids)
        embeds = steered.embed([one.features, two.features], None, inputs)
        with torch.no_grad():
            hidden = steered.model.model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=False)
            logits = steered.model.lm_head(hidden.last_hidden_state[0, -1])
        logits[list(steered.config.tokens.suppressed)] = -torch.inf
        assert int(logits.argmax()) == token
        ids.append(token)


def test_what_cannot_be_decoded_is_named(steered, soft_tokens):
    whole = prompt_of(steered, 0, soft_tokens[0])
    with pytest.raises(InvalidArgumentError, match=r"prompts\[0\]: \d+ tokens and 999 new ones .* context holds 256"):
        greedy(steered, [whole], 999)
    with pytest.raises(InvalidArgumentError, match="1 slots for a soft token, and none is given"):
        greedy(steered, [Prompt(whole.ids, whole.images)], 2)
    with pytest.raises(InvalidArgumentError, match="0 slots for a soft token, and one is given"):
        greedy(steered, [Prompt([5, 6], [], soft_tokens[0])], 2)
    with pytest.raises(InvalidArgumentError, match="max_new_tokens is 0"):
        greedy(steered, [whole], 0)
    assert greedy(steered, [], 3) == []


def test_a_prompt_needs_no_image(steered):
    ids = steered.text_ids("a red circle and")
    assert len(greedy(steered, [Prompt(ids, [])], 3)[0]) <= 3
