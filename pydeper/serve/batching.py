"""Descriptions that are asked for at the same moment, computed as one batch.

Requests wait in a queue of bounded length. One thread encodes their images, ahead of the batches. Another takes those
that are asked for with the same options, and computes them through `DeperModel.stream_batch`. Whoever waits for one
gets its pieces as they are written; one whose client has gone, or whose time is over, is dropped before the next step.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

import attrs

from pydeper.errors import PydeperError
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions
from pydeper.persona.persona import Persona
from pydeper.serve.logs import LOGGER
from pydeper.serve.metrics import Metrics
from pydeper.serve.problems import Problem, problem_of
from pydeper.vlm import EncodedImage

# Clients that were answered together ask again together: the first of them waits for the others, so long in all and so
# long for the next.
_GATHER_SECONDS, _NEXT_SECONDS = 0.04, 0.006


@attrs.define(eq=False)
class Request:
    """One description that is asked for.

    Attributes:
        image: The bytes of its file, until it is encoded.
        persona: Whose description, or None.
        options: How.
        deadline: When it is of no use any more, by `time.monotonic`.
        by_piece: Whether pieces go out as they are written; otherwise the text goes out as one piece.
        encoded: The image, once it is encoded.
    """

    image: bytes
    persona: Persona | None
    options: DescribeOptions
    deadline: float
    by_piece: bool = False
    encoded: EncodedImage | None = attrs.field(default=None, init=False)
    _queued: float = attrs.field(factory=time.monotonic, init=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop, init=False)
    _answers: "asyncio.Queue[str | Problem | None]" = attrs.field(factory=asyncio.Queue, init=False)
    _text: list[str] = attrs.field(factory=list, init=False)
    _gone: bool = attrs.field(default=False, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._gone and time.monotonic() < self.deadline

    @property
    def begun(self) -> bool:
        """Whether a piece has been written."""
        return bool(self._text)

    @property
    def waited(self) -> float:
        """Seconds since it was asked for."""
        return time.monotonic() - self._queued

    def add(self, piece: str) -> None:
        """Takes a piece; called by the worker."""
        self._text.append(piece)
        if self.by_piece:
            self._send(piece)

    def end(self, problem: Problem | None = None) -> None:
        """Ends it, well or with a problem; called by the worker. Nothing ends twice."""
        if self._ended:
            return
        self._ended = True
        if problem is None and not self.by_piece:
            self._send("".join(self._text))
        self._send(problem)

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yields the pieces; leaving it early drops the request.

        Raises:
            Problem: It could not be computed, or not in time.
        """
        try:
            while True:
                async with asyncio.timeout(self.deadline - time.monotonic()):
                    answer = await self._answers.get()
                if answer is None:
                    return
                if isinstance(answer, Problem):
                    raise answer
                yield answer
        except TimeoutError:
            raise too_late() from None
        finally:
            self._gone = True

    def _send(self, answer: str | Problem | None) -> None:
        # The loop is closed where the server was stopped by force.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._answers.put_nowait, answer)


def too_late() -> Problem:
    """Returns the answer to a request whose time is over."""
    return Problem(
        "deadline",
        "the description was not ready within the request's deadline",
        "ask for fewer tokens, allow more time with deadline_seconds, or try again when less is going on",
    )


