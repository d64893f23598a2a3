"""A generator whose steps run in worker threads, for ``async for``."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TypeVar

_T = TypeVar("_T")


async def in_worker_threads(pieces: Generator[str, None, None]) -> AsyncGenerator[str, None]:
    """Advances a generator in the event loop's thread pool, one step per piece asked for, and closes it at the end."""
    loop = asyncio.get_running_loop()
    # A cancelled step goes on in its thread; the lock makes the closing wait for it there rather than here.
    one_at_a_time = threading.Lock()

    def in_turn(work: Callable[[], _T]) -> _T:
        with one_at_a_time:
            return work()

    try:
        while (piece := await loop.run_in_executor(None, in_turn, lambda: next(pieces, None))) is not None:
            yield piece
    finally:
        loop.run_in_executor(None, in_turn, pieces.close)
