"""Validation: which step is kept, and what is refused before hours of training."""

import json
import shutil

import attrs
import pytest
from safetensors import safe_open

from tests.support.training_run import (
    PEOPLE,
    SCENES,
    TRAINING_SCENES,
    log_of,
    read,
)
from training.__main__ import main
from training.config import ConfigError
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import BEST, load_state
from training.runs.frozen_parts import FrozenParts
from training.runs.samples import training_samples, validation_samples
from training.runs.train_stages import train_stage1
from training.stages import stage2
from training.stages.stage1 import Stage1Task

EVALUATED = ["--set", "stage1.evaluate_every=4", "--set", "stage2.evaluate_every=3"]
EVALUATED += ["--set", "stage2.caption_samples=2", "--set", "stage2.caption_tokens=6"]


def test_validation_chooses_a_step_and_leaves_the_curve_alone(config_file, tmp_path, capsys):
    for stage, steps, figures in (
        ("stage1", [4, 6], ["loss", "contrast", "trajectory", "subject", "accuracy"]),
        ("stage2", [3, 4], ["loss", *stage2.MEANS, "bleu1", "bleu4", "cider", "rouge_l"]),
    ):
        name = stage.replace("stage", "stage-")
        for folder, changes in (("plain", []), ("evaluated", EVALUATED)):
            assert main([stage, "--config", str(config_file), "--out", str(tmp_path / folder), *changes]) == 0
        assert f"{PEOPLE * (SCENES - TRAINING_SCENES)} for validation" in capsys.readouterr().out
        evaluations = logs.read(tmp_path / "evaluated" / name / logs.EVALUATIONS)
        assert [line["step"] for line in evaluations] == steps
        assert list(evaluations[0]) == ["step", *figures, "score", "seconds"]
        best = max(evaluations, key=lambda line: line["score"])
        with safe_open(tmp_path / "evaluated" / name / BEST, "pt") as file:
            assert file.metadata()["step"] == str(best["step"])
        if stage == "stage1":  # stage 2 then stands on the best weights of stage 1, not on the last
            assert log_of(tmp_path / "evaluated" / name) == log_of(tmp_path / "plain" / name)


def test_validation_losses_are_means_over_all_of_it(config_file, tmp_path):
    config = read(config_file, "stage1.evaluate_every=6", "network.dropout=0.0")
    train_stage1(config, tmp_path)
    parts = FrozenParts.load(config)
    samples = training_samples(config.samples)
    held_out = validation_samples(config.samples, {sample.subject for sample in samples})
    data = parts.encode([*samples, *held_out])
    for batch_size in (1, 4, 50):
        settings = attrs.evolve(config.stage1, batch_size=batch_size)
        task = Stage1Task(config.network, settings, data, parts.text_table, 0, held_out=len(held_out))
        load_state(tmp_path / "stage-1", task.state)
        expected = logs.read(tmp_path / "stage-1" / logs.EVALUATIONS)[-1]
        assert task.evaluate() == pytest.approx({key: expected[key] for key in task.evaluate()}, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"split": "train"}, "no sample is of 'val', which evaluate_every needs"),
        (
            lambda record: record | ({"subject": "zoe"} if record["split"] == "val" else {}),
            r"people who are not in 'train' \(zoe\)",
        ),
    ],
)
def test_what_cannot_be_validated_is_said_before_training(config_file, parts, tmp_path, change, message):
    source = parts / "samples/samples.jsonl"
    path = source.with_name(f"{tmp_path.name}.jsonl")
    records = [change(json.loads(line)) for line in source.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(TrainingError, match=message):
        train_stage1(read(config_file, f"samples={path}", "stage1.evaluate_every=2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


METEOR = ["--set", "stage2.selection={meteor = 2.0, loss = -1.0}"]


def test_without_java_meteor_is_missed_before_training(config_file, tmp_path, monkeypatch, capsys):
    run = ["--config", str(config_file), "--out", str(tmp_path)]
    assert main(["stage1", *run, "--set", "stage1.steps=1"]) == 0
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["stage2", *run, *EVALUATED, *METEOR, "--set", "stage1.steps=1"]) == 2
    assert "selection: meteor runs in Java, and there is no `java` on PATH" in capsys.readouterr().err
    assert not (tmp_path / "stage-2").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR runs in Java")
def test_meteor_may_choose_the_step(config_file, tmp_path):
    for stage in ("stage1", "stage2"):
        assert main([stage, "--config", str(config_file), "--out", str(tmp_path), *EVALUATED, *METEOR]) == 0
    for figures in logs.read(tmp_path / "stage-2" / logs.EVALUATIONS):
        assert 0 <= figures["meteor"] <= 1
        assert figures["score"] == pytest.approx(2 * figures["meteor"] - figures["loss"], abs=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stage1.selection={loss=-1.0, cider=1.0}"], r"selection: unknown figure cider \(known: accuracy, loss"),
        (["stage1.selection={}"], "selection: needs at least one figure"),
        (["stage2.evaluate_every=1", "stage2.caption_samples=0"], "needs caption_samples > 0; or select by losses"),
        (["stage1.keep_checkpoints=0"], "keep_checkpoints: must be > 0"),
    ],
)
def test_a_selection_that_cannot_be_made_is_said_by_the_configuration(config_file, changes, message):
    with pytest.raises(ConfigError, match=message):
        read(config_file, *changes)
