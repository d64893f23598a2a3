"""Many processes: the same curve as one process with the whole batch, one checkpoint, one stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_runs
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor, nn

from training import logs, loop
from training.__main__ import main
from training.distributed import Mean, Share, open_accelerator, step_means
from training.errors import TrainingError

parts, config_file = test_runs.parts, test_runs.config_file

ROOT = Path(__file__).parent.parent
STEPS = ["--set", "stage1.steps=10", "--set", "stage2.steps=10", "--set", "stage2.accumulation=2"]
PLAIN = [*STEPS, "--set", "network.dropout=0.0"]


def launch(arguments: list[str], processes: int = 2, **options: object) -> subprocess.Popen[str]:
    """What `accelerate launch` does for several GPUs of a machine, on the CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, "-m", "training", *arguments],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    first, second = (logs.read(folder / loop.LOG) for folder in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    assert len(first) >= 10
    for line, twin in zip(first, second, strict=True):
        for key in line.keys() - {"seconds", "gradient_norm"}:
            assert twin[key] == pytest.approx(line[key], rel=tolerance, abs=2e-6), (line["step"], key)


def both(config: Path, folder: Path, batch: int, stage: str) -> list[str]:
    sizes = ["--set", f"stage1.batch_size={batch}", "--set", f"stage2.batch_size={batch}"]
    return [stage, "--config", str(config), "--out", str(folder), *PLAIN, *sizes]


@pytest.mark.parametrize(
    "stages", [("stage1",), pytest.param(("stage1", "stage2"), marks=pytest.mark.slow)], ids=["1", "1 and 2"]
)
def test_two_processes_walk_the_curve_of_one_with_twice_the_batch(config_file, tmp_path, stages):
    for stage in stages:
        name = stage.replace("stage", "stage-")
        assert main(both(config_file, tmp_path / "one", 4, stage)) == 0
        output = finish(launch(both(config_file, tmp_path / "two", 2, stage)))
        assert output.count(f"{stage[:-1]} {stage[-1]}: 12 samples") == 1  # one process speaks
        assert_same_curve(tmp_path / "one" / name, tmp_path / "two" / name)
        alone, together = (load_file(tmp_path / run / name / loop.CHECKPOINT) for run in ("one", "two"))
        assert alone.keys() == together.keys()
        for key, tensor in alone.items():
            if key.startswith("state.contrastive"):
                torch.testing.assert_close(together[key], tensor, rtol=1e-3, atol=1e-4)


def test_accumulation_is_one_large_batch_but_for_the_memory_bank(config_file, tmp_path):
    """The bank cannot hold what later parts will bring, so the contrastive loss is left out."""
    plain = [*PLAIN, "--set", "stage1.modality_dropout=0", "--set", "stage1.contrastive_weight=0"]
    for batch, parts_of_a_step in ((8, 1), (2, 4)):
        sizes = ["--set", f"stage1.batch_size={batch}", "--set", f"stage1.accumulation={parts_of_a_step}"]
        folder = tmp_path / f"{parts_of_a_step}"
        assert main(["stage1", "--config", str(config_file), "--out", str(folder), *plain, *sizes]) == 0
    curves = [logs.read(tmp_path / run / "stage-1" / loop.LOG) for run in ("1", "4")]
    for line, twin in zip(*curves, strict=True):
        for key in ("loss", "trajectory", "subject", "accuracy", "gradient_norm"):
            assert twin[key] == pytest.approx(line[key], rel=1e-4, abs=1e-4), (line["step"], key)


@pytest.mark.slow
def test_two_processes_stopped_together_go_on_together(config_file, tmp_path):
    arguments = both(config_file, tmp_path / "parts", 2, "stage1")
    arguments += ["--set", "stage1.steps=150", "--set", "stage1.checkpoint_every=1000"]
    log = tmp_path / "parts/stage-1" / loop.LOG
    process = launch(arguments)
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in output
    finish(launch(arguments))
    finish(launch([*arguments, "--out", str(tmp_path / "whole")]))
    first, second = (load_file(tmp_path / run / "stage-1" / loop.CHECKPOINT) for run in ("whole", "parts"))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_with_dropout_the_curve_is_that_of_the_number_of_processes(config_file, tmp_path):
    runs = {}
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2), ("again", 2, 2)):
        arguments = ["stage1", "--config", str(config_file), "--out", str(tmp_path / name), *STEPS]
        finish(launch([*arguments, "--set", f"stage1.batch_size={batch}"], processes))
        runs[name] = [line["loss"] for line in logs.read(tmp_path / name / "stage-1" / loop.LOG)]
    assert runs["two"] == runs["again"]
    assert runs["two"] != runs["one"]  # the second process drops other units
    assert runs["two"] == pytest.approx(runs["one"], rel=0.3)


# --- the pieces


def test_weighted_means_are_those_of_everything():
    values = torch.arange(12.0)
    sizes = [1, 5, 2, 4]
    forwards = [Mean(part.mean(), len(part)) for part in values.split(sizes)]
    weighted = [step_means({"x": mean}, {"x": 12}, len(sizes))["x"] for mean in forwards]
    assert torch.stack(weighted).mean() == pytest.approx(values.mean())
    alone = torch.tensor(0.1)
    assert step_means({"x": Mean(alone, 7)}, {"x": 7}, 1)["x"] == alone  # bit by bit
    assert step_means({"x": Mean(torch.tensor(0.0), 0)}, {"x": 0}, 3)["x"] == 0


def test_shares_are_consecutive_and_whole():
    items = list(range(12))
    shares = [Share(process, 3).of(items) for process in range(3)]
    assert [item for share in shares for item in share] == items
    walked = [row for process in range(3) for rows in Share(process, 3).batches(range(5, 19), 4) for row in rows]
    assert sorted(walked) == list(range(5, 19))


class _Configured:
    mixed_precision = "no"

    def __init__(self, kind: DistributedType) -> None:
        self.distributed_type = kind


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_what_accelerate_is_configured_for_in_vain_is_an_error(monkeypatch, kind):
    monkeypatch.setattr("training.distributed.Accelerator", lambda **_: _Configured(kind))
    with pytest.raises(TrainingError, match=f"accelerate is configured for {kind.value}"):
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


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_mixed_precision_is_what_accelerate_is_configured_for(tmp_path, setting, dtype):
    code = (
        "import sys, pathlib, torch, killed_run, test_distributed as t\n"
        "from training import loop\n"
        "from training.distributed import open_accelerator\n"
        "task = killed_run.Regression(); task.state[0] = t._Dtypes()\n"
        "task.state[2] = torch.nn.Linear(4, 1)\n"
        "loop.run(task, killed_run.CONFIG, 0, pathlib.Path(sys.argv[1]), accelerator=open_accelerator(cpu=True))\n"
        "print(task.state[0].seen, task.state[0].linear.weight.dtype)"
    )
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": setting, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(dtype), "torch.float32"]
