"""`python -m training prepare` reads every format, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pydeper import read_samples
from tests.support.images import write_images
from tests.support.paths import ROOT
from training.cli.main import main


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images" / "sub")
    return tmp_path / "images"


def narrations(path: Path, count: int, people: int = 3) -> Path:
    with path.open("w") as file:
        for i in range(count):
            points = [{"x": 0.3, "y": 0.4, "t": 0.02 * j} for j in range(20)]
            record = {"dataset_id": "flickr30k_train", "image_id": str(i % 40), "annotator_id": i % people}
            file.write(json.dumps(record | {"caption": f"Text {i}.", "traces": [points]}) + "\n")
    return path


def test_the_command_reads_localized_narratives(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = narrations(tmp_path / "ln.jsonl", 60)
    command = ["prepare", "localized-narratives", str(file), "--images", str(images / "sub"), "--out"]
    more = ["--image-pattern", "{image_id}.png", "--unseen-people", "1", "--test-share", "0.3"]
    assert main([*command, str(tmp_path / "idt"), *more]) == 0
    assert "ln.jsonl: 60 samples" in capsys.readouterr().out
    windows = ["--method", "windows", "--window", "0.1"]
    assert main([*command, str(tmp_path / "windows"), *more, *windows]) == 0
    counts = [len(read_samples(tmp_path / way / "samples.jsonl")[0].trajectory or ()) for way in ("idt", "windows")]
    assert counts == [1, 4]
    for wrong, message in (
        (["--window", "0.1"], "--window is of fixed windows"),
        (["--method", "windows", "--dispersion", "0.1"], "--dispersion and --min-duration are of I-DT"),
        (["--dispersion", "0"], "dispersion must be above 0"),
        (["--max-damaged", "-1"], "damaged must be a whole number"),
        (["--image-pattern", "{image_id}.jpg"], "ln.jsonl:1: image '0.jpg' is not in"),
    ):
        assert main([*command, str(tmp_path / "wrong"), *more, *wrong]) == 2
        assert f"python -m training prepare: {message}" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert not list((tmp_path / "wrong").glob("*"))


def test_the_command_reads_fixation_reports(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"s{p}\t{i}\t{i}.png\t0\t200\t50\t50" for p in range(2) for i in range(7)]
    header = "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tpicture\tCURRENT_FIX_START\tCURRENT_FIX_DURATION"
    report = tmp_path / "report.tsv"
    report.write_text("\n".join([header + "\tCURRENT_FIX_X\tCURRENT_FIX_Y", *rows]))
    command = ["prepare", "fixation-report", str(report), "--format", "eyelink", "--images", str(images / "sub")]
    command += ["--rectangle", "0", "0", "100", "100", "--out", str(tmp_path / "out"), "--radius", "10"]
    command += ["--radius-unit", "px"]
    assert main(command) == 2
    assert "image: the format has no column for it" in capsys.readouterr().err
    assert main([*command, "--column", "picture"]) == 2
    assert "write NAME=COLUMN" in capsys.readouterr().err
    assert main([*command, "--column", "image=picture"]) == 0
    fixations = read_samples(tmp_path / "out" / "samples.jsonl")[0].trajectory or ()
    assert [fixation.box for fixation in fixations] == [pytest.approx((0.4, 0.4, 0.6, 0.6))]


def test_the_command_reads_capgaze(images: Path, tmp_path: Path) -> None:
    gaze = {"time_stamp": [0.02 * i for i in range(20)], "left_eye": [(0.5, 0.5)] * 20, "right_eye": [None] * 20}
    record = np.array(gaze | {"dominant_eye": 0}, dtype=object)
    for folder in ("gaze_converted_2/1/gaze", "transcribed_text/1", "images"):
        (tmp_path / "capgaze" / folder).mkdir(parents=True)
    for i in range(12):
        np.save(tmp_path / "capgaze" / "gaze_converted_2" / "1" / "gaze" / f"{i}.npy", record, allow_pickle=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "capgaze" / "images" / f"{i}.jpg")
    (tmp_path / "capgaze" / "transcribed_text" / "1" / "3.json").write_text('{"text": "a dog"}')
    command = ["prepare", "capgaze", str(tmp_path / "capgaze"), "--unseen-people", "0", "--out"]
    assert main([*command, str(tmp_path / "all"), "--without-description", "keep", "--eye", "mean"]) == 0
    assert len(read_samples(tmp_path / "all" / "samples.jsonl")) == 12
    assert main([*command, str(tmp_path / "told")]) == 0
    (sample,) = read_samples(tmp_path / "told" / "samples.jsonl")
    assert (sample.description, sample.split, len(sample.trajectory or ())) == ("a dog", "train", 1)


def test_the_command_reads_the_released_codes_json(images: Path, tmp_path: Path) -> None:
    boxes = {"X": [1], "Y": [1], "T": [0.2], "bboxes": [[0, 0, 4, 3]]}
    entries = [{"name": f"{i}.png", "caption": "c", "subject": 1, "split": "train"} | boxes for i in range(3)]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(entries))
    command = ["prepare", "deper-json", str(file), "--images", str(images / "sub"), "--out", str(tmp_path / "out")]
    assert main([*command, "--boxes", "pixels"]) == 0
    assert [sample.split for sample in read_samples(tmp_path / "out" / "samples.jsonl")] == ["train"] * 3


def test_published_splits_are_followed(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = narrations(tmp_path / "ln.jsonl", 60)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    held_out = [line | {"dataset_id": "flickr30k_test"} if int(line["image_id"]) >= 35 else line for line in lines]
    file.write_text("\n".join(map(json.dumps, held_out)))
    command = ["prepare", "localized-narratives", str(file), "--images", str(images / "sub"), "--out"]
    command += [str(tmp_path / "out"), "--image-pattern", "{image_id}.png"]
    assert main([*command, "--test-split", "test", "--unseen", "7"]) == 2
    assert "unseen: 1 of 1 people are not in the data, such as '7'; there are '0', '1', '2'" in capsys.readouterr().err
    assert main([*command, "--test-split", "test", "--unseen", "2", "0"]) == 0
    samples = read_samples(tmp_path / "out" / "samples.jsonl")
    assert {sample.subject for sample in samples if sample.split == "train"} == {"1"}
    assert {Path(str(s.image)).name for s in samples if s.split in ("test", "query")} == {
        f"{number}.png" for number in range(35, 40)
    }


def test_ctrl_c_leaves_nothing_half_written(images: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "ln.jsonl"
    os.mkfifo(pipe)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training", "prepare", "localized-narratives", str(pipe), "--out", str(out)]
    command += ["--images", str(images / "sub"), "--image-pattern", "{image_id}.png"]
    project = ROOT
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        with pipe.open("w") as file:  # opens once the command reads; then it waits for more
            file.write(narrations(tmp_path / "some.jsonl", 50).read_text())
            file.flush()
            while not list(out.glob(".*")):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert process.stderr.read().endswith("interrupted; nothing was written\n")
        assert process.wait() == 130
    assert not out.exists()
