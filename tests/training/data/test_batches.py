"""Batches made ahead by workers: the same bits, the same errors, and nobody left behind."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pydeper.errors import InvalidImageError
from tests.support.file_samples import CONFIG, Backbone, file_samples
from tests.support.training_run import log_of
from training.__main__ import main
from training.config import ConfigError, Stage1Config, Stage2Config, TrainingConfig, load_config
from training.data.batches import Batch, Batches, Stage1Batches, Stage2Batches
from training.data.encoded import EncodedDataset, encode_dataset
from training.data.loader import BatchLoader
from training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT
from training.network.image_encoder import ImageEncoder
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # a machine with one core

CPU = torch.device("cpu")
SAMPLES = 12


@pytest.fixture(autouse=True)
def nobody_stays():
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def data(tokenizer: Tokenizer, tmp_path: Path) -> EncodedDataset:
    samples = file_samples(tmp_path, SAMPLES)
    return encode_dataset(samples, tokenizer, ImageEncoder(Backbone()), CONFIG, feature_cache=tmp_path / "features")


def stage1_batches(data: EncodedDataset, workers: int, group: ProcessGroup = SINGLE_PROCESS) -> Stage1Batches:
    config = Stage1Config(
        steps=4, batch_size=3, accumulation=2, bucket=2, modality_dropout=0.3, workers=workers, prefetch=1
    )
    return Stage1Batches(data=data, config=config, seed=7, group=group, count=SAMPLES)


def stage2_batches(data: EncodedDataset, workers: int, group: ProcessGroup = SINGLE_PROCESS) -> Stage2Batches:
    config = Stage2Config(steps=4, batch_size=3, accumulation=2, bucket=2, modality_dropout=0.3, workers=workers)
    tokens = [len(text or "") for text in data.descriptions]
    return Stage2Batches(
        data=data, config=config, seed=7, group=group, count=SAMPLES, described=[np.arange(SAMPLES)], tokens=tokens
    )


def assert_equal(one: Batch, other: Batch) -> None:
    for name, tensor in one.inputs._asdict().items():
        assert torch.equal(tensor, getattr(other.inputs, name)), name
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.targets, other.targets)
    assert (one.counts, one.totals) == (other.counts, other.totals)


@pytest.mark.parametrize("made", [stage1_batches, stage2_batches])
def test_workers_make_the_same_batches_from_anywhere_and_no_signal_stops_them(data, made):
    group = ProcessGroup(rank=1, world_size=2)
    batches: Batches = made(data, workers=2, group=group)
    alone: Batches = made(data, workers=0, group=group)
    with BatchLoader(batches, batches.config) as loader:
        torch.manual_seed(0)
        for number in (3, 4):
            assert_equal(loader.take(number, CPU), alone[number])
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:  # as a terminal and some launchers do
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGTERM)
        for number in (5, 6, 7):  # the last
            assert_equal(loader.take(number, CPU), alone[number])
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))


def test_what_no_worker_can_make_is_made_or_told_as_without_workers(data, tmp_path):
    batches, alone = stage1_batches(data, workers=2), stage1_batches(data, workers=0)
    expected = [alone[number] for number in range(8)]
    numbers = {int(data.image_of[row]) for row in expected[1].rows}
    files = {number: next(tmp_path.glob(f"features/*/??/{data.images.key(number)}.safetensors")) for number in numbers}
    for file in files.values():
        file.unlink()
    with BatchLoader(batches, batches.config) as loader:
        for number in range(4):
            assert_equal(loader.take(number, CPU), expected[number])
        assert all(file.exists() for file in files.values())
        row = int(expected[6].rows[0])
        files_of_row = tmp_path.glob(f"features/*/??/{data.images.key(int(data.image_of[row]))}.safetensors")
        next(files_of_row).unlink()
        Path(str(data.origins[row].image)).write_bytes(b"no image")
        messages = []
        for take in (lambda number: loader.take(number, CPU), alone.__getitem__):
            with pytest.raises(InvalidImageError) as caught:
                [take(number) for number in range(4, 8)]
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        assert data.origins[row].source in messages[0]


# PyTorch's handler of SIGCHLD raises wherever Python is. In a callback of the garbage collector, such as Hypothesis
# has, that raises nothing and is reported; the error that follows it is the one looked at here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do(data):
    batches = stage1_batches(data, workers=2)

    def train() -> None:
        with BatchLoader(batches, batches.config) as loader:
            loader.take(0, CPU)
            for worker in multiprocessing.active_children():
                worker.kill()
            for number in range(1, 8):
                loader.take(number, CPU)

    with pytest.raises(TrainingError, match=r"workers: a process that makes batches ended .*fewer workers"):
        train()


def test_a_worker_that_dies_while_another_is_waited_for_is_the_same_error(data):
    """What a worker had sent cannot be opened, and then PyTorch's handler speaks of its death."""
    batches = stage1_batches(data, workers=2)

    def train() -> None:
        with BatchLoader(batches, batches.config) as loader:
            loader.take(0, CPU)
            last = max(multiprocessing.active_children(), key=lambda worker: worker.pid)
            threading.Timer(0.3, last.kill).start()
            raise ConnectionResetError("it has closed its sockets")

    with pytest.raises(TrainingError, match=r"workers: a process that makes batches ended .*closed its sockets"):
        train()


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="only POSIX tells a process of its children's ends")
def test_a_worker_that_dies_while_it_is_stopped_is_no_error(data, monkeypatch):
    """As one does now and then that still sends a batch: Python ends the sending thread within PyTorch's code."""
    shut_down = _MultiProcessingDataLoaderIter._shutdown_workers

    def die_first(running):
        monkeypatch.undo()
        for worker in running._workers:
            os.kill(worker.pid, signal.SIGABRT)
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        shut_down(running)

    batches = stage1_batches(data, workers=2)
    with BatchLoader(batches, batches.config) as loader:
        loader.take(0, CPU)
        monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_shutdown_workers", die_first)


