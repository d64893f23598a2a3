"""`python -m training curve training`: DEPER trained anew on few and on all samples, with small random models."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from pydeper import Sample, read_samples, write_samples
from tests.training.tiny.test_table import SMALL
from training import reproduce
from training.cli.main import main
from training.curves.training_samples import first_training_samples
from training.evaluation.predictions import read_predictions
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN, VAL
from training.tiny import table
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

pytestmark = pytest.mark.usefixtures("wide_context")

INPUTS = ["text + gaze", "text only", "gaze only"]
FOLDERS = ["text-gaze", "text-only", "gaze-only"]
SCORES = ["--metrics", "BLEU-4", "--tokenizer", "words", "--max-new-tokens", "3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seen people, with 4 and 3 training samples, and two unseen ones; everybody described the last scene."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    samples = []
    for number, viewer in enumerate(sample_viewers(rng, groups=4, orders_per_group=1, prefix="viewer")):
        splits = [TRAIN] * (4 - number) + [VAL, TEST] if number < 2 else [SUPPORT, SUPPORT, QUERY]
        for place, split in enumerate(splits):
            at = 9 if split in (TEST, QUERY) else place
            scene = sample_scene(np.random.default_rng(at))
            render(scene).save(folder / f"{at}.png")
            samples.append(attrs.evolve(viewer.sample(scene, rng, folder / f"{at}.png"), split=split))
    write_samples(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


def curve(config: Path, data: Path, out: Path, *more: str) -> int:
    arguments = ["curve", "training", "--config", str(config), "--out", str(out), "--dataset", "drawn", *SCORES]
    return main([*arguments, "--set", f"samples={data}", "--set", "stage1.evaluate_every=3", *more])


def counts(samples: list[Sample], split: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples:
        if sample.split == split:
            found[str(sample.subject)] = found.get(str(sample.subject), 0) + 1
    return found


def test_points_differ_in_their_training_samples_alone(config_file, data, tmp_path, capsys, monkeypatch):
    assert curve(config_file, data, tmp_path, "--counts", "2", "3") == 0
    everything = read_samples(data)
    for label, expected in (("2", [2, 2]), ("3", [3, 3]), ("all", [4, 3])):
        folder = tmp_path / f"{label}-samples"
        own = read_samples(folder / "samples.jsonl")
        assert list(counts(own, TRAIN).values()) == expected
        assert all(counts(own, split) == counts(everything, split) for split in (VAL, TEST, SUPPORT, QUERY))
        for stage, steps in (("stage-1", 6), ("stage-2", 4)):
            lines = [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]
            assert [line["step"] for line in lines] == list(range(1, steps + 1))
        predicted = [read_predictions(folder / name / "predictions.jsonl") for name in FOLDERS]
        assert [{row.system for row in rows} for rows in predicted] == [{name} for name in INPUTS]
        assert {row.dataset for rows in predicted for row in rows} == {"drawn, seen", "drawn, unseen"}
    for people in ("seen", "unseen"):
        report = json.loads((tmp_path / f"results/drawn-{people}-training-curve.json").read_text())
        rows = [f"{name}, {count}" for name in INPUTS for count in ("2 samples", "3 samples", "all samples")]
        assert list(report["results"]) == rows
        assert report["facts"]["trainings"] == "one at each point, stage 1 in 6 steps and stage 2 in 4"
        assert (tmp_path / f"results/drawn-{people}-training-curve.png").exists()

    # What is finished is not trained again, and a point can be added.
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained already")

    with monkeypatch.context() as patch:
        for name in ("train_stage1", "train_stage2", "soft_tokens"):
            patch.setattr(reproduce, name, fail)
        before = (tmp_path / "results/drawn-seen-training-curve.json").read_bytes()
        assert curve(config_file, data, tmp_path, "--counts", "2", "3") == 0
        assert (tmp_path / "results/drawn-seen-training-curve.json").read_bytes() == before
    capsys.readouterr()
    # Other settings are another curve.
    assert curve(config_file, data, tmp_path, "--counts", "2", "--set", "stage1.learning_rate=1e-5") == 2
    assert "(learning_rate was 0.0005, is 1e-05)" in capsys.readouterr().err


def test_a_point_of_other_samples_is_refused(config_file, data, tmp_path, capsys):
    (tmp_path / "3-samples").mkdir()
    (tmp_path / "3-samples/samples.jsonl").write_bytes(data.read_bytes())
    assert curve(config_file, data, tmp_path, "--counts", "3") == 2
    assert "3-samples/samples.jsonl: holds other samples than the configuration's" in capsys.readouterr().err
    assert (tmp_path / "3-samples/samples.jsonl").read_bytes() == data.read_bytes()


def test_the_point_of_all_samples_is_the_training_that_reproduce_runs(config_file, data, tmp_path):
    assert curve(config_file, data, tmp_path / "curve", "--counts", "3") == 0
    settings = ["--set", "stage1.evaluate_every=3"]
    arguments = ["reproduce", str(config_file), "--data", str(data.parent), "--out", str(tmp_path / "run"), *settings]
    assert main([*arguments, "--systems", "DEPER", *SCORES]) == 0
    ours, theirs = (
        [row.prediction for row in read_predictions(tmp_path / path / "predictions.jsonl")]
        for path in ("curve/all-samples/text-gaze", "run/DEPER")
    )
    assert ours == theirs


def test_the_first_training_samples_are_kept_and_all_others(data):
    samples = read_samples(data)
    assert first_training_samples(samples, None) == samples
    kept = first_training_samples(samples, 2)
    assert [s for s in kept if s.split != TRAIN] == [s for s in samples if s.split != TRAIN]
    for name in counts(samples, TRAIN):
        own = [s for s in samples if s.split == TRAIN and s.subject == name]
        assert [s for s in kept if s.split == TRAIN and s.subject == name] == own[:2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--counts", "4"], "counts: 4 is not from 1 to 3: nobody has more than 4 training samples"),
        ([], "counts: none of 25, 50, 100 is possible: nobody has more than 4 training samples"),
        (["--counts", "1", "--metrics", "SPICE"], "metrics: 'SPICE' is none of"),
        (["--counts", "1", "--set", "samples=nowhere.jsonl"], "nowhere.jsonl"),
        (["--counts", "1", "--set", "stage1.steps=none"], "stage1.steps"),
    ],
)
def test_what_cannot_be_a_curve_is_refused_before_training(config_file, data, tmp_path, capsys, more, message):
    assert curve(config_file, data, tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def tiny(folder: Path, *more: str) -> int:
    changes = [word for change in SMALL for word in ("--set", change)]
    places = ["--frozen", str(folder / "frozen"), "--out", str(folder / "curve")]
    return main(["curve", "tiny-training", *places, *changes, "--metrics", "BLEU-4", *more])


def test_the_tiny_world_is_not_made_for_points_that_cannot_be(tmp_path, capsys):
    assert tiny(tmp_path, "--counts", "9") == 2
    assert "counts: 9 is not from 1 to 2: nobody has more than 3 training samples" in capsys.readouterr().err
    assert not (tmp_path / "frozen").exists()


@pytest.mark.slow
def test_the_curve_in_the_tiny_world(tmp_path, monkeypatch):
    assert tiny(tmp_path) == 0
    points = ("1 sample", "2 samples", "all samples")
    for people in ("seen", "unseen"):
        report = json.loads((tmp_path / f"curve/results/tiny-{people}-training-curve.json").read_text())
        assert list(report["results"]) == [f"{name}, {n}" for name in INPUTS for n in points]
        assert list(report["results"]["text only, 2 samples"]) == ["BLEU-4", "first object", "pairwise order"]

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained already")

    monkeypatch.setattr(table, "train", fail)
    assert tiny(tmp_path) == 0
