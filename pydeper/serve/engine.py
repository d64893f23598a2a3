"""The model of a gateway: loaded in the process that serves, tried again while it cannot be reached."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi.concurrency import run_in_threadpool

from pydeper.errors import BundleError, InvalidArgumentError, PydeperError, RuntimeMissingError
from pydeper.model.model import DeperModel
from pydeper.serve.batching import Batcher, too_late
from pydeper.serve.logs import log
from pydeper.serve.metrics import Metrics
from pydeper.serve.problems import Problem
from pydeper.serve.settings import Settings

RETRY_SECONDS = 5.0
PERSONAS_WAITING = 16
# What trying again does not mend.
_LASTING = (BundleError, InvalidArgumentError, RuntimeMissingError)

_T = TypeVar("_T")


def open_model(settings: Settings) -> DeperModel:
    """Loads the model that the settings name."""
    return DeperModel.from_pretrained(
        settings.model,
        runtime=settings.runtime,
        device=settings.device,
        threads=settings.threads,
        precision=settings.precision,
        image_cache=settings.image_cache,
        vlm=settings.servers,
    )


class Engine:
    """A model and the queue before it, between the start and the end of one server process."""

    def __init__(self, settings: Settings, metrics: Metrics, opened: Callable[[Settings], DeperModel]) -> None:
        """Loads nothing yet; see `start`."""
        self._settings, self._open = settings, opened
        self._model: DeperModel | None = None
        self._reason = "it is being loaded"
        self._closing = threading.Event()
        self._personas = asyncio.Semaphore(1)
        self._personas_waiting = 0
        self.batcher = Batcher(
            self.model,
            metrics,
            rows=settings.batch_rows,
            queue_length=settings.queue_length,
        )

    @property
    def ready(self) -> bool:
        """Whether descriptions can be asked for."""
        return self._model is not None and self.batcher.alive

    def model(self) -> DeperModel:
        """Returns the model.

        Raises:
            Problem: It is not loaded.
        """
        if self._model is None:
            raise Problem(
                "model-unavailable",
                f"the model is not ready: {self._reason}",
                "try again after the seconds that Retry-After says; /readyz tells when it is there",
                retry_after=round(RETRY_SECONDS),
            )
        return self._model

    async def start(self) -> None:
        """Loads the model; where it is elsewhere and cannot be reached, goes on trying beside the server.

        Raises:
            PydeperError: It cannot be loaded, and trying again would not help.
        """
        try:
            await run_in_threadpool(self._load)
        except _LASTING:
            raise
        except PydeperError as error:
            self._unavailable(error)
            threading.Thread(target=self._retry, name="pydeper-model", daemon=True).start()

    async def close(self) -> None:
        """Computes what waits, and ends the threads."""
        self._closing.set()
        await run_in_threadpool(self.batcher.close)

    async def alone(self, work: Callable[[], _T], seconds: float) -> _T:
        """Runs long work on the model in a thread, one at a time.

        Raises:
            Problem: As many wait as may, or the time is over; work that has begun goes on to its end.
        """
        if self._personas_waiting >= PERSONAS_WAITING:
            raise Problem(
                "queue-full",
                f"{self._personas_waiting} personas are being made already, which is the most",
                "try again after the seconds that Retry-After says",
                retry_after=5,
            )
        self._personas_waiting += 1
        running = asyncio.ensure_future(self._in_turn(lambda: run_in_threadpool(work)))
        running.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.shield(running), seconds)
        except TimeoutError:
            raise too_late() from None

    async def _in_turn(self, work: Callable[[], Awaitable[_T]]) -> _T:
        async with self._personas:
            return await work()

    def _left(self, done: "asyncio.Future[Any]") -> None:
        self._personas_waiting -= 1
        if not done.cancelled():
            done.exception()  # it was told to whoever waited, if somebody still did

    def _load(self) -> None:
        self._model = self._open(self._settings)
        log("model loaded", model=self._model.model_id, provider=self._model.providers[0])

    def _unavailable(self, error: PydeperError) -> None:
        # Clients are told no more than this; the log says where the model should be, and what is wrong there.
        self._reason = f"it is not available ({type(error).__name__})"
        log("model unavailable", logging.WARNING, error=type(error).__name__, reason=str(error))

    def _retry(self) -> None:
        while not self._closing.wait(RETRY_SECONDS):
            try:
                self._load()
                return
            except PydeperError as error:
                self._unavailable(error)
