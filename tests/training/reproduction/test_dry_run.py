"""`python -m training reproduce … --dry-run` says what an experiment takes, and leaves no trace."""

import json
import re
from pathlib import Path

import pytest

from tests.training.reproduction import published
from tests.training.reproduction.conftest import Reproduce
from training.cli.main import main
from training.reproduction.prepared import prepared
from training.reproduction.sources import EXPERIMENTS, DataOptions


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def dry_run(experiment: str, data: Path, *more: str) -> int:
    out = data.parent / "run"
    return main(["reproduce", experiment, "--data", str(data), "--out", str(out), "--dry-run", *more])


def table(printed: str) -> dict[str, list[int]]:
    """People, samples and images by split."""
    rows = re.findall(r"^(train|val|test|support|query) +(\d+) +(\d+) +(\d+)$", printed, re.MULTILINE)
    return {split: [int(count) for count in counts] for split, *counts in rows}


def test_what_an_experiment_takes_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_coco(tmp_path / "coco")
    before = files(tmp_path)
    assert dry_run("coco-ln", tmp_path / "coco") == 0
    assert files(tmp_path) == before
    printed = capsys.readouterr().out
    counts = {"train": [2, 10, 5], "val": [2, 2, 1], "test": [2, 2, 1], "support": [19, 95, 5], "query": [19, 19, 1]}
    assert table(printed) == counts
    assert "coco_val_localized_narratives.jsonl: 147 samples" in printed
    assert "Unseen people: 30, 82, " in printed
    # 12,700 steps of 256 samples at 15.8 a second, and 8,470 at 0.496, on a GPU that is 100 times as fast.
    assert "stage 1: 12700 steps of 256 samples, 325120.0 epochs of 10: 0.57 GPU hours" in printed
    assert "stage 2: 8470 steps of 256 samples, 216832.0 epochs of 10: 12.15 GPU hours" in printed
    assert "prompt-tuning: 4200 steps of 64 samples" in printed
    assert re.search(r"prompt-tuning with LoRA: 4200 steps of 64 samples, .*: 4.84 GPU hours", printed)
    assert re.search(r"CSMN: \d+ steps of 128 samples, .*: \d\.\d\d GPU hours\n", printed)
    assert re.search(r"MITR, the base: 108400 steps of 30 samples, .*: 0\.55 GPU hours, 2 times\n", printed)
    # Two seen people, 10 epochs of one step of their 5 samples each, and 19 unseen ones, 50 steps of 5 samples.
    assert "MITR, fine-tuned per person: 970 steps for 21 people, 4850 samples: 0.00 GPU hours" in printed
    assert "one GPU 100 times as fast as that machine" in printed
    assert re.search(r"Descriptions: \d+ of at most 512 tokens, 21 by each system", printed)
    assert "checkpoints of 1 training: 0.59 GB" in printed
    assert "the features of 7 images are computed in every run and held in memory" in printed


