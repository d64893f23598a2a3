"""MITR learns: its losses, what they leave out, and eight samples by heart."""

import attrs
import numpy as np
import pytest
import torch

from pydeper import Sample
from tests.support.training_run import log_of
from tests.training.baselines.mitr.small_mitr import CHANNELS, GRID, SMALL, VOCABULARY, small_network
from training.baselines.mitr.alignment import WHOLE_IMAGE
from training.baselines.mitr.examples import Examples
from training.baselines.mitr.losses import hide_boxes, mitr_losses
from training.baselines.mitr.network import MITROutput
from training.baselines.mitr.training import fit
from training.baselines.word_vocabulary import EOS, GO, PAD, SPECIALS
from training.loop.logs import EVALUATIONS


def random_examples(count: int, seed: int = 0) -> Examples:
    """Texts of different lengths; the last word of each has no box."""
    rng = np.random.default_rng(seed)
    samples = [Sample(np.full((2, 2, 3), number, np.uint8), "words") for number in range(count)]
    words = [rng.integers(len(SPECIALS), VOCABULARY, rng.integers(2, 8)).tolist() for _ in range(count)]
    boxes = []
    for own in words:
        corners = np.sort(rng.random((len(own), 2, 2)), axis=1).reshape(-1, 4)
        areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1, keepdims=True)
        boxes.append(np.concatenate([corners, areas], axis=1).astype(np.float32))
        boxes[-1][-1] = WHOLE_IMAGE
    tokens = {id(sample): torch.from_numpy(rng.random((GRID**2, CHANNELS), np.float32)) for sample in samples}
    return Examples(samples, words, boxes, lambda some: torch.stack([tokens[id(sample)] for sample in some]))


def test_a_batch_shifts_words_and_boxes_by_one_and_pads_them():
    examples = random_examples(3)
    batch = examples.batch([2, 0])
    longest = max(len(examples.words[2]), len(examples.words[0]))
    assert batch.words.shape == batch.target_words.shape == (2, longest + 1)
    for row, number in enumerate((2, 0)):
        words, boxes, count = examples.words[number], examples.boxes[number], len(examples.words[number])
        assert batch.words[row].tolist() == [GO, *words, *[PAD] * (longest - count)]
        assert batch.target_words[row].tolist() == [*words, EOS, *[PAD] * (longest - count)]
        assert not batch.boxes[row, 0].any()
        assert np.array_equal(batch.boxes[row, 1 : count + 1], boxes)
        assert np.array_equal(batch.target_boxes[row, :count], boxes)
        assert (batch.target_boxes[row, count:] == torch.tensor(WHOLE_IMAGE)).all()
    assert torch.equal(batch.image_tokens[0], examples.image_tokens_of(examples.samples[2:])[0])


def test_words_without_a_box_and_padding_have_no_part_in_the_losses():
    target_words = torch.tensor([[5, 6, EOS, PAD]])
    target_boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 0.25], WHOLE_IMAGE, WHOLE_IMAGE, WHOLE_IMAGE]])
    logits, boxes = torch.zeros(1, 4, VOCABULARY, requires_grad=True), torch.full((1, 4, 4), 0.5, requires_grad=True)
    losses = mitr_losses(MITROutput(logits, boxes), target_words, target_boxes)
    assert losses["caption"].value.item() == pytest.approx(np.log(VOCABULARY))
    assert losses["trace"].value.item() == pytest.approx(0.25)
    assert (losses["caption"].number, losses["trace"].number) == (3, 1)
    (losses["caption"].value + losses["trace"].value).backward()
    assert logits.grad.any(-1).tolist() == [[True, True, True, False]]
    assert boxes.grad.any(-1).tolist() == [[True, False, False, False]]


def test_without_any_box_the_trace_loss_is_zero():
    boxes = torch.full((1, 1, 4), 0.5, requires_grad=True)
    losses = mitr_losses(
        MITROutput(torch.zeros(1, 1, VOCABULARY), boxes), torch.tensor([[EOS]]), torch.tensor([[WHOLE_IMAGE]])
    )
    losses["trace"].value.backward()
    assert losses["trace"].value == 0
    assert not boxes.grad.any()


def test_earlier_boxes_are_hidden_by_chance_and_the_beginning_never():
    torch.manual_seed(0)
    boxes = torch.zeros(200, 20, 5)
    hidden = (hide_boxes(boxes, 0.5) == torch.tensor(WHOLE_IMAGE)).all(-1)
    assert not hidden[:, 0].any()
    assert hidden[:, 1:].float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(hide_boxes(boxes, 0.0), boxes)


def test_eight_samples_are_learned_by_heart(tmp_path):
    examples = random_examples(8)
    config = attrs.evolve(
        SMALL, steps=150, batch_size=8, learning_rate=0.01, hidden_size=32, dropout=0.0, input_dropout=0.0
    )
    network = small_network(config=config)
    fit("MITR", network, config, examples, random_examples(0), 0, tmp_path)
    last = log_of(tmp_path)[-1]
    assert last["caption"] < 0.05
    assert last["trace"] < 0.05


def test_the_best_step_by_validation_is_kept_and_a_finished_training_is_not_repeated(tmp_path):
    training, validation = random_examples(8), random_examples(4, seed=1)
    config = attrs.evolve(SMALL, steps=60, learning_rate=0.02)
    network = small_network()
    fit("MITR", network, config, training, validation, 0, tmp_path)
    evaluations = log_of(tmp_path, EVALUATIONS)
    best = max(evaluations, key=lambda line: line["score"])
    assert best["score"] == -best["loss"] > evaluations[-1]["score"]
    again = small_network(seed=5)
    fit("MITR", again, config, training, validation, 0, tmp_path)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
