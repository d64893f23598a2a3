"""The classical answers, by hand and on people of habit."""

import numpy as np
import pytest

from pydeper import Fixation, Sample, Trajectory
from pydeper.errors import InvalidSampleError
from training.people.classical import gaze_log_probabilities, gaze_statistics, text_log_probabilities, text_vectors


def trajectory(*durations: float, left: float = 0.1) -> Trajectory:
    return Trajectory(
        tuple(Fixation((left + 0.1 * i, 0.2, left + 0.1 * i + 0.1, 0.4), t) for i, t in enumerate(durations))
    )


def test_gaze_statistics_by_hand():
    numbers = gaze_statistics(trajectory(0.1, 0.3, 0.2))
    expected = [
        3,
        0.6,
        0.2,
        np.std([0.1, 0.3, 0.2]),
        0.2,
        0.1,
        0.3,
        0.1,
        0.2,
        0.25,
        0.3,
        0.1 * np.sqrt(2 / 3),
        0,
        0.1,
        0.1,
    ]
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-7)


def test_one_fixation_has_no_steps():
    numbers = gaze_statistics(trajectory(0.4))
    assert numbers.shape == (15,)
    assert numbers[-2:].tolist() == [0, 0]


def people_of_habit() -> list[Sample]:
    """Three people with their own words and tempo, on images that are never opened."""
    image = np.zeros((2, 2, 3), np.uint8)
    habits = {"ana": ("a photo of", 0.1), "ben": ("Here we see", 0.5), "cem": ("LOOK:", 1.5)}
    things = ["dogs", "two cats", "a tree", "my car", "rain"]
    return [
        Sample(
            image,
            description=f"{opening} {thing}",
            trajectory=trajectory(tempo, tempo * 1.1, tempo * (1 + 0.05 * i)),
            subject=name,
        )
        for name, (opening, tempo) in habits.items()
        for i, thing in enumerate(things)
    ]


@pytest.mark.parametrize("classify", [lambda a, b: text_log_probabilities(a, b, 10.0), gaze_log_probabilities])
def test_classical_answers_know_people_of_habit(classify):
    pytest.importorskip("sklearn")
    samples = people_of_habit()
    scores = classify([s for i, s in enumerate(samples) if i % 5], samples[::5])
    assert scores.shape == (3, 3)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]  # people in sorted order
    assert (scores <= 0).all()


def test_texts_need_not_be_made_of_words_with_spaces():
    pytest.importorskip("sklearn")
    image = np.zeros((2, 2, 3), np.uint8)
    habits = {"ana": ["一 只 猫", "一 只 狗", "一 棵 树"], "ben": ["我 看 到 猫", "我 看 到 狗", "我 看 到 树"]}
    samples = [Sample(image, description=text, subject=name) for name, texts in habits.items() for text in texts]
    scores = text_log_probabilities(samples, samples[::3], 10.0)
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert text_vectors(samples, samples).shape[0] == 6


def test_classical_answers_need_what_they_compare():
    pytest.importorskip("sklearn")
    image = np.zeros((2, 2, 3), np.uint8)
    silent = Sample(image, trajectory=trajectory(0.1), subject="ana", source="file:3")
    blind = Sample(image, description="x", subject="ana", source="file:4")
    with pytest.raises(InvalidSampleError, match="file:3: description: missing"):
        text_log_probabilities([silent], [silent], 1.0)
    with pytest.raises(InvalidSampleError, match="file:4: trajectory: missing"):
        gaze_log_probabilities([blind], [blind])
