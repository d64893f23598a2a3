import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymovements.events import idt as reference_idt

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.gaze import IDT, FixedWindows, box_around, find_fixations, trajectory_from_points

STEP = 20  # ms between two points of the generated gaze

# Whole numbers and a threshold between two of them: no dispersion equals the threshold, where pymovements asks `<=` to
# begin an event and `<` to go on with it.
walks = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)) | st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    min_size=1,
    max_size=80,
).map(lambda steps: np.cumsum(np.array(steps, float), axis=0))
gaze = st.builds(
    lambda walk, missing: np.where(np.isin(np.arange(len(walk)), missing)[:, None], np.nan, walk),
    walks,
    st.lists(st.integers(0, 79), max_size=4),
)


def reference_stops(points: np.ndarray, threshold: float, samples: int) -> list[tuple[int, int]]:
    """Stops of gap-free points by pymovements, as [start, end).

    Its events end with the point that *breaks* the threshold (which sets their offset, and which the next event then
    lacks); ours end before it, and it may begin the next. So it is asked for its first event only, and again from
    where ours ends. Its minimum duration is a number of points.
    """
    found, start = [], 0
    while len(points) - start >= 2:
        times = polars.Series(np.arange(start, len(points)) * STEP)
        events = reference_idt(
            points[start:], times, minimum_duration=samples * STEP, dispersion_threshold=threshold
        ).frame
        if not len(events):
            break
        first, last = int(events["onset"][0]) // STEP, int(events["offset"][0]) // STEP
        stretch = points[first : last + 1]
        broken = np.ptp(stretch, axis=0).sum() > threshold
        start = last if broken else last + 1
        found.append((first, start))
    return found


def runs(points: np.ndarray) -> list[tuple[int, int]]:
    present = [*np.isfinite(points).all(axis=1).tolist(), False]
    found, start = [], None
    for i, here in enumerate(present):
        if here and start is None:
            start = i
        if not here and start is not None:
            found.append((start, i))
            start = None
    return found


@given(gaze, st.integers(0, 40), st.integers(2, 6))
def test_idt_finds_what_pymovements_finds(points: np.ndarray, threshold: int, samples: int) -> None:
    size = 4000.0
    times = np.arange(len(points)) * STEP / 1000
    expected = [
        (first + start, first + end)
        for first, last in runs(points)
        for start, end in reference_stops(points[first:last], threshold + 0.5, samples)
    ]
    # Half a step less: a duration is a difference of two floats.
    method = IDT((threshold + 0.5) / size, (samples - 1.5) * STEP / 1000)
    fixations = find_fixations(0.5 + points / size, times, method, min_box=1e-6)
    assert [fixation.duration for fixation in fixations] == pytest.approx(
        [(end - start - 1) * STEP / 1000 for start, end in expected]
    )
    for fixation, (start, end) in zip(fixations, expected, strict=True):
        corners = [*points[start:end].min(axis=0), *points[start:end].max(axis=0)]
        assert fixation.box == pytest.approx(0.5 + np.array(corners) / size, abs=1e-6)


@given(gaze, st.floats(0.001, 0.5), st.floats(0.01, 0.5))
def test_idt_keeps_its_promises(points: np.ndarray, dispersion: float, min_duration: float) -> None:
    where = points / 200
    times = np.sort(np.random.default_rng(len(points)).uniform(0, len(points) * 0.02, len(points)))
    for run in runs(where):
        chosen, clock = where[slice(*run)], times[slice(*run)]
        stops = list(IDT(dispersion, min_duration).stops(chosen, clock))
        previous = 0
        for stop, duration in stops:
            assert previous <= stop.start
            previous = stop.stop
            assert np.ptp(chosen[stop], axis=0).sum() <= dispersion + 1e-12
            assert duration == clock[stop.stop - 1] - clock[stop.start] >= min_duration
            if stop.stop < len(chosen):
                assert np.ptp(chosen[stop.start : stop.stop + 1], axis=0).sum() > dispersion - 1e-12


def test_two_stops_and_the_way_between_them() -> None:
    points = [(0.2, 0.2)] * 10 + [(0.4, 0.4), (0.6, 0.6)] + [(0.8, 0.8)] * 20
    fixations = find_fixations(points, np.arange(32) * 0.02, IDT(0.05, 0.1), min_box=0.1)
    assert [fixation.box for fixation in fixations] == [
        pytest.approx((0.15, 0.15, 0.25, 0.25)),
        pytest.approx((0.75, 0.75, 0.85, 0.85)),
    ]
    assert [fixation.duration for fixation in fixations] == pytest.approx([0.18, 0.38])


def test_missing_points_and_long_pauses_end_a_fixation() -> None:
    here: list[Any] = [(0.5, 0.5)] * 20
    times = np.arange(20) * 0.05
    assert len(find_fixations(here, times)) == 1
    for missing in (None, (np.nan, 0.5), (np.nan, np.nan), (0.5, np.inf)):
        assert len(find_fixations([*here[:10], missing, *here[11:]], times)) == 2
    paused = np.where(np.arange(20) < 10, times, times + 1.0)
    assert len(find_fixations(here, paused)) == 1
    assert len(find_fixations(here, paused, max_gap=0.5)) == 2


