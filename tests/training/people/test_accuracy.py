"""Top-1 accuracy with ties, and the table that differences are read from."""

import numpy as np
import pytest

from tests.training.people.noisy_people import PEOPLE
from training.people.accuracy import top1_accuracy


def test_ties_are_shared():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert top1_accuracy(scores, np.array([0, 1, 2, 1])).tolist() == [0.5, 0.5, 1.0, 0.0]


def test_scores_that_say_nothing_are_chance():
    labels = np.repeat(np.arange(PEOPLE), 4)
    assert top1_accuracy(np.zeros((len(labels), PEOPLE)), labels).mean() == pytest.approx(1 / PEOPLE)
