"""Rows as trackers write them: several of one fixation, both eyes', images that come again, names that differ."""

import unicodedata
from pathlib import Path

import attrs
import pytest
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers import REPORT_FORMATS, Placement, ReportFormat, read_fixation_report
from tests.pydeper.readers.support import HEADER, PLAIN, durations, make_images, write

NUMBERED = attrs.evolve(PLAIN, fixation="id")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", "a.png", "b.png")


# Several rows of one fixation


@pytest.mark.parametrize("values", [[16.5, 33, 250], [250, 250, 250], [0, 100, 250], ["", "", 250], [250, "", ""]])
def test_a_fixation_lasts_as_long_as_its_longest_row_says(values: list[object], tmp_path: Path, images: Path) -> None:
    rows = [f"ana,a.png,0,{value},{x},0.5,1" for value, x in zip(values, (0.4, 0.5, 0.6), strict=True)]
    report = write(tmp_path / "r.csv", [f"{HEADER},id", *rows, "ana,a.png,400,100,0.5,0.5,2"])
    stream = read_fixation_report(report, images, NUMBERED)
    (sample,) = stream
    assert durations([sample]) == [[0.25, 0.1]]
    assert sample.trajectory is not None
    assert sample.trajectory.fixations[0].box == pytest.approx((0.465, 0.465, 0.535, 0.535))
    counted = "fixations whose rows give different durations: the longest was taken" in stream.report.changed
    assert counted == (len({value for value in values if value != ""}) > 1)


BOTH_EYES = {
    "interleaved": ["L,0,200,0.5,0.5", "R,2,198,0.51,0.5", "L,300,200,0.2,0.5", "R,301,202,0.2,0.5"],
    "at the same time": ["L,0,200,0.5,0.5", "R,0,200,0.5,0.5"],
    "one after the other": ["L,0,200,0.5,0.5", "L,300,200,0.2,0.5", "R,0,200,0.5,0.5", "R,300,200,0.2,0.5"],
}


@pytest.mark.parametrize("rows", BOTH_EYES.values(), ids=BOTH_EYES)
def test_rows_of_both_eyes_are_refused_and_one_eye_can_be_kept(rows: list[str], tmp_path: Path, images: Path) -> None:
    report = write(tmp_path / "r.csv", ["who,what,EYE,start,ms,x,y", *(f"ana,a.png,{row}" for row in rows)])
    for form in (PLAIN, attrs.evolve(PLAIN, start=None)):
        with pytest.raises(InvalidSampleError, match=r"say keep={'EYE': \('L',\)}"):
            list(read_fixation_report(report, images, form))
    kept = read_fixation_report(report, images, attrs.evolve(PLAIN, keep={"EYE": ("L",)}))
    assert durations(list(kept)) == [[0.2] * (len(rows) // 2)]
    assert kept.report.passed_over["rows whose 'EYE' is not L"].count == len(rows) // 2


def test_fixations_that_overlap_are_refused(tmp_path: Path, images: Path) -> None:
    growing = [f"ana,a.png,0,{16 * i},0.5,0.5" for i in range(1, 5)]
    with pytest.raises(InvalidSampleError, match=r"line 3: the fixation begins while the one before it lasts"):
        list(read_fixation_report(write(tmp_path / "r.csv", [HEADER, *growing]), images, PLAIN))
    touching = [HEADER, "ana,a.png,0,205,0.5,0.5", "ana,a.png,200,200,0.2,0.5"]
    assert len(list(read_fixation_report(write(tmp_path / "r.csv", touching), images, PLAIN))) == 1


@pytest.mark.parametrize(
    ("unit", "starts"), [(None, "1.0 1.4 1.9"), ("s", "1.0 1.4 1.9"), ("us", "1000000 1400000 2e6")]
)
def test_starts_may_be_in_another_unit(unit: str | None, starts: str, tmp_path: Path, images: Path) -> None:
    rows = [f"ana,a.png,{start},300,0.5,0.5" for start in starts.split()]
    form = attrs.evolve(PLAIN, start_unit=unit)
    assert durations(list(read_fixation_report(write(tmp_path / "r.csv", [HEADER, *rows]), images, form))) == [
        [0.3] * 3
    ]


def test_numbers_that_come_back_are_refused(tmp_path: Path, images: Path) -> None:
    rows = [f"ana,a.png,,200,0.5,0.5,{number}" for number in (1, 2, 1)]
    with pytest.raises(InvalidSampleError, match="line 4: fixation '1' comes back"):
        list(read_fixation_report(write(tmp_path / "r.csv", [f"{HEADER},id", *rows]), images, NUMBERED))


# Images that change, and come again


def test_an_image_that_comes_again_is_a_viewing_of_its_own(tmp_path: Path, images: Path) -> None:
    rows = ["ana,a.png,0,200,0.5,0.5", "ana,b.png,300,200,0.5,0.5", "ana,a.png,600,250,0.2,0.5"]
    stream = read_fixation_report(write(tmp_path / "r.csv", [HEADER, *rows]), images, PLAIN)
    assert durations(list(stream)) == [[0.2], [0.2], [0.25]]
    assert stream.report.changed["viewings of an image that the recording had shown before"].count == 1
    blank = [rows[0], "ana,,300,200,0.5,0.5", rows[2]]
    assert len(list(read_fixation_report(write(tmp_path / "r.csv", [HEADER, *blank]), images, PLAIN))) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        # Interleaved people: nobody has looked at anything in between.
        (
            ["ana,a.png,0", "ben,a.png,10", "ana,a.png,300"],
            "do not stand together; sort the report by person and time, or",
        ),
        # Starts count from each picture's onset, or the rows are in another order than time.
        (
            ["ana,a.png,400", "ana,b.png,0", "ana,a.png,10"],
            "start goes backwards.*name the column that tells them apart",
        ),
    ],
)
def test_scattered_rows_are_refused(rows: list[str], message: str, tmp_path: Path, images: Path) -> None:
    lines = [HEADER, *(f"{row},200,0.5,0.5" for row in rows)]
    with pytest.raises(InvalidSampleError, match=message):
        list(read_fixation_report(write(tmp_path / "r.csv", lines), images, PLAIN))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([300, 300, 300], [[0.2], [0.1]]), ([100, 200, 300], [[0.2], [0.1]])],
    ids=["repeated", "growing"],
)
def test_a_fixation_that_spans_a_change_of_image_is_divided(
    values: list[int], expected: list[list[float]], tmp_path: Path, images: Path
) -> None:
    rows = [f"ana,{name},0,{value},0.5,0.5,7" for name, value in zip(("a.png", "a.png", "b.png"), values, strict=True)]
    stream = read_fixation_report(write(tmp_path / "r.csv", [f"{HEADER},id", *rows]), images, NUMBERED)
    assert durations(list(stream)) == expected
    assert stream.report.changed["fixations that span a change of image: each has its part of the time"].count == 2


