"""Other processes for one test; whatever happens in the test, they have ended and their pipes are closed after it.

Those that call a function are forked from one process that has the slow imports done already.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.support.paths import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["training.__main__", "training.runs.train_stages", "pytest"])
_SECONDS = 240.0


@contextmanager
def running_python(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`python ARGUMENTS` in the clone, all its output in one pipe; killed where the block is left before it ends."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: "subprocess.Popen[str]") -> str:
    """Waits for a process that must succeed; returns what it has printed."""
    output, _ = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, output
    return output


@contextmanager
def running(
    function: Callable[..., object], *arguments: object, output: Path, **environment: str
) -> Iterator[BaseProcess]:
    """Calls a function that a test module holds in a process of its own; what it prints goes to the file `output`."""
    process = _CONTEXT.Process(target=_call, args=(function, arguments, str(output), environment), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def run_ranks(
    function: Callable[..., object], *arguments: object, folder: Path, world_size: int = 2, **environment: str
) -> list[str]:
    """Calls a function in every rank of a process group, set up as a launcher does; returns what each has printed."""
    folder.mkdir(parents=True, exist_ok=True)
    # This process holds the store in which ranks find each other: a free port looked up for rank 0 could be taken.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = environment | {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    world |= {"ACCELERATE_USE_CPU": "true"}
    outputs = [folder / f"{rank}.txt" for rank in range(world_size)]
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(
                running(function, *arguments, output=output, RANK=str(rank), LOCAL_RANK=str(rank), **world)
            )
            for rank, output in enumerate(outputs)
        ]
        deadline = time.monotonic() + _SECONDS
        # Where one rank fails, the others wait for it in vain.
        while time.monotonic() < deadline and all(process.exitcode in (0, None) for process in ranks):
            if not (alive := [process.sentinel for process in ranks if process.exitcode is None]):
                break
            wait(alive, timeout=1.0)
        codes = [process.exitcode for process in ranks]
    printed = [output.read_text() if output.exists() else "" for output in outputs]
    assert codes == [0] * world_size, "\n".join(printed)
    return printed


def command(arguments: list[str]) -> None:
    """`python -m training ARGUMENTS`."""
    from training.__main__ import main

    sys.exit(main(arguments))


def _call(
    function: Callable[..., object], arguments: tuple[object, ...], output: str, environment: dict[str, str]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    with Path(output).open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    function(*arguments)


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def forked(code: str) -> str:
    """Runs code in a process of its own, where `in_child` runs a function in a forked child; what all have printed."""
    prelude = """
import os, sys, warnings
import pydeper
warnings.simplefilter("ignore")
scene = pydeper.__path__[0] + "/builtin/tiny/demo/scene.png"
def in_child(function):
    if (child := os.fork()) == 0:
        try:
            function()
        except pydeper.PydeperError as error:
            print(type(error).__name__, error, flush=True)
        sys.exit(7)
    print("exit status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYDEPER_MODEL"}
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
