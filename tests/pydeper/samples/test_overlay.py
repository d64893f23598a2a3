from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.images import open_image
from pydeper.samples.overlay import draw_trajectory
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Trajectory

GREY = (128, 128, 128)
FOUR = Trajectory.from_arrays(
    [[0.05, 0.05, 0.35, 0.35], [0.65, 0.05, 0.95, 0.35], [0.65, 0.65, 0.95, 0.95], [0.05, 0.65, 0.35, 0.95]],
    [0.1, 0.8, 0.1, 0.1],
)


def drawn_on_grey(trajectory: Trajectory, width: int = 800, height: int = 800) -> NDArray[np.int64]:
    picture = draw_trajectory(Image.new("RGB", (width, height), GREY), trajectory)
    return np.asarray(picture).astype(np.int64)


def changed(pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(pixels - GREY).max(axis=2) > 12)


def disc_color(pixels: NDArray[np.int64], x: float, y: float) -> NDArray[np.int64]:
    """The most frequent colour around a place: a disc's, its number being thinner than the disc."""
    height, width, _ = pixels.shape
    row, column, reach = round(y * height), round(x * width), 9
    patch = pixels[row - reach : row + reach, column - reach : column + reach].reshape(-1, 3)
    colors, counts = np.unique(patch, axis=0, return_counts=True)
    return np.asarray(colors[counts.argmax()])


def test_boxes_lines_and_discs_are_where_they_belong() -> None:
    marks = changed(drawn_on_grey(FOUR))
    for x1, y1, x2, y2 in FOUR.boxes * 799:
        middle_x, middle_y = int(x1 + x2) // 2, int(y1 + y2) // 2
        for x, y in ((x1 + 1, middle_y), (x2 - 1, middle_y), (middle_x, y1 + 1), (middle_x, y2 - 1)):
            assert marks[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].any()
        assert marks[middle_y - 8 : middle_y + 8, middle_x - 8 : middle_x + 8].all()
    assert marks[150:170, 400].any()  # first to second, above
    assert marks[400, 630:650].any()  # second to third, on the right
    assert marks[630:650, 400].any()  # third to fourth, below
    assert not marks[390:410, 100:200].any()  # the fourth does not lead back to the first
    assert not marks[300:500, 300:500].any()


def test_colours_run_with_the_order() -> None:
    pixels = drawn_on_grey(FOUR)
    first, second, third, last = (
        disc_color(pixels, *place) for place in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))
    )
    assert first[2] > first[0] + 100  # blue
    assert last[0] > last[2] + 100  # yellow
    assert last[1] > 180
    brightness = [color @ (0.3, 0.59, 0.11) for color in (first, second, third, last)]
    assert brightness == sorted(brightness)
    backwards = drawn_on_grey(Trajectory(FOUR.fixations[::-1]))
    np.testing.assert_array_equal(disc_color(backwards, 0.2, 0.2), last)


def test_longer_looks_are_drawn_larger() -> None:
    marks = changed(drawn_on_grey(FOUR))
    short, long = marks[100:220, 100:220].sum(), marks[100:220, 580:700].sum()
    assert long > 1.5 * short  # the discs, with a line each
    left_of_first, right_of_second = marks[60, 30:60].sum(), marks[60, 740:780].sum()
    assert right_of_second > left_of_first  # the boxes' lines


def test_the_image_shows_through_and_is_left_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    picture = np.asarray(draw_trajectory(image, Trajectory.from_arrays([[0.1, 0.1, 0.2, 0.2]], [1])))
    np.testing.assert_array_equal(np.asarray(image), array)
    np.testing.assert_array_equal(picture[300:], array[300:])
    assert (picture[:200, :250] != array[:200, :250]).any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((84, 84), (640, 640)),
        ((1, 1), (640, 640)),
        ((640, 640), (640, 640)),
        ((1000, 700), (1000, 700)),
        ((4000, 3000), (4000, 3000)),
        ((4000, 50), (4096, 51)),
        ((2, 2000), (4, 4096)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = draw_trajectory(Image.new("RGB", size, GREY), FOUR)
    assert (picture.size, picture.mode) == (expected, "RGB")
    share = changed(np.asarray(picture).astype(np.int64)).mean()
    assert share > 0.005


def test_marks_keep_their_share_of_the_picture() -> None:
    small, large = (changed(drawn_on_grey(FOUR, side, side)).mean() for side in (700, 2100))
    assert small == pytest.approx(large, rel=0.15)


def test_discs_at_one_place_stand_next_to_each_other() -> None:
    apart = drawn_on_grey(Trajectory.from_arrays(FOUR.boxes, [0.3] * 4))
    together = drawn_on_grey(Trajectory.from_arrays([[0.4, 0.4, 0.6, 0.6]] * 4, [0.3] * 4))
    first = disc_color(apart, 0.2, 0.2)
    disc, near_disc = (apart == first)[100:220, 100:220].all(axis=2), (together == first)[300:500, 300:500].all(axis=2)
    assert near_disc.sum() > 0.9 * disc.sum()  # the first disc is not under those that follow


@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(1e-9, 3600)), min_size=1, max_size=40),
    st.integers(1, 200),
    st.integers(1, 200),
)
@settings(max_examples=20)
def test_any_trajectory_can_be_drawn(looks: list[tuple[float, float, float]], width: int, height: int) -> None:
    boxes = [(x, y, x + (1 - x) / 2, y + (1 - y) / 2) for x, y, _ in looks]
    trajectory = Trajectory.from_arrays(boxes, [duration for *_, duration in looks], check_durations=False)
    assert changed(drawn_on_grey(trajectory, width, height)).any()


def test_very_many_fixations() -> None:
    corners = np.random.default_rng(0).uniform(0, 0.9, (500, 2))
    boxes = np.concatenate([corners, corners + 0.1], axis=1)
    assert changed(drawn_on_grey(Trajectory.from_arrays(boxes, np.full(500, 0.2)))).any()


# Sample.plot


def test_plot_returns_and_saves_the_same_picture(tmp_path: Path) -> None:
    sample = Sample(np.full((700, 800, 3), 90, np.uint8), trajectory=FOUR)
    picture = sample.plot(tmp_path / "look.PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "look.PNG"]
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "look.PNG")), np.asarray(picture))
    assert sample.plot(str(tmp_path / "look.jpg")).size == (800, 700)
    assert (tmp_path / "look.jpg").read_bytes().startswith(b"\xff\xd8")  # a JPEG file


def test_plot_draws_on_the_upright_image() -> None:
    sideways = Image.new("RGB", (900, 700), GREY)
    sideways.getexif()[0x0112] = 6
    assert Sample(sideways, trajectory=FOUR).plot().size == (700, 900)


def test_what_cannot_be_plotted(tmp_path: Path) -> None:
    gray = np.full((70, 80, 3), 90, np.uint8)
    with pytest.raises(InvalidSampleError, match=r"^ana\.jsonl:3: the sample has no trajectory"):
        Sample(gray, "a dog", source="ana.jsonl:3").plot()
    for path, message in [
        (tmp_path / "look", r"look' does not end like an image file; end it in \.png"),
        (tmp_path / "look.txt", "does not end like an image file"),
        (tmp_path / "none" / "look.png", "cannot be written.*in a folder that exists"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            Sample(gray, trajectory=FOUR).plot(path)
    assert not list(tmp_path.iterdir())
