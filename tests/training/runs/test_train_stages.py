"""Both stages from a configuration and files: small random models in transformers' own layout, drawn samples."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import attrs
import pytest

from tests.support.paths import CONFIGS
from tests.support.processes import running_python
from tests.support.training_run import (
    PEOPLE,
    TRAINING_SCENES,
    assert_same_end,
    log_of,
    read,
)
from training.__main__ import main
from training.config import ConfigError
from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.loop import logs
from training.loop.logs import LOG
from training.loop.train import NOT_FINITE
from training.runs.frozen_parts import FrozenParts
from training.runs.samples import training_samples
from training.runs.train_stages import train_stage1, train_stage2
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task


def test_both_stages_run_from_files_and_go_on_exactly_after_an_interruption(config_file, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for stage, task, steps in (("stage1", Stage1Task, 6), ("stage2", Stage2Task, 4)):
        assert main([stage, "--config", str(config_file), "--out", str(whole)]) == 0
        assert f"{PEOPLE * TRAINING_SCENES} samples of {TRAINING_SCENES} images by {PEOPLE} people" in (
            capsys.readouterr().out
        )
        with monkeypatch.context() as patch:
            losses = task.losses

            def stop(self, step, micro_batch, losses=losses):
                if step == 3:
                    raise KeyboardInterrupt
                return losses(self, step, micro_batch)

            patch.setattr(task, "losses", stop)
            assert main([stage, "--config", str(config_file), "--out", str(parts)]) == 130
        assert main([stage, "--config", str(config_file), "--out", str(parts)]) == 0
        name = stage.replace("stage", "stage-")
        assert [line["step"] for line in log_of(whole / name)] == list(range(1, steps + 1))
        assert_same_end(whole / name, parts / name)


def send(arguments: list[str], log: Path, number: int, rng: random.Random) -> tuple[int, str]:
    """Starts `python -m training` and sends it a signal some steps later, at any moment of one; its code and words."""
    with running_python("-m", "training", *arguments) as process:
        lines = len(logs.read(log)) + rng.randrange(1, 8)
        while process.poll() is None and len(log.read_bytes().splitlines() if log.exists() else ()) < lines:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_the_command_goes_on_bit_by_bit_after_kill_9_and_ctrl_c(config_file, tmp_path, kills):
    steps = 25 + 15 * kills
    changes = [f"--set=stage1.{change}" for change in (f"steps={steps}", "checkpoint_every=3", "evaluate_every=9")]
    arguments = ["stage1", "--config", str(config_file), *changes, "--out"]
    rng, log = random.Random(os.getpid()), tmp_path / "parts/stage-1" / LOG
    for _ in range(kills):
        assert send([*arguments, str(tmp_path / "parts")], log, signal.SIGKILL, rng)[0] == -signal.SIGKILL
    code, told = send([*arguments, str(tmp_path / "parts")], log, signal.SIGINT, rng)
    assert code == 130, told
    step = len(logs.read(log))
    assert f"stage 1: stopped by SIGINT after step {step} of {steps}; saved in" in told
    assert 2 <= step < steps
    for folder in ("parts", "whole"):
        assert main([*arguments, str(tmp_path / folder)]) == 0
    assert_same_end(tmp_path / "whole/stage-1", tmp_path / "parts/stage-1")
    assert not list((tmp_path / "parts").rglob("*.tmp"))


def test_a_loss_that_is_not_finite_names_the_samples_of_its_step(config_file, parts, tmp_path):
    with pytest.raises(TrainingError, match=r"not-finite\.json") as caught:
        train_stage1(read(config_file, "stage1.learning_rate=1e30"), tmp_path)
    written = json.loads((tmp_path / "stage-1" / NOT_FINITE).read_text())
    assert f"step {written['step']}: the loss or its gradient is not finite" in str(caught.value)
    assert len(written["samples"]) == 4 * 2  # of all parts
    lines = (parts / "samples/samples.jsonl").read_text().splitlines()
    for sample in written["samples"]:
        file, line = sample["source"].rsplit(":", 1)
        record = json.loads(lines[int(line) - 1])
        assert Path(file).name == "samples.jsonl"
        assert sample["subject"] == record["subject"]
        assert Path(sample["image"]).name == Path(record["image"]).name


def test_the_same_seeds_draw_the_same_batches_whatever_the_processes(config_file, tmp_path):
    config = read(config_file)
    parts = FrozenParts.load(config)
    data = parts.encode(training_samples(config.samples))
    whole = attrs.evolve(config.stage1, batch_size=6)
    half = attrs.evolve(config.stage1, batch_size=3)
    alone = Stage1Task(config.network, whole, data, parts.text_table, 0)
    together = Stage1Task(config.network, half, data, parts.text_table, 0, group=ProcessGroup(1, 2))
    assert [alone.rows(step) for step in range(5)] == [together.rows(step) for step in range(5)]


def test_samples_without_splits_are_all_for_training(parts, tmp_path):
    source = parts / "samples/samples.jsonl"
    records = [json.loads(line) for line in source.read_text().splitlines()]
    for record in records:
        record["image"] = str(source.parent / record["image"])
        del record["split"]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert len(training_samples(str(path))) == len(records)
    path.write_text("\n".join(json.dumps(record | {"split": "test"}) for record in records))
    with pytest.raises(TrainingError, match=r"no sample is of the split 'train'; there are 'test' \(18\)"):
        training_samples(str(path))


def test_stage_2_needs_a_finished_stage_1_and_settings(config_file, tmp_path, capsys):
    arguments = ["stage2", "--config", str(config_file), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "holds no finished stage 1 of 6 steps" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="stage2: missing"):
        train_stage2(attrs.evolve(read(config_file), stage2=None), tmp_path)


def test_a_training_on_other_samples_is_neither_resumed_nor_taken_as_done(config_file, tmp_path, capsys):
    source = Path(read(config_file).samples)
    moved = tmp_path / "moved"
    shutil.copytree(source.parent, moved)
    samples = moved / source.name
    arguments = ["--config", str(config_file), "--out", str(tmp_path / "run"), "--set", f"samples={samples}"]
    assert main(["stage1", "--config", str(config_file), "--out", str(tmp_path / "run")]) == 0
    assert main(["stage1", *arguments]) == 0  # the same samples at another place
    capsys.readouterr()

    first, *others = samples.read_text().splitlines()
    changed = json.dumps(json.loads(first) | {"description": "Something else."})
    samples.write_text("\n".join([changed, *others]))
    for stage in ("stage1", "stage2"):
        assert main([stage, *arguments]) == 2
        assert "made with another configuration, seed or samples (samples was '" in capsys.readouterr().err


def test_an_unknown_key_is_named(config_file, tmp_path, capsys):
    assert main(["stage1", "--config", str(config_file), "--out", str(tmp_path), "--set", "stage1.stepz=3"]) == 2
    assert "unknown key stepz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["deper", "scene_description"])
def test_the_configurations_that_ship_are_whole(name):
    config = read(CONFIGS / f"{name}.toml", "samples=some.jsonl")
    with pytest.raises(ConfigError, match="samples"):
        read(CONFIGS / f"{name}.toml")
    if name == "deper":
        assert attrs.asdict(config.network) == attrs.asdict(type(config.network)())
        assert (config.stage1.batch_size, config.stage1.accumulation, config.stage1.learning_rate) == (64, 4, 5e-4)
        assert config.stage2 is not None
