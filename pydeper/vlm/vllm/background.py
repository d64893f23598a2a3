"""An event loop in a thread of its own, which makes requests for any number of threads and other event loops."""

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, TypeVar

import attrs

from pydeper.errors import ForkedProcessError

_T = TypeVar("_T")


@attrs.frozen
class _End:
    """What follows the last piece: the error that ended them, or None."""

    error: Exception | None


class BackgroundLoop:
    """Runs coroutines for callers elsewhere; whoever stops waiting cancels what it waited for."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name="pydeper-vllm", daemon=True).start()

    def result(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Waits for what a coroutine returns; where the caller is interrupted, the coroutine is cancelled."""
        running = self._start(work)
        try:
            return running.result()
        finally:
            running.cancel()

    def iterate(self, pieces: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
        """Yields the pieces of an asynchronous generator, which starts with the first `next`.

        Closing or dropping the generator that this returns cancels the other one, and what it awaits.
        """
        found: queue.SimpleQueue[_T | _End] = queue.SimpleQueue()
        running = self._start(_feed(pieces, found.put))
        try:
            while not isinstance(piece := found.get(), _End):
                yield piece
            if piece.error is not None:
                raise piece.error
        finally:
            running.cancel()

    async def aiterate(self, pieces: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
        """Does what `iterate` does, for the caller's own event loop."""
        here = asyncio.get_running_loop()
        found: asyncio.Queue[_T | _End] = asyncio.Queue()

        def put(piece: _T | _End) -> None:
            here.call_soon_threadsafe(found.put_nowait, piece)

        running = self._start(_feed(pieces, put))
        try:
            while not isinstance(piece := await found.get(), _End):
                yield piece
            if piece.error is not None:
                raise piece.error
        finally:
            running.cancel()

    def end_with(self, owner: object, last: Callable[[], Awaitable[None]]) -> None:
        """Awaits `last`, then ends the thread, once `owner` is gone or the process ends."""
        weakref.finalize(owner, _end, self._loop, self._process, last)

    def _start(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        if self._process != os.getpid():
            work.close()
            raise ForkedProcessError(
                f"this model was loaded in process {self._process}, and process {os.getpid()} was forked from it "
                "later; its connections do not survive a fork. Load the model in each process"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _feed(pieces: AsyncGenerator[_T, None], put: Callable[[_T | _End], None]) -> None:
    error = None
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                put(piece)
    except Exception as raised:
        error = raised
    put(_End(error))


def _end(loop: asyncio.AbstractEventLoop, process: int, last: Callable[[], Awaitable[None]]) -> None:
    if process != os.getpid() or loop.is_closed():
        return  # a forked child has the loop without its thread

    async def finish() -> None:
        try:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await last()
        finally:
            loop.stop()

    # Nothing is waited for: garbage is collected in any thread at any point, while it holds any lock.
    asyncio.run_coroutine_threadsafe(finish(), loop)