class Batcher:
    """A bounded queue of requests, and the threads that compute them; thread-safe."""

    def __init__(
        self, model: Callable[[], DeperModel], metrics: Metrics, *, rows: int, queue_length: int, workers: int = 1
    ) -> None:
        """Starts the threads.

        Args:
            model: Returns the model, once it is loaded.
            metrics: Told of every batch.
            rows: The most requests of a batch.
            queue_length: The most requests that wait.
            workers: Batches at the same time.
        """
        self._model, self._metrics = model, metrics
        self._rows, self._most = rows, queue_length
        self._new: deque[Request] = deque()
        self._encoding = 0
        self._encoded: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_each = 0.1  # of a description, the mean of late
        self._threads = [threading.Thread(target=self._encode, name="pydeper-encode", daemon=True)] + [
            threading.Thread(target=self._work, name=f"pydeper-batch-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._new) + self._encoding + len(self._encoded)

    @property
    def alive(self) -> bool:
        """Whether requests are being computed."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def check_room(self) -> None:
        """Refuses a request for which there would be no place.

        Raises:
            Problem: As many wait as may.
        """
        if (waiting := self.waiting) >= self._most:
            seconds = math.ceil(self._seconds_each * waiting)
            raise Problem(
                "queue-full",
                f"{waiting} descriptions wait already, which is the most",
                "try again after the seconds that Retry-After says",
                retry_after=min(max(seconds, 1), 60),
            )

    def submit(self, request: Request) -> None:
        """Queues a request.

        Raises:
            Problem: As many wait as may.
        """
        with self._changed:
            self.check_room()
            self._new.append(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Computes what waits, and ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while requests := self._taken():
            began = time.monotonic()
            self._metrics.batch_rows.observe(len(requests))
            try:
                self._compute(requests)
            except Exception:
                LOGGER.error("batch failed", exc_info=True)
                self._fail(requests)
            each = (time.monotonic() - began) / len(requests)
            self._seconds_each += 0.2 * (each - self._seconds_each)

    def _encode(self) -> None:
        """Encodes images as requests come, and ends those that have none or are not wanted any more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._closed)
                if not self._new:
                    return
                request = self._new.popleft()
                self._encoding = 1
            try:
                if request.wanted:
                    request.encoded = self._model().encode_image(request.image)
                else:
                    self._end(request, "dropped", too_late())
            except PydeperError as error:
                self._end(request, "failed", problem_of(error))
            except Exception:
                LOGGER.error("encoding failed", exc_info=True)
                self._fail([request])
            with self._changed:
                self._encoding = 0
                if request.encoded is not None:
                    request.image = b""
                    self._encoded.append(request)
                self._changed.notify_all()

    def _taken(self) -> list[Request]:
        """Waits for requests, and takes those that can be one batch; none once the queue is closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._encoded or (self._closed and not self.waiting))
                self._gather()
                if self._encoded:
                    break
                if self._closed and not self.waiting:
                    return []
            key = _alike(self._encoded[0])
            taken = [request for request in self._encoded if _alike(request) == key][: self._rows]
            for request in taken:
                self._encoded.remove(request)
        return taken

    def _gather(self) -> None:
        """Waits a little for more requests, as long as some are on their way."""
        until = time.monotonic() + _GATHER_SECONDS
        while 0 < len(self._encoded) < self._rows and not self._closed and (left := until - time.monotonic()) > 0:
            if not self._changed.wait(min(left, _NEXT_SECONDS)) and not self._new and not self._encoding:
                return

    def _compute(self, requests: Sequence[Request]) -> None:
        """Computes a batch; one that fails before its first piece is computed again in halves, to spare the others."""
        running = set(range(len(requests)))
        try:
            pieces = self._model().stream_batch(
                [(request.encoded, request.persona) for request in requests if request.encoded is not None],
                wanted=lambda place: requests[place].wanted,
                **requests[0].options,
            )
            for place, piece in pieces:
                request = requests[place]
                if piece is None:
                    running.discard(place)
                    self._end(request, *(("done",) if request.wanted else ("dropped", too_late())))
                    continue
                if not request.begun:
                    self._metrics.first_piece_seconds.observe(request.waited)
                request.add(piece)
        except PydeperError as error:
            if len(requests) > 1 and not any(request.begun for request in requests):
                half = len(requests) // 2
                self._compute(requests[:half])
                self._compute(requests[half:])
                return
            LOGGER.log(logging.WARNING, "batch failed", exc_info=True, extra={"fields": {"rows": len(requests)}})
            self._fail([requests[place] for place in running], problem_of(error))

    def _fail(self, requests: Sequence[Request], problem: Problem | None = None) -> None:
        problem = problem or Problem("failure", "the description could not be computed", "try again later")
        for request in requests:
            self._end(request, "failed", problem)

    def _end(self, request: Request, how: str, problem: Problem | None = None) -> None:
        self._metrics.descriptions.labels(how).inc()
        request.end(problem)


def _alike(request: Request) -> tuple[object, ...]:
    """What requests of one batch have in common; those without a persona have another prompt."""
    return request.persona is None, *sorted(request.options.items())
