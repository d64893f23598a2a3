"""Where the speaker of each word looked: one box a word.

With the times of words, a word's box is that of the pointer's positions while it was said, as in MITR. Other data say
only where people looked one after the other: their words are spread evenly over the time of all fixations (ours).
"""

from collections.abc import Sequence

import numpy as np

from pydeper.readers.utterances import Utterance
from pydeper.samples.trajectory import Trajectory
from training.baselines.word_vocabulary import STOP, words_of

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0, 1.0)
"""The box, corners and area, of a word during which nobody looked anywhere; L_trace leaves such words out."""

_Box = tuple[float, float, float, float, float]


def boxes_of_words(
    words: Sequence[str], trajectory: Trajectory | None, utterances: Sequence[Utterance] = ()
) -> np.ndarray:
    """The box of each word.

    The end of a sentence is not spoken: it has the whole image for its box, as have all words where nothing is known.

    Args:
        words: A description's n words, see `words_of`.
        trajectory: How its writer looked.
        utterances: What was said when; they are used if their words are those of the description.

    Returns:
        (n, 5) float32: corners x1, y1, x2, y2 in [0, 1] and area.
    """
    spoken = [word for word in words if word != STOP]
    if utterances and spoken_words(utterances) == spoken:
        boxes = iter(_while_spoken(utterances))
    elif trajectory is not None:
        boxes = iter(_spread_evenly(len(spoken), trajectory))
    else:
        boxes = iter([WHOLE_IMAGE] * len(spoken))
    rows = [WHOLE_IMAGE if word == STOP else next(boxes) for word in words]
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def spoken_words(utterances: Sequence[Utterance]) -> list[str]:
    """The words of utterances, without the ends of sentences."""
    return [word for utterance in utterances for word in words_of(utterance.text) if word != STOP]


def _while_spoken(utterances: Sequence[Utterance]) -> list[_Box]:
    """The words of an utterance have its box in common."""
    return [
        WHOLE_IMAGE if utterance.box is None else _with_area(utterance.box)
        for utterance in utterances
        for _ in spoken_words([utterance])
    ]


def _spread_evenly(count: int, trajectory: Trajectory) -> list[_Box]:
    """Word j has the union of the fixations between j / n and (j + 1) / n of their summed time."""
    durations = trajectory.durations.astype(np.float64)
    ends = np.cumsum(durations) / durations.sum()
    starts = np.concatenate([[0.0], ends[:-1]])
    boxes = []
    for word in range(count):
        during = (starts < (word + 1) / count) & (ends > word / count)
        looked_at = trajectory.boxes[during].astype(np.float64)
        x1, y1 = looked_at[:, :2].min(axis=0)
        x2, y2 = looked_at[:, 2:].max(axis=0)
        boxes.append(_with_area((x1, y1, x2, y2)))
    return boxes


def _with_area(box: tuple[float, float, float, float]) -> _Box:
    x1, y1, x2, y2 = box
    return x1, y1, x2, y2, (x2 - x1) * (y2 - y1)
