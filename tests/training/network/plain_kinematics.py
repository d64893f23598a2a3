"""The numbers of fixations and scanpaths stated again, with the statistics module and plain loops."""

import itertools
import math
import statistics


def plain_fixations(boxes: list[list[float]], durations: list[float]) -> list[list[float]]:
    """The 12 numbers of each fixation."""
    rows, count = [], len(boxes)
    for i, (box, duration) in enumerate(zip(boxes, durations, strict=True)):
        (x, y), (width, height) = _centre(box), _size(box)
        saccade = [0.0, 0.0, 0.0]
        if i:
            before = _centre(boxes[i - 1])
            length = _length(before, (x, y))
            saccade = [(length - 0.25) / 0.15, (x - before[0]) / length, (y - before[1]) / length]
        rows.append(
            [
                (x - 0.5) / 0.2,
                (y - 0.5) / 0.2,
                (_log(width) + 2.3) / 0.7,
                (_log(height) + 2.3) / 0.7,
                (_log(duration) + 1.4) / 0.6,
                *saccade,
                (math.log(i + 1) - 1.5) / 0.7,
                (math.log(count - i) - 1.5) / 0.7,
                float(i == 0),
                float(i == count - 1),
            ]
        )
    return rows


def plain_scanpath(boxes: list[list[float]], durations: list[float]) -> list[float]:
    """The 26 numbers of a scanpath."""
    logs, centres, sizes = [_log(d) for d in durations], [_centre(box) for box in boxes], [_size(box) for box in boxes]
    pairs = list(itertools.pairwise(centres))
    lengths = [_length(*pair) for pair in pairs]
    numbers = [
        (math.log(len(boxes)) - 1.5) / 0.7,
        (_log(sum(map(math.exp, logs))) - 0.5) / 0.7,
        (_log(sum(lengths)) - 0.5) / 0.7,
        (statistics.mean(logs) + 1.4) / 0.6,
        (_deviation(logs) - 0.4) / 0.2,
        *((log + 1.4) / 0.6 for log in (min(logs), max(logs), logs[0], logs[-1])),
    ]
    for axis in (0, 1):
        places = [centre[axis] for centre in centres]
        numbers += [(place - 0.5) / 0.2 for place in (statistics.mean(places), places[0], places[-1])]
        numbers.append((_deviation(places) - 0.15) / 0.1)
    numbers += [(statistics.mean(_log(size[axis]) for size in sizes) + 2.3) / 0.7 for axis in (0, 1)]
    steps = [lengths, *([abs(b[axis] - a[axis]) for a, b in pairs] for axis in (0, 1))]
    numbers += [((statistics.mean(own) if own else 0) - 0.25) / 0.15 for own in steps]
    numbers += [
        (_deviation(lengths) - 0.15) / 0.1,
        (max(lengths, default=0) - 0.25) / 0.15,
        ((lengths[0] if lengths else 0) - 0.25) / 0.15,
        float(len(boxes) > 1),
    ]
    return numbers


def _centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _size(box: list[float]) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _length(a: tuple[float, float], b: tuple[float, float]) -> float:
    return math.hypot(b[0] - a[0], b[1] - a[1], 1e-3)


def _log(value: float) -> float:
    return math.log(max(value, 1e-3))


def _deviation(values: list[float]) -> float:
    return math.hypot(statistics.pstdev(values) if values else 0, 1e-3)
