"""Many processes: the same curve as one process with the whole batch, one checkpoint, one stop."""

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tests.support.processes import command, finish, run_ranks, running_python
from tests.support.regression import LONG, Regression
from tests.support.training_run import small_config
from training.__main__ import main
from training.distributed.means import Mean, rescale_to_step
from training.distributed.process_group import ProcessGroup, open_accelerator
from training.distributed.sharding import join_uneven_inputs, shard_layers
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import CHECKPOINT
from training.loop.logs import LOG
from training.loop.train import train
from training.runs import train_stages
from training.runs.frozen_parts import load_vlm

STEPS = ["--set", "stage1.steps=10", "--set", "stage2.steps=10", "--set", "stage2.accumulation=2"]
PLAIN = [*STEPS, "--set", "network.dropout=0.0"]


def launch(arguments: list[str]) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The line of docs/scale.md for a CPU, with a free port."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launcher += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    return running_python(*launcher, "-m", "training", *arguments, ACCELERATE_USE_CPU="true")


def launched(arguments: list[str]) -> str:
    with launch(arguments) as process:
        return finish(process)


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    first, second = (logs.read(folder / LOG) for folder in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    assert len(first) >= 10
    for line, twin in zip(first, second, strict=True):
        for key in line.keys() - {"seconds", "gradient_norm"}:
            assert twin[key] == pytest.approx(line[key], rel=tolerance, abs=2e-6), (line["step"], key)


def both(config: Path, folder: Path, batch: int, stage: str) -> list[str]:
    sizes = ["--set", f"stage1.batch_size={batch}", "--set", f"stage2.batch_size={batch}"]
    return [stage, "--config", str(config), "--out", str(folder), *PLAIN, *sizes]


@pytest.fixture(scope="module")
def config(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_config(parts, tmp_path_factory.mktemp("config") / "small.toml")


@pytest.fixture(scope="module")
def two_each(parts: Path) -> Path:
    """Two samples of each person, so that in stage 2 either can only have the other as its target."""
    source = parts / "samples/samples.jsonl"
    path = source.with_name("two_each.jsonl")
    chosen = [line for line in source.read_text().splitlines() if json.loads(line)["image"] in ("0.png", "1.png")]
    path.write_text("".join(line + "\n" for line in chosen))
    return path


@pytest.fixture(scope="module")
def one(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages in one process."""
    folder = tmp_path_factory.mktemp("one")
    for stage in ("stage1", "stage2"):
        assert main([*both(config, folder, 4, stage), *EVALUATED]) == 0
    return folder


def test_two_launched_processes_walk_the_curve_of_one_with_twice_the_batch(config, one, tmp_path):
    output = launched(both(config, tmp_path, 2, "stage1"))
    assert output.count("stage 1: 12 samples") == 1  # one process speaks
    assert_same_curve(one / "stage-1", tmp_path / "stage-1")
    alone, together = (load_file(folder / "stage-1" / CHECKPOINT) for folder in (one, tmp_path))
    assert alone.keys() == together.keys()
    for key, tensor in alone.items():
        if key.startswith("state.contrastive"):
            torch.testing.assert_close(together[key], tensor, rtol=1e-3, atol=1e-4)


# 6 samples to validate on and 3 to describe: neither is the same work for two processes.
EVALUATED = ["--set", "stage2.evaluate_every=5", "--set", "stage2.caption_samples=3"]
EVALUATED += ["--set", "stage2.caption_tokens=8"]


def stage2(arguments: list[str]) -> None:
    """Trains, and says how many of the numbers in the decoder's layers are on this process's device."""
    layers: list[nn.Module] = []

    def load_and_remember(*those: Any) -> Any:
        vlm = load_vlm(*those)
        layers.extend(vlm.decoder_layers)
        sys.stdout.write(f"\nwhole {held(layers)}\n")
        return vlm

    train_stages.load_vlm = load_and_remember
    assert main(arguments) == 0
    sys.stdout.write(f"\nheld {held(layers)}\n")


def held(layers: Sequence[nn.Module]) -> int:
    tensors = [p.to_local() if isinstance(p, DTensor) else p for layer in layers for p in layer.parameters()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values()) // 4


@pytest.mark.parametrize(
    ("changes", "shards"),
    [
        ([], 1),
        (["shard_vlm=true"], 2),
        (["shard_vlm=true", "checkpointing=true", "prefix_cache_gib=0"], 2),
    ],
    ids=["whole", "sharded", "sharded, computed again"],
)
def test_two_processes_with_a_whole_or_a_shared_vlm_walk_the_curve_of_one(config, one, tmp_path, changes, shards):
    shutil.copytree(one / "stage-1", tmp_path / "stage-1")
    arguments = [*both(config, tmp_path, 2, "stage2"), *EVALUATED, *(f"--set=stage2.{change}" for change in changes)]
    printed = run_ranks(stage2, arguments, folder=tmp_path)
    for output in printed:
        whole, kept = (int(line.split()[1]) for line in output.splitlines() if line.startswith(("whole ", "held ")))
        assert kept == whole / shards
    assert_same_curve(one / "stage-2", tmp_path / "stage-2")
    first, second = (logs.read(folder / "stage-2" / logs.EVALUATIONS) for folder in (one, tmp_path))
    assert [line["step"] for line in second] == [5, 10]
    for line, twin in zip(first, second, strict=True):
        for key in line.keys() - {"seconds"}:
            assert twin[key] == pytest.approx(line[key], rel=1e-4, abs=2e-6), (line["step"], key)


def run_unevenly() -> None:
    """Some processes run a sharded decoder more often than others, then all of them once, with gradients."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    whole = nn.ModuleList(nn.Linear(5, 5, bias=False) for _ in range(3)).requires_grad_(False)
    layers = copy.deepcopy(whole)
    shard_layers(layers, torch.device("cpu"))

    def run(layers: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x).tanh()
        return x

    for counts in ((0, 3), (2, 0), (1, 1), (0, 0), (4, 1)):
        with join_uneven_inputs(layers), torch.no_grad():
            for number in range(counts[rank]):
                x = torch.full((2, 5), number + 0.5)
                with join_uneven_inputs(layers):  # a block in a block is part of it
                    assert torch.equal(run(layers, x), run(whole, x))
        x = torch.randn(rank + 1, 5, requires_grad=True)
        ours, theirs = (torch.autograd.grad(run(those, x).square().sum(), x)[0] for those in (layers, whole))
        assert torch.equal(ours, theirs)
    with pytest.raises(ZeroDivisionError), join_uneven_inputs(layers):
        raise ZeroDivisionError  # nobody waits for those who fail
    with join_uneven_inputs(layers), torch.no_grad():
        run(layers, x)
    dist.destroy_process_group()


def test_processes_run_shared_layers_unequally_often(tmp_path):
    run_ranks(run_unevenly, folder=tmp_path)


def test_alone_there_is_nobody_to_share_with(config, one, tmp_path, capsys):
    shutil.copytree(one / "stage-1", tmp_path / "stage-1")
    arguments = [*both(config, tmp_path, 4, "stage2"), "--set=stage2.shard_vlm=true"]
    assert main(arguments) == 2
    assert "stage2.shard_vlm: there is one process, and nobody to share the VLM with" in capsys.readouterr().err
    assert main([*arguments, "--set=stage2.compile=true"]) == 2
    assert "shard_vlm: sharded layers are not compiled; set compile = false" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "figure"), [(1, "trajectory"), (2, "description")])
def test_accumulation_is_one_large_batch_but_for_the_memory_bank(config, two_each, tmp_path, stage, figure):
    """The bank cannot hold what later parts will bring, so the contrastive loss is left out."""
    table = f"stage{stage}"
    plain = [*PLAIN, f"--set=samples={two_each}"]
    plain += [f"--set={table}.modality_dropout=0", f"--set={table}.contrastive_weight=0"]
    for batch, parts_of_a_step in ((4, 1), (1, 4)):
        sizes = [f"--set={table}.batch_size={batch}", f"--set={table}.accumulation={parts_of_a_step}"]
        folder = tmp_path / f"{parts_of_a_step}"
        if stage == 2:
            assert main(["stage1", "--config", str(config), "--out", str(folder), *plain]) == 0
        assert main([table, "--config", str(config), "--out", str(folder), *plain, *sizes]) == 0
    curves = [logs.read(tmp_path / run / f"stage-{stage}" / LOG) for run in ("1", "4")]
    for line, twin in zip(*curves, strict=True):
        for key in ("loss", figure, "subject", "accuracy", "gradient_norm"):
            assert twin[key] == pytest.approx(line[key], rel=1e-4, abs=1e-4), (line["step"], key)


@pytest.mark.slow
def test_two_processes_stopped_together_go_on_together(config, tmp_path):
    arguments = both(config, tmp_path / "parts", 2, "stage1")
    arguments += ["--set", "stage1.steps=150", "--set", "stage1.checkpoint_every=1000"]
    log = tmp_path / "parts/stage-1" / LOG
    with launch(arguments) as process:
        while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0
    assert "stopped by SIGTERM after step" in output
    launched(arguments)
    launched([*arguments, "--out", str(tmp_path / "whole")])
    first, second = (load_file(tmp_path / run / "stage-1" / CHECKPOINT) for run in ("whole", "parts"))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_with_dropout_the_curve_is_that_of_the_number_of_processes(config, tmp_path):
    runs = {}
    for name, count, batch in (("one", 1, 4), ("two", 2, 2), ("again", 2, 2)):
        arguments = ["stage1", "--config", str(config), "--out", str(tmp_path / name), *STEPS]
        run_ranks(command, [*arguments, f"--set=stage1.batch_size={batch}"], folder=tmp_path / name, world_size=count)
        runs[name] = [line["loss"] for line in logs.read(tmp_path / name / "stage-1" / LOG)]
    assert runs["two"] == runs["again"]
    assert runs["two"] != runs["one"]  # the second process drops other units
    assert runs["two"] == pytest.approx(runs["one"], rel=0.3)


# --- the pieces


def test_weighted_means_are_those_of_everything():
    values = torch.arange(12.0)
    sizes = [1, 5, 2, 4]
    forwards = [Mean(part.mean(), len(part)) for part in values.split(sizes)]
    weighted = [rescale_to_step({"x": mean}, {"x": 12}, len(sizes))["x"] for mean in forwards]
    assert torch.stack(weighted).mean() == pytest.approx(values.mean())
    alone = torch.tensor(0.1)
    assert rescale_to_step({"x": Mean(alone, 7)}, {"x": 7}, 1)["x"] == alone  # bit by bit
    assert rescale_to_step({"x": Mean(torch.tensor(0.0), 0)}, {"x": 0}, 3)["x"] == 0


def test_slices_of_ranks_are_consecutive_and_whole():
    items = list(range(12))
    slices = [ProcessGroup(rank, 3).slice_of(items) for rank in range(3)]
    assert [item for own in slices for item in own] == items
    walked = [row for rank in range(3) for rows in ProcessGroup(rank, 3).batches_of(range(5, 19), 4) for row in rows]
    assert sorted(walked) == list(range(5, 19))


class _Configured:
    mixed_precision = "no"

    def __init__(self, kind: DistributedType) -> None:
        self.distributed_type = kind


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_what_accelerate_is_configured_for_in_vain_is_an_error(monkeypatch, kind):
    monkeypatch.setattr("training.distributed.process_group.Accelerator", lambda **_: _Configured(kind))
    with pytest.raises(TrainingError, match=f"accelerate is configured for {kind.value}.*stage2.shard_vlm = true"):
        open_accelerator()


def test_what_accelerate_passes_over_on_a_cpu_is_an_error(monkeypatch):
    monkeypatch.setattr(
        "training.distributed.process_group.Accelerator", lambda **_: _Configured(DistributedType.MULTI_CPU)
    )
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match="accelerate is configured for FSDP"):
        open_accelerator()


class _Dtypes(nn.Module):
    """Remembers in which precision it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        self.seen = y.dtype
        return y


def train_with_dtypes(folder: Path) -> None:
    task, dtypes = Regression(), _Dtypes()
    task.state[0], task.state[2] = dtypes, nn.Linear(4, 1)
    with warnings.catch_warnings(record=True) as said:
        accelerator = open_accelerator()
    train(task, LONG, 0, folder, accelerator=accelerator)
    sys.stdout.write(f"\ndtypes {dtypes.seen} {dtypes.linear.weight.dtype}\n")
    sys.stdout.writelines(f"warned: {warning.message}\n" for warning in said)


@pytest.mark.parametrize(("setting", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_mixed_precision_is_what_accelerate_is_configured_for(tmp_path, setting, dtype):
    environment = {"ACCELERATE_MIXED_PRECISION": setting, "ATEN_CPU_CAPABILITY": "default"}
    (printed,) = run_ranks(train_with_dtypes, tmp_path / "run", folder=tmp_path, world_size=1, **environment)
    assert f"\ndtypes {dtype} torch.float32\n" in printed
    slow = "warned: accelerate is configured for bf16, in which PyTorch is slow on a processor without AVX-512"
    assert (slow in printed) == (setting == "bf16")
