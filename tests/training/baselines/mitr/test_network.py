"""MITR's network: what each position sees, and decoding step by step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.baselines.mitr.small_mitr import CHANNELS, GRID, VOCABULARY, small_network
from training.baselines.mitr.decoding import greedy
from training.baselines.mitr.network import grid_boxes, with_area
from training.baselines.word_vocabulary import EOS, GO, SPECIALS, UNK, Vocabulary

LENGTH = 6
LETTERS = Vocabulary(tuple("abcdefg"))


@pytest.fixture
def network():
    return small_network()


@pytest.fixture
def image_tokens():
    return torch.randn(3, GRID * GRID, CHANNELS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def inputs(network, image_tokens):
    random = torch.Generator().manual_seed(2)
    words = torch.randint(len(SPECIALS), VOCABULARY, (3, LENGTH), generator=random)
    boxes = with_area(torch.rand(3, LENGTH, 4, generator=random))
    with torch.no_grad():
        return network.image_encoder(image_tokens), words, boxes


@settings(max_examples=20)
@given(place=st.integers(0, LENGTH - 1), changed=st.sampled_from(["word", "box"]))
def test_a_word_or_box_changes_nothing_before_it_and_both_predictions_from_it_on(place, changed):
    network, random = small_network(), torch.Generator().manual_seed(3)
    memory = network.image_encoder(torch.randn(1, GRID * GRID, CHANNELS, generator=random))
    words, boxes = torch.full((1, LENGTH), UNK), torch.zeros(1, LENGTH, 5)
    other_words, other_boxes = words.clone(), boxes.clone()
    if changed == "word":
        other_words[0, place] = len(SPECIALS)
    else:
        other_boxes[0, place] = torch.tensor([0.1, 0.2, 0.5, 0.7, 0.2])
    one, other = network(memory, words, boxes), network(memory, other_words, other_boxes)
    for before, after in zip(one, other, strict=True):
        assert torch.equal(before[:, :place], after[:, :place])
        assert (before[:, place:] != after[:, place:]).any(dim=-1).all()


@torch.no_grad()
def test_step_by_step_is_what_a_whole_pass_gives(network, inputs):
    memory, words, boxes = inputs
    whole, cache = network(memory, words, boxes), {}
    for place in range(LENGTH):
        here = slice(place, place + 1)
        step = network(memory, words[:, here], boxes[:, here], start=place, cache=cache)
        for own, expected in zip(step, whole, strict=True):
            torch.testing.assert_close(own, expected[:, here], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_behind_a_text_changes_nothing(network, inputs):
    memory, words, boxes = inputs
    padded = torch.cat((words, torch.zeros(3, 4, dtype=torch.long)), 1), torch.cat((boxes, torch.ones(3, 4, 5)), 1)
    for own, longer in zip(network(memory, words, boxes), network(memory, *padded), strict=True):
        torch.testing.assert_close(own, longer[:, :LENGTH])


@torch.no_grad()
def test_a_description_depends_on_its_own_image_alone(network, image_tokens):
    together = greedy(network, image_tokens, LETTERS, 9)
    assert together == [greedy(network, one[None], LETTERS, 9)[0] for one in image_tokens]


@torch.no_grad()
def test_greedy_feeds_words_and_boxes_back_until_the_end(network, image_tokens):
    network.word_head.bias[EOS] -= 100
    (text,) = greedy(network, image_tokens[:1], LETTERS, 5)
    memory = network.image_encoder(image_tokens[:1])
    words, boxes = torch.tensor([[GO]]), torch.zeros(1, 1, 5)
    for _ in range(5):
        output = network(memory, words, boxes)
        logits = output.word_logits[:, -1].clone()
        logits[:, [*SPECIALS[:2], UNK]] = -torch.inf
        words = torch.cat((words, logits.argmax(-1, keepdim=True)), 1)
        boxes = torch.cat((boxes, with_area(output.boxes[:, -1:])), 1)
    assert text == LETTERS.decode(words[0, 1:].tolist())
    assert len(text.split()) == 5


@torch.no_grad()
def test_unknown_words_are_never_written(network, image_tokens):
    network.word_head.bias[EOS] -= 100
    free = greedy(network, image_tokens, LETTERS, 5)
    network.word_head.bias[[*SPECIALS[:2], UNK]] += 100
    assert greedy(network, image_tokens, LETTERS, 5) == free
    network.word_head.bias[EOS] += 1000
    assert greedy(network, image_tokens, LETTERS, 5) == ["", "", ""]


def test_cells_cover_the_image_row_by_row():
    torch.testing.assert_close(
        grid_boxes(2),
        torch.tensor(
            [
                [0.0, 0.0, 0.5, 0.5, 0.25],
                [0.5, 0.0, 1.0, 0.5, 0.25],
                [0.0, 0.5, 0.5, 1.0, 0.25],
                [0.5, 0.5, 1.0, 1.0, 0.25],
            ]
        ),
    )
    assert with_area(torch.tensor([0.5, 0.1, 0.2, 0.9]))[-1] == 0


def test_every_weight_takes_part(network, inputs):
    output = network(network.image_encoder(torch.randn(3, GRID * GRID, CHANNELS)), *inputs[1:])
    (output.word_logits.square().sum() + output.boxes.sum()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