# Names


def test_tobii_names_an_image_in_two_columns_and_has_rows_of_its_calibration(tmp_path: Path, images: Path) -> None:
    head = "Participant name\tRecording name\tPresented Stimulus name\tPresented Media name\tEye movement type\t"
    head += (
        "Gaze event duration [ms]\tEye movement type index\tFixation point X [MCS norm]\tFixation point Y [MCS norm]"
    )
    shown = [("Eyetracker Calibration", ""), ("a", "a.png"), ("b", "b"), ("Second", "a.png"), ("b.png", "nowhere.png")]
    rows = [f"P1\tR1\t{one}\t{two}\tFixation\t250\t{i}\t0,5\t0,5" for i, (one, two) in enumerate(shown)]
    stream = read_fixation_report(write(tmp_path / "t.tsv", [head, *rows], "utf-16"), images, REPORT_FORMATS["tobii"])
    assert [Path(str(sample.image)).name for sample in stream] == ["a.png", "b.png", "a.png", "b.png"]
    assert stream.report.passed_over["rows of 'Eyetracker Calibration', which is no image"].count == 1


def test_an_image_named_without_its_suffix_must_be_one(tmp_path: Path, images: Path) -> None:
    report = write(tmp_path / "r.csv", [HEADER, "ana,a,0,200,0.5,0.5", "ana,a.png,300,200,0.5,0.5"])
    said = write(tmp_path / "said.csv", ["subject,image,description", "ana,a.png,a dog"])
    (sample,) = read_fixation_report(report, images, PLAIN, said)
    assert (sample.description, durations([sample])) == ("a dog", [[0.2, 0.2]])
    make_images(images, "a.jpg")
    with pytest.raises(InvalidSampleError, match=r"image 'a' may be a\.jpg, a\.png in .*; give its suffix"):
        list(read_fixation_report(report, images, PLAIN))


