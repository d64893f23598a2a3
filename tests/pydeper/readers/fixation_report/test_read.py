import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers import (
    REPORT_FORMATS,
    BoxRadius,
    Placement,
    ReportFormat,
    Tolerance,
    read_fixation_report,
)

PLAIN = ReportFormat(x="x", y="y", duration="ms", subject="who", image="what", start="start")
HEADER = "who,what,start,ms,x,y"
ROWS = [HEADER, "ana,a.png,0,200,0.5,0.5", "ana,a.png,210,300,0.25,0.75", "ben,a.png,5,150,0.5,0.25"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (400, 200)).save(folder / "a.png")
    Image.new("RGB", (100, 300)).save(folder / "b.png")
    return folder


def write(folder: Path, lines: list[str], name: str = "report.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return path


def centres(sample: Any) -> list[Any]:
    return [
        pytest.approx(((f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2, f.duration), abs=1e-9)
        for f in sample.trajectory
    ]


def test_the_rows_of_a_viewing_become_a_sample(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, ROWS)
    ana, ben = read_fixation_report(path, images, PLAIN)
    assert (ana.subject, ben.subject, ana.image) == ("ana", "ben", images.resolve() / "a.png")
    assert centres(ana) == [(0.5, 0.5, 0.2), (0.25, 0.75, 0.3)]
    assert centres(ben) == [(0.5, 0.25, 0.15)]
    assert (ana.description, ana.source, ben.source) == (None, f"{path}:2", f"{path}:4")


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.tsv"])
def test_descriptions_are_joined_by_person_and_image(name: str, tmp_path: Path, images: Path) -> None:
    rows = [("ana", "a.png", "a dog, asleep"), ("eve", "a.png", "nobody looked")]
    if name.endswith("jsonl"):
        lines = [json.dumps(dict(zip(("subject", "image", "description"), row, strict=True))) for row in rows]
    else:
        mark = "\t" if name.endswith("tsv") else ","
        lines = [mark.join(("subject", "image", "description"))] + [f'{w}{mark}{i}{mark}"{d}"' for w, i, d in rows]
    texts = write(tmp_path, lines, name)
    stream = read_fixation_report(write(tmp_path, ROWS), images, PLAIN, texts)
    assert [(sample.subject, sample.description) for sample in stream] == [("ana", "a dog, asleep")]
    assert {reason: tally.count for reason, tally in stream.report.passed_over.items()} == {
        "no description": 1,
        "description of an image that was not viewed": 1,
    }
    kept = read_fixation_report(write(tmp_path, ROWS), images, PLAIN, texts, without_description="keep")
    assert [sample.description for sample in kept] == ["a dog, asleep", None]


def test_two_viewings_of_an_image_share_its_description(tmp_path: Path, images: Path) -> None:
    form = attrs.evolve(PLAIN, trial="trial")
    rows = [f"{HEADER},trial", "ana,a.png,0,200,0.5,0.5,1", "ana,a.png,0,300,0.25,0.75,2"]
    texts = write(tmp_path, ["subject,image,description", "ana,a.png,a dog"], "d.csv")
    stream = read_fixation_report(write(tmp_path, rows), images, form, texts)
    assert [(sample.description, centres(sample)) for sample in stream] == [
        ("a dog", [(0.5, 0.5, 0.2)]),
        ("a dog", [(0.25, 0.75, 0.3)]),
    ]
    assert stream.report.passed_over == {}


# The exporters' own column names


def test_tobii(tmp_path: Path, images: Path) -> None:
    header = "Recording timestamp [ms]\tParticipant name\tRecording name\tPresented Stimulus name\tEye movement type\t"
    header += (
        "Gaze event duration [ms]\tEye movement type index\tFixation point X [MCS norm]\tFixation point Y [MCS norm]"
    )
    rows = [
        "1\tP01\tR1\ta.png\tFixation\t250\t1\t0,5000\t0,2500",
        "9\tP01\tR1\ta.png\tFixation\t250\t1\t0,5000\t0,2500",
        "17\tP01\tR1\ta.png\tSaccade\t40\t1\t\t",
        "25\tP01\tR1\ta.png\tFixation\t117\t2\t0,7500\t0,2500",
    ]
    path = write(tmp_path, [header, *rows], "tobii.tsv", "utf-16")
    stream = read_fixation_report(path, images, REPORT_FORMATS["tobii"])
    (sample,) = stream
    assert (sample.subject, centres(sample)) == ("P01", [(0.5, 0.25, 0.25), (0.75, 0.25, 0.117)])
    assert stream.report.passed_over["rows whose 'Eye movement type' is not Fixation"].count == 1
    older = header.replace("[MCS norm]", "(MCSnorm)").replace("duration [ms]", "duration")
    (sample,) = read_fixation_report(write(tmp_path, [older, *rows]), images, REPORT_FORMATS["tobii"])
    assert len(sample.trajectory or ()) == 2


def test_eyelink_with_the_screen_around_the_image(tmp_path: Path, images: Path) -> None:
    header = "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tpicture\tCURRENT_FIX_START\tCURRENT_FIX_DURATION\tCURRENT_FIX_X\t"
    rows = ["s1\t1\ta.png\t10\t210\t512.0\t384.0", "s1\t1\ta.png\t250\t190\t.\t.", "s1\t1\ta.png\t500\t180\t100\t384"]
    path = write(tmp_path, [header + "CURRENT_FIX_Y", *rows])
    form = attrs.evolve(REPORT_FORMATS["eyelink"], image="picture")
    screen = Placement(screen=(1024, 768))
    stream = read_fixation_report(path, images, form, placement=screen, radius=BoxRadius(20, "px"))
    (sample,) = stream
    assert [f.box for f in sample.trajectory or ()] == [pytest.approx((0.45, 0.4, 0.55, 0.6))]
    assert stream.report.changed["fixations outside the image left out"].count == 1
    assert stream.report.changed["fixations left out: position or duration is missing"].first == [f"{path}:3"]

    clipped = read_fixation_report(path, images, form, placement=screen, outside="clip")
    assert centres(next(clipped))[1:] == [(0.0175, 0.5, 0.18)]

    rectangle = Placement(rectangle=(0, 0, 1024, 768))
    (sample,) = read_fixation_report(path, images, form, placement=rectangle)
    assert centres(sample) == [(0.5, 0.5, 0.21), (100 / 1024, 0.5, 0.18)]


def test_pupil_player_counts_y_from_below_and_repeats_fixations(tmp_path: Path, images: Path) -> None:
    header = (
        "world_timestamp,world_index,fixation_id,start_timestamp,duration,dispersion,norm_pos_x,norm_pos_y,x_scaled,"
    )
    rows = [
        "7.01,1,5,7.0,120.5,0.9,0.4,0.8,0.4,0.8,True",
        "7.05,2,5,7.0,120.5,0.9,0.6,0.8,0.6,0.8,True",
        "7.30,3,6,7.3,220.0,0.9,1.2,0.8,1.2,0.8,False",
    ]
    path = write(tmp_path, [header + "y_scaled,on_surf", *rows])
    (sample,) = read_fixation_report(path, images, REPORT_FORMATS["pupil_player"], subject="ana", image="a.png")
    assert (sample.subject, centres(sample)) == ("ana", [(0.5, 0.2, 0.1205)])


def test_pupil_cloud(tmp_path: Path, images: Path) -> None:
    head = "section id,recording id,fixation id,start timestamp [ns],end timestamp [ns],duration [ms],"
    start = "s1,r1,1,1644404690000000000,1644404690300000000,300,True,"
    path = write(
        tmp_path,
        [head + "fixation detected on surface,fixation x [normalized],fixation y [normalized]", start + "0.5,0.25"],
    )
    (sample,) = read_fixation_report(path, images, REPORT_FORMATS["pupil_marker_mapper"], image="b.png")
    assert (sample.subject, centres(sample)) == ("r1", [(0.5, 0.25, 0.3)])
    path = write(
        tmp_path, [head + "fixation detected in reference image,fixation x [px],fixation y [px]", start + "50,75"]
    )
    (sample,) = read_fixation_report(path, images, REPORT_FORMATS["pupil_reference_image"], image="b.png")
    assert centres(sample) == [(0.5, 0.25, 0.3)]


# Sizes and places


def test_a_radius_may_be_an_angle() -> None:
    # One degree at 573 mm is 10 mm, which are 40 pixels of a quarter millimetre.
    radius = BoxRadius.degrees(1, distance=573, pixel=0.25)
    assert (radius.unit, radius.value) == ("px", pytest.approx(40, rel=1e-3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoxRadius(0), "must be above 0"),
        (lambda: BoxRadius(float("inf")), "must be above 0"),
        (lambda: BoxRadius(1, "deg"), "unit must be one of"),  # type: ignore[arg-type]
        (lambda: Placement(), "a rectangle or a screen"),
        (lambda: Placement(rectangle=(0, 0, 1, 1), screen=(1, 1)), "a rectangle or a screen"),
        (lambda: Placement(screen=(0, 1)), "has no area"),
        (lambda: attrs.evolve(PLAIN, units="cm"), "units must be one of"),
        (lambda: attrs.evolve(PLAIN, time_unit="min"), "time_unit must be one of"),
    ],
)
def test_settings_are_checked(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("form", "given", "message"),
    [
        (attrs.evolve(PLAIN, subject=None), {}, "subject: the format has no column for it"),
        (PLAIN, {"image": "a.png"}, "image: the format says it in 'what'"),
        (attrs.evolve(PLAIN, units="screen_px"), {}, "say where on the screen"),
        (PLAIN, {"placement": Placement(screen=(10, 10))}, "which need none"),
        (PLAIN, {"outside": "keep"}, "outside must be one of"),
    ],
)
def test_what_the_format_needs_must_be_given(form: Any, given: Any, message: str, tmp_path: Path, images: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_fixation_report(write(tmp_path, ROWS), images, form, **given)


# Bad input


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ana,a.png,500,soon,0.5,0.5", "line 4: duration is 'soon'"),
        ("ana,a.png,500,200,inf,0.5", "line 4: x is 'inf'"),
        ("ana,a.png,500,-200,0.5,0.5", "line 4: duration -0.2"),
        ("ana,a.png,100,200,0.5,0.5", "line 4: start goes backwards, from 210 to 100"),
    ],
)
def test_a_damaged_row_is_named_or_its_viewing_passed_over(
    row: str, message: str, tmp_path: Path, images: Path
) -> None:
    path = write(tmp_path, [*ROWS[:3], row, *ROWS[3:]])
    with pytest.raises(InvalidSampleError, match=rf"report.csv:2: {message}"):
        list(read_fixation_report(path, images, PLAIN))
    stream = read_fixation_report(path, images, PLAIN, tolerance=Tolerance(damaged=1))
    assert [sample.subject for sample in stream] == ["ben"]


