"""The samples that a training is given: too few people, and durations that are meant."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from pydeper import InvalidSampleError
from training.cli.main import main
from training.config import TrainingConfig, load_config
from training.data.shards import ShardImages, read_samples
from training.runs.samples import training_samples, validation_samples, warn_of_few_people


def write_samples(folder: Path, duration: float) -> Path:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    fixation = {"box": [0.1, 0.1, 0.2, 0.2], "duration": duration}
    record = {"image": "a.png", "description": "red", "subject": "ana", "trajectory": [fixation]}
    lines = [json.dumps(record | {"split": split}) for split in ("train", "val")]
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return folder / "samples.jsonl"


def test_one_person_alone_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"all 3 training samples are of one person, 'ana'.*at least 2 people"):
        warn_of_few_people(["ana"] * 3)
    with pytest.warns(UserWarning, match=r"2 of 3 people have a single training sample \(such as 'ben'\)"):
        warn_of_few_people(["cem", "ana", "ben", "ana"])
    warn_of_few_people(["ana", "ben", "ana", "ben"])


def test_identification_needs_two_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_samples(tmp_path, 0.2)
    assert main(["identify", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "all samples are of one person, 'ana'; telling who it is needs at least 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_durations_that_are_meant_are_trained_on(tmp_path: Path) -> None:
    path = str(write_samples(tmp_path, 0.002))
    (tmp_path / "c.toml").write_text(f"name = 'c'\nsamples = {json.dumps(path)}\n[stage1]\nsteps = 1\n")
    config = load_config(TrainingConfig, tmp_path / "c.toml")
    with pytest.raises(InvalidSampleError, match=r"samples\.jsonl:1"):
        training_samples(config.samples, check_durations=config.check_durations)
    config = load_config(TrainingConfig, tmp_path / "c.toml", ["check_durations=false"])
    for samples in (
        training_samples(config.samples, check_durations=config.check_durations),
        validation_samples(config.samples, {"ana"}, check_durations=config.check_durations),
    ):
        assert [fixation.duration for fixation in samples[0].trajectory or ()] == [0.002]


def test_shards_take_durations_that_are_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["shard", str(write_samples(tmp_path, 0.002)), "--out", str(tmp_path / "shards")]
    assert main(command) == 2
    assert main([*command, "--no-check-durations"]) == 0
    assert len(training_samples(str(tmp_path / "shards"))) == 1
    assert "2 samples of 1 images in 1 shards" in capsys.readouterr().out


def test_every_image_that_can_be_opened_can_be_sharded(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, 0.2)
    whole = (tmp_path / "a.png").read_bytes()
    text = b"zTXt" + b"Comment\x00\x00" + zlib.compress(bytes(200 * 2**20))  # a text that Pillow alone refuses
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(ValueError, match="too large"):
        Image.open(tmp_path / "a.png")
    assert main(["shard", str(samples), "--out", str(tmp_path / "shards")]) == 0
    images = ShardImages(read_samples(str(tmp_path / "shards"))[:1])
    assert images.open(0).getpixel((0, 0)) == (255, 0, 0)
