"""Descriptions that are asked for at the same time, computed together.

Requests wait in a queue of bounded length. One thread encodes their images. Another computes them through
`DeperModel.stream_batch`: a request joins those that are running before their next step. Whoever waits for one gets its
pieces as they are written; one whose client has gone, or whose time is over, is dropped before the next step.
"""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import attrs

from pydeper.errors import PydeperError
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions
from pydeper.model.requests import DescriptionRequest
from pydeper.persona.persona import Persona
from pydeper.serve.logs import LOGGER
from pydeper.serve.metrics import Metrics
from pydeper.serve.problems import Problem, problem_of
from pydeper.vlm import EncodedImage

_ROWS = 16
# Of a pause between two answers, as far as it tells how fast they are.
_LONGEST = 1.0


@attrs.define(eq=False)
class Request:
    """One description that is asked for.

    Attributes:
        image: The bytes of its file; then what the model has encoded it into.
        persona: Whose description, or None.
        options: How.
        deadline: When it is of no use any more, by `time.monotonic`.
        by_piece: Whether pieces go out as they are written; otherwise the text goes out as one piece.
        ended: Whether it has been answered, well or not.
    """

    image: bytes | EncodedImage
    persona: Persona | None
    options: DescribeOptions
    deadline: float
    by_piece: bool = False
    _queued: float = attrs.field(factory=time.monotonic, init=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop, init=False)
    _answers: "asyncio.Queue[str | Problem | None]" = attrs.field(factory=asyncio.Queue, init=False)
    _text: list[str] = attrs.field(factory=list, init=False)
    _gone: bool = attrs.field(default=False, init=False)
    ended: bool = attrs.field(default=False, init=False)

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._gone and time.monotonic() < self.deadline

    @property
    def begun(self) -> bool:
        """Whether a piece has been written."""
        return bool(self._text)

    @property
    def can_be_repeated(self) -> bool:
        """Whether nobody would notice if it were computed anew."""
        return not (self.begun and self.by_piece)

    def repeat(self) -> None:
        """Forgets what has been written."""
        self._text.clear()

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
        if self.ended:
            return
        self.ended = True
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
        self, model: Callable[[], DeperModel], metrics: Metrics, *, rows: int | None, queue_length: int
    ) -> None:
        """Starts the threads.

        Args:
            model: Returns the model, once it is loaded.
            metrics: Told of every step.
            rows: The most requests that are computed together; None: 16, or more where the model takes more.
            queue_length: The most requests that wait.
        """
        self._model, self._metrics = model, metrics
        self._rows, self._most = rows, queue_length
        self._new: deque[Request] = deque()
        self._encoding = 0
        self._encoded: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_each = 0.1  # from one answer to the next, the mean of late
        self._last_end = time.monotonic()
        self._threads = [
            threading.Thread(target=work, name=f"pydeper-{name}", daemon=True)
            for name, work in (("encode", self._encode), ("describe", self._describe))
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

    def _encode(self) -> None:
        """Encodes images as requests come, and ends those that have none."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._closed)
                if not self._new:
                    return
                request = self._new.popleft()
                self._encoding = 1
            try:
                if request.wanted:
                    request.image = self._model().encode_image(request.image)
            except PydeperError as error:
                self._fail([request], problem_of(error))
            except Exception:
                LOGGER.error("encoding failed", exc_info=True)
                self._fail([request])
            with self._changed:
                self._encoding = 0
                if not request.ended:
                    self._encoded.append(request)
                self._changed.notify_all()

    def _describe(self) -> None:
        """Computes requests whose images are encoded."""
        while requests := self._first():
            self._compute(requests, self._more)

    def _first(self) -> list[Request]:
        """Waits for requests, and takes as many as are computed together; none once the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._encoded or (self._closed and not self.waiting))
                if not self._encoded:
                    return []
            if taken := self._taken(0):
                return taken

    def _more(self, running: int) -> list[Request]:
        """Takes those for which there is room beside so many that are running."""
        taken = self._taken(running)
        self._metrics.batch_rows.observe(running + len(taken))
        return taken

    def _taken(self, running: int) -> list[Request]:
        taken: list[Request] = []
        most = self._rows or max(_ROWS, self._model().rows_at_once)
        while self._encoded and running + len(taken) < most:
            request = self._encoded.popleft()
            if request.wanted:
                taken.append(request)
            else:
                self._end(request, "dropped", too_late())
        return taken

    def _compute(self, requests: Sequence[Request], more: Callable[[int], list[Request]]) -> None:
        """Computes requests, and those that join them.

        Where all fail at once, as when memory runs out, those of which nothing has gone out are computed again in
        halves.
        """
        # Only those that are running: under load there is always one, and this does not return.
        running = dict(enumerate(requests))
        numbers = itertools.count(len(requests))

        def joining(count: int) -> Iterator[DescriptionRequest]:
            taken = more(count)
            running.update({next(numbers): request for request in taken})
            return map(_asked, taken)

        try:
            for number, piece in self._model().stream_batch(
                map(_asked, requests), more=joining, wanted=lambda number: running[number].wanted
            ):
                if isinstance(piece, str):
                    self._add(running[number], piece)
                elif piece is None:
                    request = running.pop(number)
                    self._end(request, *(("done",) if request.wanted else ("dropped", too_late())))
                else:
                    self._fail([running.pop(number)], problem_of(piece))
        except PydeperError as error:
            LOGGER.log(logging.WARNING, "batch failed", exc_info=True, extra={"fields": {"rows": len(running)}})
            again = [request for request in running.values() if request.can_be_repeated] if len(running) > 1 else []
            self._fail([request for request in running.values() if request not in again], problem_of(error))
            for request in again:
                request.repeat()
            for half in (again[: len(again) // 2], again[len(again) // 2 :]):
                if half:
                    self._compute(half, lambda running: [])
        except Exception:
            LOGGER.error("descriptions failed", exc_info=True)
            self._fail([*running.values()])

    def _add(self, request: Request, piece: str) -> None:
        if not request.begun:
            self._metrics.first_piece_seconds.observe(request.waited)
        request.add(piece)

    def _fail(self, requests: Sequence[Request], problem: Problem | None = None) -> None:
        problem = problem or Problem("failure", "the description could not be computed", "try again later")
        for request in requests:
            self._end(request, "failed", problem)

    def _end(self, request: Request, how: str, problem: Problem | None = None) -> None:
        now = time.monotonic()
        self._seconds_each += 0.1 * (min(now - self._last_end, _LONGEST) - self._seconds_each)
        self._last_end = now
        self._metrics.descriptions.labels(how).inc()
        request.end(problem)


def _asked(request: Request) -> DescriptionRequest:
    return request.image, request.persona, request.options
