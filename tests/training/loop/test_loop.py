"""The training loop: resuming, checkpoints, logs; and configurations."""

import json
import os
import random
import signal
import sys
import time
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.support import killed_run, processes
from tests.support.paths import CONFIGS
from training.config import ASIDE, ConfigError, OptimisationConfig, Stage1Config, load_config
from training.loop import logs, loop
from training.tiny.config import TinyConfig


class Regression:
    """A small noisy task with dropout, so that resuming is only exact when all randomness is."""

    name = "regression"

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.state = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.stop_at: int | None = None
        self.broken_at: int | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.state.parameters()), "lr": 1e-2}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        rng = loop.step_generator(5, step, part)
        x = torch.from_numpy(rng.normal(size=(8, 4))).float()
        loss = (self.state(x) - x.sum(-1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if step == self.broken_at else loss}


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / loop.LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


CONFIG = OptimisationConfig(steps=12, accumulation=2, checkpoint_every=4, log_every=1)


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_an_interrupted_run_goes_on_exactly(tmp_path, stop):
    whole = Regression()
    loop.run(whole, CONFIG, 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        loop.run(first, CONFIG, 0, tmp_path / "parts")
    second = Regression(seed=99)  # other weights: all that counts must come from the checkpoint
    if stop >= CONFIG.checkpoint_every:
        loop.run(second, CONFIG, 0, tmp_path / "parts")
        assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
        for one, other in zip(whole.state.parameters(), second.state.parameters(), strict=True):
            assert torch.equal(one, other)
    else:
        assert not (tmp_path / "parts" / loop.CHECKPOINT).exists()


def test_a_finished_run_is_not_run_again(tmp_path):
    task = Regression()
    loop.run(task, CONFIG, 0, tmp_path)
    assert loop.is_finished(tmp_path, CONFIG.steps)
    assert not loop.is_finished(tmp_path, CONFIG.steps + 1)
    again = Regression(seed=1)
    again.stop_at = 0
    loop.run(again, CONFIG, 0, tmp_path)
    assert len(log_of(tmp_path)) == CONFIG.steps
    assert torch.equal(task.state[0].weight, again.state[0].weight)


def test_training_lowers_the_loss(tmp_path):
    loop.run(Regression(), attrs.evolve(CONFIG, steps=150), 0, tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    task = Regression()
    task.broken_at = 6
    with pytest.raises(loop.TrainingError, match=r"step 6: the loss or its gradient is not finite"):
        loop.run(task, CONFIG, 0, tmp_path)
    other = Regression(seed=3)
    loop.load_state(tmp_path, other.state)
    assert not loop.is_finished(tmp_path, CONFIG.steps)
    assert all(torch.isfinite(parameter).all() for parameter in other.state.parameters())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="another configuration or seed"):
        loop.run(Regression(), attrs.evolve(CONFIG, clip=2.0), 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="another configuration or seed"):
        loop.run(Regression(), CONFIG, 1, tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, kept):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    path = tmp_path / loop.CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(loop.TrainingError, match="damaged checkpoint"):
        loop.run(Regression(), CONFIG, 0, tmp_path)


def test_loading_from_an_empty_folder_or_into_another_network_is_an_error(tmp_path):
    with pytest.raises(loop.TrainingError, match="no checkpoint there"):
        loop.load_state(tmp_path, Regression().state)
    loop.run(Regression(), CONFIG, 0, tmp_path)
    with pytest.raises(loop.TrainingError, match="does not fit the network"):
        loop.load_state(tmp_path, nn.Linear(3, 3))
    with pytest.raises(loop.TrainingError, match="does not fit the network"):
        loop.load_state(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)))


