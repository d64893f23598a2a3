"""Sides of a comparison, each in a process of its own, that work in turn: a slower machine slows all of them."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

from pydeper.speed.machine import peak_memory

SPAWN = multiprocessing.get_context("spawn")


class Side:
    """A process that loads something once and then runs what it is sent, while the others wait.

    Attributes:
        load_seconds: What loading took, imports not counted.
    """

    def __init__(self, load: Callable[..., Any], *arguments: Any) -> None:
        """Starts the process; it makes an object with `load(*arguments)`, whose methods can then be called."""
        self._here, there = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(there, load, arguments), daemon=True)
        self._process.start()
        there.close()
        self.load_seconds: float = self._received()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method over there and returns what it returns."""
        self._here.send((method, arguments))
        return self._received()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join()

    def _received(self) -> Any:
        answer = self._here.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, load: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        began = time.perf_counter()
        side = load(*arguments)
        connection.send(getattr(side, "load_seconds", time.perf_counter() - began))
        while (request := connection.recv()) is not None:
            method, given = request
            connection.send(getattr(side, method)(*given))
    except Exception as error:
        connection.send(error)


def peak_gib() -> float:
    """The most memory that this process has had, in GiB; NaN where the system does not tell."""
    return (peak_memory() or float("nan")) / 2**30
