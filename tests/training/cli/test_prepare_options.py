"""Options of `prepare` that say what a table cannot: its columns, how images were scaled, that durations are meant."""

from pathlib import Path

import pytest
from PIL import Image

from pydeper import Fixation
from pydeper.readers import read_samples
from training.cli.main import main


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Two people look at photographs that are larger than the screen, for as long as the last column says."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (200, 100)).save(folder / f"{number}.png")
    header = "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tpicture\tCURRENT_FIX_START\tCURRENT_FIX_X\tCURRENT_FIX_Y\t"
    rows = [f"s{who}\t{number}\t{number}.png\t0\t50\t50\t0,25" for who in range(2) for number in range(7)]
    report = tmp_path / "report.tsv"
    report.write_text("\n".join([header + "CURRENT_FIX_DURATION", *rows]))
    given = ["prepare", "fixation-report", str(report), "--format", "eyelink", "--column", "image=picture"]
    return [*given, "--images", str(folder), "--screen", "100", "100", "--out", str(tmp_path / "out")]


def test_images_that_were_scaled(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command += ["--time-unit", "s"]
    assert main(command) == 2
    assert "so it was not shown in its own size" in capsys.readouterr().err.replace("\n", " ")
    assert main([*command, "--scale", "fit"]) == 0
    fixations = read_samples(tmp_path / "out" / "samples.jsonl")[0].trajectory or ()
    assert [fixation.box for fixation in fixations] == [pytest.approx((0.465, 0.465, 0.535, 0.535))]


def test_durations_that_are_meant(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command += ["--scale", "shrink"]
    assert main(command) == 2
    assert "its number looks like seconds" in capsys.readouterr().err
    assert main([*command, "--no-check-durations"]) == 0
    (fixation,) = read_samples(tmp_path / "out" / "samples.jsonl", check_durations=False)[0].trajectory or ()
    assert fixation.duration == pytest.approx(0.00025)


@pytest.fixture
def looks(tmp_path: Path) -> list[str]:
    """A table of somebody's own, with rows of both eyes."""
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (100, 100)).save(tmp_path / "images" / f"{number}.png")
    rows = [f"ana,{number}.png,250,350,0.3,{eye}" for number in range(3) for eye in "LR"]
    (tmp_path / "looks.csv").write_text("\n".join(["who,picture,left,top,lasted (s),eye", *rows]))
    given = ["prepare", "fixation-report", str(tmp_path / "looks.csv"), "--images", str(tmp_path / "images")]
    return [*given, "--out", str(tmp_path / "out"), "--unseen-people", "0", "--radius", "0.1", "--format", "custom"]


MAPPING = ["x=left", "y=top", "duration=lasted (s)", "subject=who", "image=picture"]


@pytest.mark.parametrize("screen", [["--screen", "400x400"], ["--screen=400x400"], ["--screen", "400", "400"]])
def test_any_table_is_read_by_its_columns(looks: list[str], screen: list[str], tmp_path: Path) -> None:
    command = [*looks, *(word for column in MAPPING for word in ("--column", column)), "--time-unit", "s"]
    command += ["--units", "screen_px", *screen, "--keep", "eye=L", "--keep", "eye=l", "--outside", "clip"]
    assert main(command) == 0
    samples = read_samples(tmp_path / "out" / "samples.jsonl")
    assert [sample.subject for sample in samples] == ["ana"] * 3
    (fixation,) = samples[0].trajectory or ()
    assert fixation == Fixation.clipped((0.9, 0.9, 1.1, 1.1), 0.3)


def test_columns_are_proposed(looks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    proposal = (
        "By their names this is --format custom --column x=left --column y=top --column 'duration=lasted (s)' "
        "--column subject=who --column image=picture --time-unit s, and --units as x and y are\n"
    )
    assert main([*looks, "--column", "x=left"]) == 2
    assert "say which column is y and duration, by --column y=COLUMN. " + proposal in capsys.readouterr().err
    assert main([*looks, *(word for column in ("x=a", *MAPPING[1:]) for word in ("--column", column))]) == 2
    assert "has no column 'a' (x); it has 'who', " in (told := capsys.readouterr().err)
    assert told.endswith(proposal)
    assert main([*looks[:-1], "tobii"]) == 2
    assert capsys.readouterr().err.endswith(proposal)


def test_conditions_name_columns_that_are_there(looks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    columns = [word for column in MAPPING for word in ("--column", column)]
    assert main([*looks, *columns, "--keep", "eye"]) == 2
    assert "--keep eye: write COLUMN=VALUE" in capsys.readouterr().err
    assert main([*looks, *columns, "--keep", "EYES=L"]) == 2
    assert "has no column 'EYES' (--keep)" in capsys.readouterr().err