@pytest.mark.parametrize(("on_disk", "in_tables"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_letters_may_be_composed_or_not(on_disk: str, in_tables: str, tmp_path: Path) -> None:
    def form(name: str, text: str) -> str:
        return unicodedata.normalize(name, text)  # type: ignore[arg-type]

    images = make_images(tmp_path / "images", form(on_disk, "café.png"))
    header = HEADER.replace("what", form(in_tables, "Gemälde"))
    report = write(tmp_path / "r.csv", [header, form(in_tables, "zoë,café.png,0,200,0.5,0.5")])
    said = write(tmp_path / "said.csv", ["subject,image,description", form(on_disk, "zoë,café.png,a cup")])
    named = attrs.evolve(PLAIN, image=form(on_disk, "Gemälde"))
    (sample,) = read_fixation_report(report, images, named, said)
    assert (sample.subject, sample.description) == (form("NFC", "zoë"), "a cup")
    assert Path(str(sample.image)).is_file()


def test_words_for_missing_images_and_people(tmp_path: Path, images: Path) -> None:
    rows = ["NA,a.png,0,200,0.5,0.5", "None,a.png,0,200,0.5,0.5", "#N/A,a.png,0,200,0.5,0.5", "ana,n/a,0,200,0.5,0.5"]
    stream = read_fixation_report(write(tmp_path / "r.csv", [HEADER, *rows]), images, PLAIN)
    assert [sample.subject for sample in stream] == ["NA", "None"]  # people are called so
    assert stream.report.passed_over["rows without a person or an image"].count == 2


def test_a_missing_column_brings_a_proposal(tmp_path: Path, images: Path) -> None:
    header = "Participant,Stimulus,FPOGX,FPOGY,FPOGS,FPOGD,FPOGID"
    report = write(tmp_path / "r.csv", [header, "ana,a.png,0.5,0.5,1,0.2,1"])
    with pytest.raises(
        InvalidSampleError, match=r"has no column 'x' \(x\).*By their names this is ReportFormat"
    ) as caught:
        read_fixation_report(report, images, PLAIN)
    proposed = str(caught.value).split("this is ")[1].split(", and units")[0]
    form = eval(proposed, {"ReportFormat": ReportFormat})
    assert form == ReportFormat(
        x="FPOGX",
        y="FPOGY",
        duration="FPOGD",
        subject="Participant",
        image="Stimulus",
        start="FPOGS",
        fixation="FPOGID",
    )
    (sample,) = read_fixation_report(report, images, attrs.evolve(form, time_unit="s"))
    assert durations([sample]) == [[0.2]]


# Geometry


def test_an_image_larger_than_its_screen_was_scaled(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (4000, 3000)).save(images / "photo.jpg")
    Image.new("RGB", (960, 540)).save(images / "small.png")
    corners = [(240, 0), (960, 540), (1680, 1080)]
    rows = [f"p1,photo.jpg,{i * 300},250,{x},{y}" for i, (x, y) in enumerate(corners)]
    form = attrs.evolve(PLAIN, units="screen_px")
    report = write(tmp_path / "r.csv", [HEADER, *rows])
    with pytest.raises(
        InvalidSampleError, match="4000×3000 and the screen 1920×1080, so it was not shown in its own size"
    ):
        list(read_fixation_report(report, images, form, placement=Placement(screen=(1920, 1080))))
    for scale in ("fit", "shrink"):
        placement = Placement(screen=(1920, 1080), scale=scale)  # type: ignore[arg-type]
        (sample,) = read_fixation_report(report, images, form, placement=placement)
        assert [fixation.box for fixation in sample.trajectory or ()] == [
            pytest.approx((0, 0, 0.035, 0.035)),
            pytest.approx((0.465, 0.465, 0.535, 0.535)),
            pytest.approx((0.965, 0.965, 1, 1)),
        ]
    small = images / "small.png"
    assert Placement(screen=(1920, 1080), scale="fit").on_screen(small) == (0, 0, 1920, 1080)
    assert Placement(screen=(1920, 1080), scale="shrink").on_screen(small) == (480, 270, 960, 540)
    for wrong in (
        {"rectangle": (0, 0, 1, 1), "scale": "fit"},
        {"screen": (1, float("inf"))},
        {"screen": (1, 1), "scale": "x"},
    ):
        with pytest.raises(InvalidArgumentError):
            Placement(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("outside", ["clip", "drop"])
def test_positions_in_another_unit_are_refused(outside: str, tmp_path: Path, images: Path) -> None:
    pixels = write(tmp_path / "r.csv", [HEADER, "ana,a.png,0,200,200,100", "ana,a.png,300,200,80,150"])
    with pytest.raises(InvalidSampleError, match=r"far outside the image, read as fractions of it.*like pixels"):
        list(read_fixation_report(pixels, images, PLAIN, outside=outside))  # type: ignore[arg-type]
    fractions = write(tmp_path / "r.csv", [HEADER, "ana,a.png,0,200,0.5,0.5", "ana,a.png,300,200,0.2,0.5"])
    with pytest.raises(InvalidSampleError, match="within one pixel, read as image_px; they must be fractions"):
        list(read_fixation_report(fractions, images, attrs.evolve(PLAIN, units="image_px")))
