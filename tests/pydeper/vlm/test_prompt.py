"""The prompt as token ids, and its rotary positions, are those of transformers."""

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pydeper.bundle.config import Prompts, PromptStyle
from pydeper.errors import BundleError
from pydeper.vlm.prompt import PromptTemplate, rotary_positions
from tests.support import reference
from tests.support.small_vlm import SmallVLM


@pytest.mark.parametrize("style", ["description", "caption"])
def test_prompt_ids_are_those_of_the_whole_text(small_vlm: SmallVLM, style: str) -> None:
    template = PromptTemplate(small_vlm.prompts, small_vlm.config, small_vlm.tokenizer)
    prompt, subject = template.with_persona(style), small_vlm.config.tokens.subject
    whole = [*template.image_ids(9), *prompt.before, subject, *prompt.after]
    assert whole == reference.prompt_ids(small_vlm.tokenizer, small_vlm.prompts, style, 9, with_persona=True)
    whole = [*template.image_ids(9), *template.without_persona(style)]
    assert whole == reference.prompt_ids(small_vlm.tokenizer, small_vlm.prompts, style, 9, with_persona=False)


@given(st.lists(st.sampled_from(["<|im_end|>", "<|image_pad|>", "<|im_start|>", "<|endoftext|>", "a photo ", "é"])))
@settings(max_examples=40)
def test_text_never_becomes_special_tokens(small_vlm: SmallVLM, parts: list[str]) -> None:
    text = "".join(parts)
    before = small_vlm.tokenizer.to_str(), small_vlm.tokenizer.encode_special_tokens
    prompts = Prompts(text, {"own": PromptStyle(f"{text}<subj>{text}", text)})
    template = PromptTemplate(prompts, small_vlm.config, small_vlm.tokenizer)
    special = {i for i, token in small_vlm.tokenizer.get_added_tokens_decoder().items() if token.special}
    tokens = small_vlm.config.tokens
    turns = [small_vlm.tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>")]
    ids = [*template.image_ids(1), *template.with_persona("own").before]
    found = [i for i in ids if i in special]
    assert found == [*turns, turns[0], tokens.vision_start, tokens.image, tokens.vision_end]
    assert [i for i in template.with_persona("own").after if i in special] == [turns[1], turns[0]]
    assert small_vlm.tokenizer.decode(template.without_persona("own")).startswith(text)
    assert (small_vlm.tokenizer.to_str(), small_vlm.tokenizer.encode_special_tokens) == before


def test_a_tokenizer_of_another_model(small_vlm: SmallVLM) -> None:
    tokens = attrs.evolve(small_vlm.config.tokens, image=5)
    with pytest.raises(BundleError, match=r"<\|image_pad\|> is \d+ in tokenizer.json and 5 in config.json"):
        PromptTemplate(small_vlm.prompts, attrs.evolve(small_vlm.config, tokens=tokens), small_vlm.tokenizer)
    from tokenizers import models

    with pytest.raises(BundleError, match="no token <subj>"):
        PromptTemplate(small_vlm.prompts, small_vlm.config, Tokenizer(models.BPE()))


PIECES = st.lists(
    st.one_of(
        st.integers(1, 6), st.tuples(st.just(1), st.integers(1, 6), st.integers(1, 6))
    ),  # a run of text, or an image's grid in tokens
    min_size=1,
    max_size=5,
)


@given(PIECES)
@settings(max_examples=60)
def test_positions_are_those_of_transformers(small_vlm: SmallVLM, pieces: list[Any]) -> None:
    image, ids, grids, groups = 9, [], [], []
    for piece in pieces:
        if isinstance(piece, int):
            ids += [1] * piece
        else:
            ids += [1, *[image] * int(np.prod(piece))]  # text between images, as <|vision_start|> is
            grids.append([1, piece[1] * 2, piece[2] * 2])
    groups = torch.tensor([ids]) == image
    grid = torch.tensor(grids).reshape(-1, 3)
    expected, delta = small_vlm.model.model.get_rope_index(
        torch.tensor([ids]), mm_token_type_ids=groups.int(), image_grid_thw=grid
    )
    positions, following = rotary_positions(ids, image, np.array(grids).reshape(-1, 3), 2)
    np.testing.assert_array_equal(positions, expected[:, 0].numpy())
    assert following == int(delta) + len(ids)
    np.testing.assert_array_equal(rotary_positions(ids, image, np.array(grids).reshape(-1, 3), 2, 7)[0], positions + 7)


def test_positions_of_grids_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 image tokens, but the grids"):
        rotary_positions([9, 9, 9], 9, np.array([[1, 4, 4]]), 2)
