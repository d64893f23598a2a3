"""Options of `prepare` that say what a table cannot: how images were scaled, and that odd durations are meant."""

from pathlib import Path

import pytest
from PIL import Image

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
