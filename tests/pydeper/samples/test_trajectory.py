import copy
import math
import pickle
from typing import Any

import attrs
import numpy as np
import pytest

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.trajectory import Fixation, Trajectory

BOX = (0.1, 0.2, 0.4, 0.6)
TRAJECTORY = Trajectory([Fixation(BOX, 0.3), Fixation((0, 0, 1, 1), 1)])


def test_a_fixation_takes_any_four_numbers() -> None:
    for box in (
        (0, 0.25, 1, 0.5),
        [0, 0.25, 1, 0.5],
        np.array([0, 0.25, 1, 0.5]),
        np.array([0, 0.25, 1, 0.5], np.float32),
    ):
        fixation = Fixation(box, np.float32(0.5))  # type: ignore[arg-type]
        assert fixation == Fixation((0.0, 0.25, 1.0, 0.5), 0.5)
        assert all(type(number) is float for number in (*fixation.box, fixation.duration))
    assert hash(Fixation(BOX, 1)) == hash(Fixation(list(BOX), 1.0))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-0.1, 0, 1, 1), r"box \(-0\.1, 0\.0, 1\.0, 1\.0\) leaves \[0, 1\].*clip"),
        ((0, 0, 1.01, 1), r"leaves \[0, 1\]"),
        ((10, 20, 200, 300), "divide pixels by its width and height"),
        ((0.5, 0, 0.4, 1), "x1 must be below x2"),
        ((0.5, 0, 0.5, 1), "no area"),
        ((0, 0.9, 1, 0.1), "y1 below y2"),
        ((0, 0, math.nan, 1), "nan"),
        ((0, 0, 1, math.inf), "inf"),
        ((0, 0, 1, 10**400), "inf"),
        ((0, 0, 1), "4 numbers, not 3"),
        ((0, 0, 1, 1, 1), "4 numbers, not 5"),
        ((), "not 0"),
        ((0, 0, True, 1), r"box\[2\] must be a number, not bool True"),
        ((0, 0, "1", 1), r"box\[2\] must be a number, not str '1'"),
        ((0, None, 1, 1), r"box\[1\] must be a number, not NoneType"),
        ("0011", "not str '0011'"),
        (0.5, "not float 0.5"),
        (None, "not NoneType"),
        ({"x1": 0, "y1": 0, "x2": 1, "y2": 1}, "not dict"),
        (np.zeros((4, 2)), r"box\[0\] must be a number, not list"),
        (np.array(3.0), "not float"),
    ],
)
def test_bad_boxes(box: Any, message: str) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        Fixation(box, 1)


@pytest.mark.parametrize("duration", [0, -0.1, math.nan, math.inf, -math.inf, 3600.1, 10**400, True, "0.3", None, [1]])
def test_bad_durations(duration: Any) -> None:
    with pytest.raises(InvalidSampleError, match=r"duration.*seconds"):
        Fixation(BOX, duration)


def test_a_trajectory_as_arrays() -> None:
    assert len(TRAJECTORY) == 2
    assert list(TRAJECTORY) == list(TRAJECTORY.fixations)
    assert TRAJECTORY.boxes.dtype == TRAJECTORY.durations.dtype == np.float32
    np.testing.assert_array_equal(TRAJECTORY.boxes, np.array([BOX, (0, 0, 1, 1)], np.float32))
    np.testing.assert_array_equal(TRAJECTORY.durations, np.array([0.3, 1], np.float32))
    assert Trajectory.from_arrays([BOX, (0, 0, 1, 1)], [0.3, 1]) == TRAJECTORY
    assert Trajectory.from_arrays(np.array([[0, 0, 1, 1]], np.int8), np.array([2], np.uint8)) == Trajectory(
        [Fixation((0, 0, 1, 1), 2.0)]
    )


@pytest.mark.parametrize(
    ("boxes", "durations", "message"),
    [
        ([BOX], [0.1, 0.2], r"\(1, 4\) and durations of shape \(2,\) do not fit; give \(M, 4\) and \(M,\)"),
        ([BOX[:3]], [0.1], r"shape \(1, 3\)"),
        (BOX, 0.1, r"shape \(4,\) and durations of shape \(\)"),
        ([BOX, BOX[:2]], [0.1, 0.1], "not a rectangular array"),
        ([["0", "0", "1", "1"]], [0.1], "boxes must hold numbers"),
        ([BOX], [True], "durations must hold numbers, not bool"),
        ([BOX], [1j], "not complex128"),
        ([BOX], [None], "not object"),
        ([BOX, (0, 0, 2, 1)], [0.1, 0.1], r"fixation 1: box .* leaves \[0, 1\]"),
        ([BOX, BOX], [0.1, math.nan], "fixation 1: duration nan"),
        (np.zeros((0, 4)), [], "at least one fixation"),
    ],
)
def test_bad_arrays(boxes: Any, durations: Any, message: str) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        Trajectory.from_arrays(boxes, durations)


