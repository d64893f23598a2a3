"""Words and boxes: by the times of words, or spread evenly over the fixations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import Fixation, Trajectory
from pydeper.readers.utterances import Utterance
from training.baselines.mitr.alignment import WHOLE_IMAGE, boxes_of_words
from training.baselines.word_vocabulary import STOP, words_of

LEFT, MIDDLE, RIGHT = (0.0, 0.0, 0.25, 0.5), (0.25, 0.25, 0.75, 0.75), (0.75, 0.5, 1.0, 1.0)
CAPTION = "In this image, there's a dog. It runs."
SAID = [
    Utterance("In this", 0.0, 0.5, LEFT),
    Utterance("image,", 0.5, 1.0, MIDDLE),
    Utterance("there's a dog.", 1.0, 2.0, RIGHT),
    Utterance("It", 2.0, 2.2, (0.5, 0.5, 0.5, 0.5)),
    Utterance("runs", 2.2, 2.9),
]


def box(corners: tuple[float, ...]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1, y1, x2, y2, (x2 - x1) * (y2 - y1)]


def test_a_word_has_the_box_of_the_pointer_while_it_was_said():
    words = words_of(CAPTION)
    assert words == ["in", "this", "image", "there's", "a", "dog", ".", "it", "runs", "."]
    boxes = boxes_of_words(words, None, SAID)
    whole = list(WHOLE_IMAGE)
    assert boxes.tolist() == [
        box(LEFT),
        box(LEFT),
        box(MIDDLE),
        *[box(RIGHT)] * 3,
        whole,
        [0.5, 0.5, 0.5, 0.5, 0.0],
        whole,
        whole,
    ]


def test_times_of_other_words_are_not_used():
    words, trajectory = words_of(CAPTION), Trajectory([Fixation(MIDDLE, 1.0)])
    for other in (SAID[:-1], [*SAID, Utterance("fast", 3.0, 3.1, LEFT)], SAID[::-1], []):
        assert np.array_equal(boxes_of_words(words, trajectory, other), boxes_of_words(words, trajectory))


def test_words_are_spread_evenly_over_the_time_of_all_fixations():
    trajectory = Trajectory([Fixation(LEFT, 0.5), Fixation(MIDDLE, 0.75), Fixation(RIGHT, 0.25)])
    one, two, three = boxes_of_words(["a", "b", STOP, "c"], trajectory)[[0, 1, 3]].tolist()
    assert (one, two, three) == (box(LEFT), box(MIDDLE), box((0.25, 0.25, 1.0, 1.0)))
    assert boxes_of_words(["a"], trajectory).tolist() == [list(WHOLE_IMAGE)]


def test_without_gaze_every_word_has_the_whole_image():
    assert boxes_of_words(["a", STOP], None).tolist() == [list(WHOLE_IMAGE)] * 2
    assert boxes_of_words([], None).shape == (0, 5)


SIDES = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2, unique=True).map(sorted)
FIXATIONS = st.builds(
    lambda x, y, duration: Fixation((x[0], y[0], x[1], y[1]), duration), SIDES, SIDES, st.floats(0.02, 5.0)
)


@given(
    fixations=st.lists(FIXATIONS, min_size=1, max_size=40),
    words=st.lists(st.sampled_from(["a", "b", STOP]), max_size=60),
)
def test_boxes_lie_in_the_image_and_follow_the_fixations(fixations, words):
    trajectory = Trajectory(fixations)
    boxes = boxes_of_words(words, trajectory)
    assert boxes.shape == (len(words), 5)
    assert boxes.dtype == np.float32
    assert ((boxes >= 0) & (boxes <= 1)).all()
    sides = boxes[:, 2:4] - boxes[:, :2]
    assert (sides >= 0).all()
    assert boxes[:, 4] == pytest.approx(sides.prod(axis=1), abs=1e-6)
    if spoken := [number for number, word in enumerate(words) if word != STOP]:
        for number, fixation in ((spoken[0], 0), (spoken[-1], -1)):
            inside = trajectory.boxes[fixation]
            assert (boxes[number, :2] <= inside[:2]).all()
            assert (boxes[number, 2:4] >= inside[2:]).all()