def test_workers_need_files_of_features(data, config_file):
    kept = attrs.evolve(data, image_tokens=attrs.evolve(data.image_tokens, store={}))
    with pytest.raises(TrainingError, match="workers: need a feature_cache"):
        BatchLoader(stage1_batches(kept, workers=1), stage1_batches(kept, workers=1).config)
    with pytest.raises(ConfigError, match=r"stage2\.workers: need a feature_cache"):
        load_config(TrainingConfig, config_file, ["stage2.workers=1"])
    with pytest.raises(ConfigError, match="prefetch: must be > 0"):
        load_config(TrainingConfig, config_file, ["stage1.prefetch=0"])


def test_both_stages_walk_the_same_curve_with_workers_interrupted_or_not(config_file, tmp_path, monkeypatch):
    plain, ahead = tmp_path / "plain", tmp_path / "ahead"
    changes = [f"--set=feature_cache={tmp_path / 'features'}", "--set=stage2.accumulation=2", "--set=stage1.bucket=2"]
    for stage, task in (("stage1", Stage1Task), ("stage2", Stage2Task)):
        arguments = [stage, "--config", str(config_file), *changes]
        assert main([*arguments, "--out", str(plain)]) == 0
        with monkeypatch.context() as patch:
            losses = task.losses

            def stop(self, step, micro_batch, losses=losses):
                if (step, micro_batch) == (2, 1):
                    signal.raise_signal(signal.SIGINT)
                return losses(self, step, micro_batch)

            patch.setattr(task, "losses", stop)
            assert main([*arguments, f"--set={stage}.workers=2", "--out", str(ahead)]) == 130
        assert multiprocessing.active_children() == []
        # With another number of them, it is still the same run.
        assert main([*arguments, f"--set={stage}.workers=1", f"--set={stage}.prefetch=3", "--out", str(ahead)]) == 0
        name = stage.replace("stage", "stage-")
        assert log_of(ahead / name) == log_of(plain / name)
        first, second = (load_file(folder / name / CHECKPOINT) for folder in (plain, ahead))
        assert first.keys() == second.keys()
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