def test_a_dry_run_and_the_run_have_the_same_samples(
    reproduce: Reproduce, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_kollenda(tmp_path / "data")
    more = ["--unseen", "k2"]
    assert reproduce("kollenda", tmp_path / "data", *more, "--dry-run") == 0
    assert not (tmp_path / "run").exists()
    told = table(capsys.readouterr().out)
    assert reproduce("kollenda", tmp_path / "data", *more) == 0
    samples = [json.loads(line) for line in (tmp_path / "run/data/samples.jsonl").read_text().splitlines()]
    for split, counts in told.items():
        own = [sample for sample in samples if sample["split"] == split]
        assert counts == [len({s["subject"] for s in own}), len(own), len({s["image"] for s in own})]
    capsys.readouterr()
    assert reproduce("kollenda", tmp_path / "data", *more, "--dry-run") == 0
    assert "samples.jsonl: prepared already." in (printed := capsys.readouterr().out)
    assert table(printed) == told


def test_fewer_training_samples_and_more_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.write_kollenda(tmp_path / "raw", people=2, images=130)
    options = DataOptions(unseen=())
    folder = prepared(EXPERIMENTS["kollenda"], tmp_path / "raw", tmp_path / "data", options).parent
    capsys.readouterr()
    more = ["--systems", "DEPER", "DEPER, no FiLM", "--set", f"feature_cache={tmp_path / 'cache'}"]
    assert dry_run("flickr30k-ln-100", folder, *more, "--gpu-speedup", "1") == 0
    printed = capsys.readouterr().out
    assert table(printed)["train"][:2] == [2, 200]
    assert re.search(r"stage 1: 316 steps of 256 samples, 404.5 epochs of 200: 1.42 GPU hours, 2 times", printed)
    assert "checkpoints of 2 trainings: 1.18 GB" in printed
    assert re.search(r"cache: features of 1\d\d images: 0.1\d GB", printed)


def test_splits_of_our_own_and_nobody_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.write_coco(tmp_path / "coco")
    assert dry_run("coco-ln", tmp_path / "coco", "--splits", "own", "--unseen") == 0
    printed = capsys.readouterr().out
    assert "Splits of the images: made by order of hashes. Nobody is unseen." in printed
    # One image of seven each for val and test, and everybody is trained on.
    seen = {"train": [21, 105, 5], "val": [21, 21, 1], "test": [21, 21, 1]}
    assert table(printed) == {**seen, "support": [0, 0, 0], "query": [0, 0, 0]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--unseen", "k9"], "unseen: 1 of 1 people are not in the data, such as 'k9'"),
        (["--unseen", "k0"], "are of one person, 'k1'"),
        (["--gpu-speedup", "0"], "gpu_speedup: must be > 0"),
        (["--throughput", "nowhere.json"], "nowhere.json: is no report of the training throughput"),
        (["--systems", "magic"], "systems: 'magic' is none of"),
        (["--set", "stage1.steps=none"], "stage1.steps"),
    ],
)
def test_what_the_experiment_would_refuse_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    published.write_kollenda(tmp_path / "data", people=2)
    before = files(tmp_path)
    assert dry_run("kollenda", tmp_path / "data", *more) == 2
    assert message in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_report_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.write_capgaze(tmp_path / "data")
    rows = {"stage 1, features from the cache": 100.0, "stage 2, features cached, prefixes new": 20.0}
    rows |= {"stage 2, plain: all anew, all with gradients": 5.0, "CSMN": 50.0, "MITR": 200.0}
    report = {
        "facts": {"command": "python -m benchmarks.training_throughput", "threads": 64, "batch": 8},
        "results": {row: {"samples/s": {"value": value}} for row, value in rows.items()},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    more = ["--throughput", str(tmp_path / "report.json"), "--gpu-speedup", "2", "--systems", "CSMN", "MITR", "DEPER"]
    assert dry_run("he", tmp_path / "data", *more) == 0
    printed = capsys.readouterr().out
    assert "python -m benchmarks.training_throughput with 64 CPU threads, 8 samples a batch" in printed
    assert "stage 2: 312 steps of 256 samples, 4992.0 epochs of 16: 0.55 GPU hours" in printed
    assert re.search(r"MITR, the base: .* GPU hours\n", printed)
    assert "fine-tuned" not in printed
    # A GPU's rates are taken as they are.
    report["facts"]["device"] = "one NVIDIA A100"
    (tmp_path / "report.json").write_text(json.dumps(report))
    on_gpu = [argument for argument in more if argument not in ("--gpu-speedup", "2")]
    assert dry_run("he", tmp_path / "data", *on_gpu) == 0
    printed = capsys.readouterr().out
    assert "python -m benchmarks.training_throughput on one NVIDIA A100, 8 samples a batch.\n" in printed
    assert "not measured" not in printed
    assert "stage 2: 312 steps of 256 samples, 4992.0 epochs of 16: 1.11 GPU hours" in printed
    # An older report, without the captioners, says nothing about them.
    del report["results"]["MITR"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert dry_run("he", tmp_path / "data", *more) == 2
    assert "is no report of the training throughput (KeyError('MITR')); write one by" in capsys.readouterr().err