def test_a_wrong_unit_of_time_is_noticed(tmp_path: Path, images: Path) -> None:
    for unit in ("us", "s"):
        with pytest.raises(InvalidSampleError, match=rf"the median fixation lasts .* s, read as {unit}"):
            list(read_fixation_report(write(tmp_path, ROWS), images, attrs.evolve(PLAIN, time_unit=unit)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty; its first line must name the columns"),
        (["who,what,start,x,y"], r"has no column 'ms' \(duration\); it has 'who', 'what'"),
        (["who,who,what,start,ms,x,y"], "the column 'who' is there twice"),
        ([*ROWS, "eve,a.png,1"], "report.csv:5: has 3 fields and the header 6"),
        ([*ROWS, "ana,a.png,500,200,0.5,0.5"], "report.csv:5: the rows of 'ana' and 'a.png' do not stand together"),
        ([HEADER], "not one sample"),
        ([HEADER, f"ana,a.png,0,200,0.5,{'5' * 200_000}"], "is no table row"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(lines: list[str], message: str, tmp_path: Path, images: Path) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        list(read_fixation_report(write(tmp_path, lines), images, PLAIN))


def test_encodings(tmp_path: Path, images: Path) -> None:
    lines = [HEADER, "zoë,a.png,0,200,0.5,0.5"]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (sample,) = read_fixation_report(write(tmp_path, lines, encoding=encoding), images, PLAIN)
        assert sample.subject == "zoë"
    path = write(tmp_path, lines, encoding="latin-1")
    with pytest.raises(InvalidSampleError, match=r"is not UTF-8 .*say its encoding"):
        list(read_fixation_report(path, images, PLAIN))
    assert [sample.subject for sample in read_fixation_report(path, images, PLAIN, encoding="latin-1")] == ["zoë"]
    with pytest.raises(InvalidSampleError, match="cannot be read"):
        list(read_fixation_report(path, images, PLAIN, encoding="no-such"))
    with pytest.raises(InvalidSampleError, match="cannot be read"):
        list(read_fixation_report(tmp_path / "absent.csv", images, PLAIN))


def test_rows_of_nobody_and_missing_images(tmp_path: Path, images: Path) -> None:
    lines = [*ROWS, ",a.png,0,200,0.5,0.5", "ana,c.png,0,200,0.5,0.5"]
    stream = read_fixation_report(write(tmp_path, lines), images, PLAIN, tolerance=Tolerance(missing_images=1))
    assert len(list(stream)) == 2
    assert stream.report.passed_over["rows without a person or an image"].count == 1
    assert stream.report.passed_over["image is missing"].count == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["subject,image,text"], r"has no column 'description' \(descriptions\)"),
        (["subject,image,description", "ana,a.png,"], "d.csv:2: description is empty"),
        (
            ["subject,image,description", "ana,a.png,x", "ana,a.png,y"],
            "d.csv:3: 'ana' has a description of 'a.png' already",
        ),
    ],
)
def test_descriptions_that_cannot_be_used(lines: list[str], message: str, tmp_path: Path, images: Path) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        read_fixation_report(write(tmp_path, ROWS), images, PLAIN, write(tmp_path, lines, "d.csv"))
    with pytest.raises(InvalidSampleError, match=r"d.jsonl:1: image is missing; it must be text"):
        read_fixation_report(write(tmp_path, ROWS), images, PLAIN, write(tmp_path, ['{"subject": 1}'], "d.jsonl"))
