"""Several processes for one test, without several seconds of imports each: forked from one that has them done."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["training.__main__", "training.runs.runs", "pytest"])
_SECONDS = 240.0


def start(function: Callable[..., object], *arguments: object, output: Path, **environment: str) -> BaseProcess:
    """Calls a function that a test module holds in a process of its own; what it prints goes to a file."""
    process = _CONTEXT.Process(target=_call, args=(function, arguments, str(output), environment), daemon=True)
    process.start()
    return process


def together(
    function: Callable[..., object], *arguments: object, folder: Path, processes: int = 2, **environment: str
) -> list[str]:
    """Calls a function in several processes that find each other as those of a launcher do; what each has printed."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = environment | {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    outputs = [folder / f"{rank}.txt" for rank in range(processes)]
    running = [
        start(function, *arguments, output=output, RANK=str(rank), LOCAL_RANK=str(rank), **world)
        for rank, output in enumerate(outputs)
    ]
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and all(process.exitcode in (0, None) for process in running):
        if not (alive := [process.sentinel for process in running if process.exitcode is None]):
            break
        wait(alive, timeout=1.0)
    codes = [process.exitcode for process in running]
    for process in running:  # whom nobody answers any more
        process.kill()
    printed = [output.read_text() for output in outputs]
    assert codes == [0] * processes, "\n".join(printed)
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