def test_the_learning_rate_climbs_and_falls():
    config = OptimisationConfig(steps=100, warmup=0.1, final_rate=0.1)
    rates = [loop.rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


# --- what a run survives


def training_in(folder: Path, pause: float) -> AbstractContextManager[BaseProcess]:
    return processes.running(killed_run.train, folder, pause, output=folder.with_suffix(".txt"))


def finish(folder: Path) -> None:
    with training_in(folder, pause=0) as process:
        process.join()
        assert process.exitcode == 0


def wait_for_step(process: BaseProcess, folder: Path, step: int) -> None:
    for _ in range(6000):
        if process.exitcode is not None:
            raise AssertionError(f"the run ended by itself, with {process.exitcode}")
        lines = (folder / loop.LOG).read_text().count("\n") if (folder / loop.LOG).exists() else 0
        if lines >= step:
            return
        time.sleep(0.005)
    raise AssertionError("the run does not get on")


def same(one: Path, other: Path) -> None:
    assert log_of(one) == log_of(other)
    first, second = (load_file(folder / loop.CHECKPOINT) for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_killed_at_any_moment_a_run_goes_on_to_the_same_end_bit_by_bit(tmp_path):
    loop.run(killed_run.Regression(), killed_run.CONFIG, 0, tmp_path / "whole")
    parts = tmp_path / "parts"
    rng = random.Random(os.getpid())
    with training_in(parts, pause=0.002) as process:
        wait_for_step(process, parts, rng.randrange(1, 50))
        time.sleep(rng.random() * 0.02)  # anywhere within a step, a log line or a checkpoint
        process.kill()
    finish(parts)
    same(tmp_path / "whole", parts)
    assert not list(parts.glob("*.tmp"))


@pytest.mark.slow
def test_killed_many_times(tmp_path):
    loop.run(killed_run.Regression(), killed_run.CONFIG, 0, tmp_path / "whole")
    rng = random.Random(0)
    for attempt in range(5):
        parts, step = tmp_path / f"{attempt}", 0
        while step < 50:
            with training_in(parts, pause=0.001) as process:
                wait_for_step(process, parts, step + 1)
                time.sleep(rng.random() * 0.2)
                process.kill()
            step = len(logs.read(parts / loop.LOG)) + 10
        finish(parts)
        same(tmp_path / "whole", parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_says_how_to_go_on(tmp_path, number):
    loop.run(killed_run.Regression(), killed_run.CONFIG, 0, tmp_path / "whole")
    parts = tmp_path / "parts"

    class Signalled(killed_run.Regression):
        def losses(self, step: int, part: int) -> dict[str, Tensor]:
            if (step, part) == (9, 0):
                os.kill(os.getpid(), number)
            return super().losses(step, part)

    before = signal.getsignal(number)
    with pytest.raises(loop.Interrupted, match=f"stopped by {number.name} after step 10 of 60; saved in"):
        loop.run(Signalled(), killed_run.CONFIG, 0, parts)
    assert signal.getsignal(number) is before
    assert json.loads(metadata_of(parts / loop.CHECKPOINT)["step"]) == 10
    loop.run(killed_run.Regression(), killed_run.CONFIG, 0, parts)
    same(tmp_path / "whole", parts)


def test_a_signal_during_an_evaluation_waits_for_no_further_step(tmp_path):
    def evaluate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0, "accuracy": 0.0}

    with pytest.raises(loop.Interrupted, match="stopped by SIGTERM after step 5 of 12"):
        loop.run(Regression(), SELECTING, 0, tmp_path, evaluate=evaluate)
    assert [line["step"] for line in logs.read(tmp_path / logs.EVALUATIONS)] == [5]
    assert json.loads(metadata_of(tmp_path / loop.CHECKPOINT)["step"]) == 5


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path):
    class Impatient(killed_run.Regression):
        def losses(self, step: int, part: int) -> dict[str, Tensor]:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            return super().losses(step, part)

    with pytest.raises(KeyboardInterrupt) as caught:
        loop.run(Impatient(), killed_run.CONFIG, 0, tmp_path)
    assert not isinstance(caught.value, loop.Interrupted)
    assert not (tmp_path / loop.CHECKPOINT).exists()


def test_a_log_that_was_torn_by_a_kill_is_read_up_to_there(tmp_path):
    loop.run(Regression(), CONFIG, 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = 9
    with pytest.raises(KeyboardInterrupt):
        loop.run(first, CONFIG, 0, tmp_path / "parts")
    with (tmp_path / "parts" / loop.LOG).open("a") as log:
        log.write('{"step": 10, "lo')
    loop.run(Regression(), CONFIG, 0, tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_log_that_is_broken_in_the_middle_is_an_error_with_its_line(tmp_path):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    path = tmp_path / loop.LOG
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "nonsense", *lines[3:]]))
    with pytest.raises(loop.TrainingError, match=r"log\.jsonl:4: no line of a log"):
        logs.read(path)


# --- which checkpoints stay


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(("keep", "expected"), [(1, []), (2, [8, 12]), (9, [4, 8, 12])])
def test_the_last_few_checkpoints_stay(tmp_path, keep, expected):
    loop.run(Regression(), attrs.evolve(CONFIG, keep_checkpoints=keep), 0, tmp_path)
    kept = sorted(tmp_path.glob("checkpoint-*.safetensors"))
    assert [int(metadata_of(path)["step"]) for path in kept] == expected
    assert [path.name for path in kept] == [f"checkpoint-{step:08d}.safetensors" for step in expected]
    if kept:
        assert kept[-1].read_bytes() == (tmp_path / loop.CHECKPOINT).read_bytes()


def test_a_run_goes_back_to_an_older_checkpoint_if_the_newest_is_damaged(tmp_path):
    config = attrs.evolve(CONFIG, keep_checkpoints=2)
    loop.run(Regression(), config, 0, tmp_path / "whole")
    loop.run(Regression(), config, 0, tmp_path / "other")
    newest, older = tmp_path / "other" / loop.CHECKPOINT, tmp_path / "other/checkpoint-00000008.safetensors"
    damaged = newest.read_bytes()[:50]
    newest.unlink()  # a link to the same bytes stands beside it
    newest.write_bytes(damaged)
    with pytest.raises(loop.TrainingError, match=r"copy an older one over it \(checkpoint-00000008"):
        loop.run(Regression(), config, 0, tmp_path / "other")
    newest.write_bytes(older.read_bytes())
    loop.run(Regression(), config, 0, tmp_path / "other")
    same(tmp_path / "whole", tmp_path / "other")


def test_a_newest_checkpoint_that_is_gone_does_not_take_the_older_ones_with_it(tmp_path):
    config = attrs.evolve(CONFIG, keep_checkpoints=2)
    loop.run(Regression(), config, 0, tmp_path)
    (tmp_path / loop.CHECKPOINT).unlink()
    with pytest.raises(loop.TrainingError, match=r"gone, and older ones stand beside it \(checkpoint-00000008"):
        loop.run(Regression(), config, 0, tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*.safetensors"))) == 2


def test_what_does_not_shape_the_curve_may_change(tmp_path):
    loop.run(Regression(), attrs.evolve(CONFIG, checkpoint_every=3), 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        loop.run(first, CONFIG, 0, tmp_path / "parts")
    other = attrs.evolve(CONFIG, checkpoint_every=5, keep_checkpoints=2)
    loop.run(Regression(), other, 0, tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")


def test_another_configuration_is_told_setting_by_setting(tmp_path):
    loop.run(Regression(), CONFIG, 0, tmp_path)
    with pytest.raises(loop.TrainingError, match=r"\(clip was 1.0, is 2.0, seed was 0, is 1\)"):
        loop.run(Regression(), attrs.evolve(CONFIG, clip=2.0), 1, tmp_path)


@attrs.frozen(kw_only=True)
class Selecting(OptimisationConfig):
    selection: dict[str, float] = attrs.field(factory=lambda: {"loss": -1.0, "accuracy": 0.5}, metadata=ASIDE)


SELECTING = Selecting(steps=12, evaluate_every=5, checkpoint_every=4)


def test_the_best_evaluated_step_is_kept_and_loaded(tmp_path):
    task, weights = Regression(), []

    def evaluate() -> dict[str, float]:
        weights.append(task.state[0].weight.detach().clone())
        return {"loss": (3.0, 1.0, 2.0)[len(weights) - 1], "accuracy": 0.5}

    loop.run(task, SELECTING, 0, tmp_path, evaluate=evaluate)
    evaluations = logs.read(tmp_path / logs.EVALUATIONS)
    assert [(line["step"], line["score"]) for line in evaluations] == [(5, -2.75), (10, -0.75), (12, -1.75)]
    assert metadata_of(tmp_path / loop.BEST)["step"] == "10"
    other = Regression(seed=4)
    loop.load_state(tmp_path, other.state)
    assert torch.equal(other.state[0].weight, weights[1])
    assert not torch.equal(task.state[0].weight, weights[1])
    loop.run(other, SELECTING, 0, tmp_path)  # finished: what is loaded is the last step
    assert torch.equal(other.state[0].weight, task.state[0].weight)


def test_a_fresh_start_forgets_an_older_best(tmp_path):
    loop.run(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: {"loss": 0.0, "accuracy": 1.0})
    (tmp_path / loop.CHECKPOINT).unlink()
    loop.run(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: {"loss": 9.0, "accuracy": 0.0})
    assert float(metadata_of(tmp_path / loop.BEST)["score"]) == -9.0


def test_evaluating_changes_no_step(tmp_path):
    loop.run(Regression(), attrs.evolve(CONFIG, accumulation=1), 0, tmp_path / "without")

    def evaluate() -> dict[str, float]:
        torch.rand(7)
        return {"loss": 1.0, "accuracy": 0.0}

    loop.run(Regression(), attrs.evolve(SELECTING, log_every=1), 0, tmp_path / "with", evaluate=evaluate)
    same(tmp_path / "without", tmp_path / "with")


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"loss": 1.0}, "selection: accuracy is no figure of this evaluation, which has loss"),
        ({"loss": float("nan"), "accuracy": 0.0}, "step 5: the evaluation is not finite"),
    ],
)
def test_an_evaluation_that_cannot_be_weighed_is_an_error(tmp_path, figures, message):
    with pytest.raises(loop.TrainingError, match=message):
        loop.run(Regression(), SELECTING, 0, tmp_path, evaluate=lambda: figures)


# --- what a run tells


def test_a_loss_that_is_not_finite_names_its_samples_in_a_file(tmp_path):
    task = Regression()
    task.broken_at = 6
    samples = [{"source": "ana.jsonl:3", "subject": "ana", "image": "street.jpg"}]
    with pytest.raises(loop.TrainingError, match=r"listed in .*not-finite\.json") as caught:
        loop.run(task, CONFIG, 0, tmp_path, samples_of=lambda step: [{**sample, "step": step} for sample in samples])
    assert str(tmp_path / loop.CHECKPOINT) in str(caught.value)
    written = json.loads((tmp_path / loop.NOT_FINITE).read_text())
    assert written["step"] == 6
    assert written["samples"] == [{**samples[0], "step": 6}]
    assert written["losses"]["loss"] == "nan"


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = attrs.evolve(SELECTING, tensorboard=True, log_every=1)
    loop.run(Regression(), config, 0, tmp_path, evaluate=lambda: {"loss": 1.0, "accuracy": 0.0})
    events = accumulator.EventAccumulator(str(tmp_path / logs.TENSORBOARD)).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert logged == [(line["step"], pytest.approx(line["loss"])) for line in log_of(tmp_path)]
    assert [event.step for event in events.Scalars("val/score")] == [5, 10, 12]


def train_and_tell_imports(folder: Path) -> None:
    loop.run(killed_run.Regression(), killed_run.CONFIG, 0, folder)
    found = [name for name in sys.modules if name.startswith(("tensorboard", "matplotlib"))]
    sys.stdout.write(f"\nimported: {found}\n")


def test_without_the_switch_tensorboard_is_not_imported(tmp_path):
    (printed,) = processes.run_ranks(train_and_tell_imports, tmp_path, folder=tmp_path / "printed", world_size=1)
    assert "\nimported: []\n" in printed
    assert "samples/s" in printed  # the bar tells rates


# --- configurations


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_every_config_in_the_repository_can_be_read():
    assert load_config(TinyConfig, CONFIGS / "tiny.toml").network.subject_embedding_size == 384


def test_changes_are_applied_in_order(tmp_path):
    path = write(tmp_path, "steps = 5\nbatch_size = 2\n")
    config = load_config(Stage1Config, path, ["steps=7", "steps=9", "learning_rate=1e-4"])
    assert (config.steps, config.batch_size, config.learning_rate) == (9, 2, 1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 5\nstep = 3\n", r"unknown key step \(known: steps, "),
        ("batch_size = 5\n", r"missing key 'steps'"),
        ("steps = '5'\n", r"expected int, got '5'.*steps"),
        ("steps = true\n", r"expected int, got True"),
        ("steps = 5.5\n", r"expected int, got 5.5"),
        ("steps = 0\n", r"steps: must be > 0, got 0"),
        ("steps = 5\nmodality_dropout = 0.5\n", r"modality_dropout: must be in \[0, 0.5\)"),
        ("steps = 5\nclip = nan\n", r"clip: must be > 0, got nan"),
        ("steps = = 5\n", r"cannot be read as TOML"),
    ],
)
def test_a_wrong_config_is_an_error_that_names_file_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Stage1Config, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [("steps", "expected key=value"), ("=3", "expected key=value"), ("stage1.stepps=3", "unknown key stepps")],
)
def test_a_wrong_change_is_an_error(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TinyConfig, CONFIGS / "tiny.toml", [change])


def test_a_missing_config_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(TinyConfig, tmp_path / "none.toml")