def test_bad_trajectories() -> None:
    with pytest.raises(InvalidSampleError, match=r"at least one fixation.*leave it out"):
        Trajectory([])
    with pytest.raises(InvalidSampleError, match=r"fixations\[1\] is not a Fixation but tuple"):
        Trajectory([Fixation(BOX, 1), (BOX, 1)])  # type: ignore[list-item]
    with pytest.raises(InvalidSampleError, match="not int"):
        Trajectory(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("durations", "message"),
    [
        ([250, 410], "the median fixation lasts 330 s, read as s, .* looks like milliseconds"),
        ([0.2, 250, 410], "lasts 250 s"),
        ([11, 12], "lasts 11.5 s.*looks like milliseconds"),
        ([0.009], "lasts 0.009 s.*no fixation in any unit"),
        ([2.5e-4, 3e-4], "lasts 0.000275 s"),
    ],
)
def test_durations_in_another_unit_are_refused_unless_they_are_meant(durations: list[float], message: str) -> None:
    looks = [Fixation(BOX, duration) for duration in durations]
    with pytest.raises(InvalidSampleError, match=rf"{message}.*check_durations=False"):
        Trajectory(looks)
    with pytest.raises(InvalidSampleError, match=message):
        Trajectory.from_arrays([BOX] * len(durations), durations)
    meant = Trajectory(looks, check_durations=False)
    assert meant == Trajectory.from_arrays([BOX] * len(durations), durations, check_durations=False)
    assert pickle.loads(pickle.dumps(meant)) == copy.deepcopy(meant) == attrs.evolve(meant) == meant


def test_single_fixations_may_be_long_or_short() -> None:
    assert len(Trajectory.from_arrays([BOX] * 3, [0.2, 0.3, 600])) == 3
    assert len(Trajectory.from_arrays([BOX] * 3, [0.001, 0.01, 10])) == 3
    with pytest.raises(InvalidSampleError, match=r"250000\.0 is not within .* looks like microseconds"):
        Fixation(BOX, 250_000)


def test_a_fixation_at_a_point() -> None:
    assert Fixation.at(0.5, 0.25, 0.3, size=0.1).box == pytest.approx((0.45, 0.2, 0.55, 0.3))
    assert Fixation.at(0.5, 0.5, 0.3, (0.2, 0.4)) == Fixation((0.4, 0.3, 0.6, 0.7), 0.3)
    assert Fixation.at(0.5, 0.5, 0.3).box == pytest.approx((0.465, 0.465, 0.535, 0.535))
    assert Fixation.at(0, 1, 0.3, size=0.1).box == pytest.approx((0, 0.95, 0.05, 1))  # clipped at the edge
    for x, y in ((843, 448), (-0.1, 0.5), (math.nan, 0.5), ("0.5", 0.5)):
        with pytest.raises(InvalidSampleError, match="fractions of the upright image"):
            Fixation.at(x, y, 0.3)  # type: ignore[arg-type]
    for size in (0, 1.1, 40, (0.1, 0), (0.1,), "wide", None):
        with pytest.raises(InvalidArgumentError, match="size must be"):
            Fixation.at(0.5, 0.5, 0.3, size)  # type: ignore[arg-type]


def test_boxes_are_clipped_where_that_is_said() -> None:
    assert Fixation.clipped((-0.1, 0.2, 0.3, 1.4), 0.3) == Fixation((0, 0.2, 0.3, 1), 0.3)
    boxes = [BOX, (0.9, 0.9, 1.2, 1.2)]
    assert Trajectory.from_arrays(boxes, [0.3, 0.3], clip=True).fixations[1].box == (0.9, 0.9, 1, 1)
    with pytest.raises(InvalidSampleError, match=r"fixation 1: .*leaves \[0, 1\].*Fixation\.clipped"):
        Trajectory.from_arrays(boxes, [0.3, 0.3])
    with pytest.raises(InvalidSampleError, match="outside the image altogether"):
        Fixation.clipped((1.1, 0, 1.2, 1), 0.3)
    with pytest.raises(InvalidSampleError, match="no area"):
        Fixation.clipped((0.5, 0, 0.4, 2), 0.3)
