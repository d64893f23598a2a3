"""What a run survives: kills, signals, torn logs."""

import json
import os
import random
import signal
import time
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch import Tensor

from tests.support import processes
from tests.support.regression import LONG, SELECTING, SHORT, Regression, train_regression
from tests.support.training_run import assert_same_end, metadata_of
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import CHECKPOINT
from training.loop.logs import LOG
from training.loop.signals import Interrupted
from training.loop.train import train


def training_in(folder: Path, pause: float) -> AbstractContextManager[BaseProcess]:
    return processes.running(train_regression, folder, pause, output=folder.with_suffix(".txt"))


def finish(folder: Path) -> None:
    with training_in(folder, pause=0) as process:
        process.join()
        assert process.exitcode == 0


def wait_for_step(process: BaseProcess, folder: Path, step: int) -> None:
    for _ in range(6000):
        if process.exitcode is not None:
            raise AssertionError(f"the run ended by itself, with {process.exitcode}")
        lines = (folder / LOG).read_text().count("\n") if (folder / LOG).exists() else 0
        if lines >= step:
            return
        time.sleep(0.005)
    raise AssertionError("the run does not get on")


def test_killed_at_any_moment_a_run_goes_on_to_the_same_end_bit_by_bit(tmp_path):
    train(Regression(), LONG, 0, tmp_path / "whole")
    parts = tmp_path / "parts"
    rng = random.Random(os.getpid())
    with training_in(parts, pause=0.002) as process:
        wait_for_step(process, parts, rng.randrange(1, 50))
        time.sleep(rng.random() * 0.02)  # anywhere within a step, a log line or a checkpoint
        process.kill()
    finish(parts)
    assert_same_end(tmp_path / "whole", parts)
    assert not list(parts.glob("*.tmp"))


@pytest.mark.slow
def test_killed_many_times(tmp_path):
    train(Regression(), LONG, 0, tmp_path / "whole")
    rng = random.Random(0)
    for attempt in range(5):
        parts, step = tmp_path / f"{attempt}", 0
        while step < 50:
            with training_in(parts, pause=0.001) as process:
                wait_for_step(process, parts, step + 1)
                time.sleep(rng.random() * 0.2)
                process.kill()
            step = len(logs.read(parts / LOG)) + 10
        finish(parts)
        assert_same_end(tmp_path / "whole", parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_says_how_to_go_on(tmp_path, number):
    train(Regression(), LONG, 0, tmp_path / "whole")
    parts = tmp_path / "parts"

    class Signalled(Regression):
        def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
            if (step, micro_batch) == (9, 0):
                os.kill(os.getpid(), number)
            return super().losses(step, micro_batch)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"stopped by {number.name} after step 10 of 60; saved in"):
        train(Signalled(), LONG, 0, parts)
    assert signal.getsignal(number) is before
    assert json.loads(metadata_of(parts / CHECKPOINT)["step"]) == 10
    train(Regression(), LONG, 0, parts)
    assert_same_end(tmp_path / "whole", parts)


def test_a_signal_during_an_evaluation_waits_for_no_further_step(tmp_path):
    def evaluate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0, "accuracy": 0.0}

    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 5 of 12"):
        train(Regression(), SELECTING, 0, tmp_path, evaluate=evaluate)
    assert [line["step"] for line in logs.read(tmp_path / logs.EVALUATIONS)] == [5]
    assert json.loads(metadata_of(tmp_path / CHECKPOINT)["step"]) == 5


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path):
    class Impatient(Regression):
        def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            return super().losses(step, micro_batch)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(Impatient(), LONG, 0, tmp_path)
    assert not isinstance(caught.value, Interrupted)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_log_that_was_torn_by_a_kill_is_read_up_to_there(tmp_path):
    train(Regression(), SHORT, 0, tmp_path / "whole")
    first = Regression()
    first.stop_at = 9
    with pytest.raises(KeyboardInterrupt):
        train(first, SHORT, 0, tmp_path / "parts")
    with (tmp_path / "parts" / LOG).open("a") as log:
        log.write('{"step": 10, "lo')
    train(Regression(), SHORT, 0, tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_log_that_is_broken_in_the_middle_is_an_error_with_its_line(tmp_path):
    train(Regression(), SHORT, 0, tmp_path)
    path = tmp_path / LOG
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "nonsense", *lines[3:]]))
    with pytest.raises(TrainingError, match=r"log\.jsonl:4: no line of a log"):
        logs.read(path)