def test_boxes_are_grown_about_their_centre_and_clipped() -> None:
    assert box_around((0.4, 0.5), (0.6, 0.5), 0.1) == pytest.approx((0.4, 0.45, 0.6, 0.55))
    assert box_around((0.4, 0.5), (0.6, 0.5), (0.4, 0.2)) == pytest.approx((0.3, 0.4, 0.7, 0.6))
    assert box_around((-0.01, 0.99), (0.01, 1.01), 0.1) == pytest.approx((0, 0.95, 0.05, 1))
    assert box_around((-0.2, 0.5), (-0.1, 0.5), 0.1) is None


def test_fixations_outside_the_image_are_left_out() -> None:
    points = [(0.5, 0.5)] * 10 + [(1.3, 0.5)] * 10 + [(1.01, 0.5)] * 10
    boxes = [fixation.box for fixation in find_fixations(points, np.arange(30) * 0.02, min_box=0.1)]
    assert boxes == [pytest.approx((0.45, 0.45, 0.55, 0.55)), pytest.approx((0.96, 0.45, 1.0, 0.55))]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.lists(st.floats(0, 0.9), min_size=40, max_size=40),
    st.floats(0.05, 2),
)
def test_windows_share_out_the_whole_time(x: list[float], steps: list[float], length: float) -> None:
    times = np.cumsum(steps[: len(x)])
    fixations = find_fixations([(value, 0.5) for value in x], times, FixedWindows(length), min_box=0.01)
    assert sum(fixation.duration for fixation in fixations) == pytest.approx(times[-1] - times[0])
    assert all(fixation.duration == pytest.approx(length) for fixation in fixations[:-1])


def test_a_resting_pointer_is_where_it_was() -> None:
    fixations = find_fixations([(0.1, 0.1), (0.9, 0.9), (0.9, 0.9)], [0.0, 1.0, 1.4], FixedWindows(0.5), min_box=0.1)
    assert [fixation.duration for fixation in fixations] == pytest.approx([0.5, 0.5, 0.4])
    assert [fixation.box[0] for fixation in fixations] == pytest.approx([0.05, 0.05, 0.85])


def test_a_trajectory_has_the_fixations_and_there_must_be_one() -> None:
    points, times = np.full((10, 2), 0.5), np.arange(10) * 0.02
    assert list(trajectory_from_points(points, times)) == find_fixations(points, times)
    with pytest.raises(InvalidSampleError, match="1 points hold no fixation; check that times are seconds"):
        trajectory_from_points([(0.5, 0.5)], [0.0])
    assert find_fixations([], []) == []


@pytest.mark.parametrize(
    ("points", "times", "message"),
    [
        ([(0.1, 0.2, 0.3)], [0], r"points of shape \(1, 3\) are not \(N, 2\)"),
        ([(0.1, 0.2), (0.3,)], [0, 1], "points is not a rectangular array of numbers"),
        ([("a", "b")], [0], "points is not a rectangular array of numbers"),
        ([(0.1, 0.2)], [0, 1], "1 points and 2 times"),
        ([(0.1, 0.2)], [[0]], r"times of shape \(1, 1\)"),
        ([(0.1, 0.2)] * 3, [0, np.nan, 1], r"times\[1\] is not a finite number"),
        ([(0.1, 0.2)] * 3, [0, 2, 1], r"times\[2\] goes backwards, from 2.0 to 1.0"),
        ([(0.1, 0.2)] * 2, [0, None], r"times\[1\] is not a finite number"),
    ],
)
def test_what_is_no_gaze_is_refused(points: Any, times: Any, message: str) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        find_fixations(points, times)


def test_milliseconds_are_refused_unless_they_are_meant() -> None:
    points, times = [(0.5, 0.5)] * 40, np.arange(40) * 20.0
    for method in (IDT(), FixedWindows(0.4)):
        with pytest.raises(InvalidSampleError, match=r"20 s pass .*times look like milliseconds"):
            find_fixations(points, times, method)
    assert len(find_fixations(points, times, FixedWindows(40), check_durations=False)) == 20
    closer = np.arange(40) * 8.0  # at 125 points a second, only the fixations are too long
    with pytest.raises(InvalidSampleError, match=r"lasts 312 s.*looks like milliseconds"):
        trajectory_from_points(points, closer)
    assert len(trajectory_from_points(points, closer, check_durations=False)) == 1


def test_settings_out_of_range_are_refused() -> None:
    for make in (IDT, FixedWindows):
        with pytest.raises(InvalidArgumentError, match=r"must be above 0, not -1"):
            make(-1)
    with pytest.raises(InvalidArgumentError, match="min_duration must be above 0"):
        IDT(0.1, 0)
    with pytest.raises(InvalidArgumentError, match="min_box must be in"):
        find_fixations([], [], min_box=0)
    with pytest.raises(InvalidArgumentError, match="max_gap must be above 0"):
        find_fixations([], [], max_gap=0)


def test_long_recordings_take_linear_time() -> None:
    # One fixation as long as the recording, then a dispersion that no stretch keeps to: the worst cases for windows.
    def steps(count: int, dispersion: float) -> int:
        points, times = np.tile([[0.4, 0.5], [0.6, 0.5]], (count // 2, 1)), np.arange(count) / 1000
        return lines_run(lambda: find_fixations(points, times, IDT(dispersion, 0.1)))

    for dispersion in (0.5, 0.1):
        assert steps(2_000, dispersion) < 5 * steps(500, dispersion)


def lines_run(function: Callable[[], object]) -> int:
    """How many lines of Python a call runs: unlike its seconds, the same on every machine, however busy."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines
