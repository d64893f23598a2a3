"""What a gateway counts and times, for Prometheus; nothing of it says whose request it was."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        """Makes them, all at zero."""
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pydeper_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "pydeper_request_seconds",
            "From the request's first line to the end of its answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_piece_seconds = Histogram(
            "pydeper_first_piece_seconds",
            "From a description's place in the queue to its first piece.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_rows = Histogram(
            "pydeper_batch_rows",
            "Descriptions that a step computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.descriptions = Counter(
            "pydeper_descriptions",
            "Descriptions that left the queue, by how they ended.",
            ["end"],
            registry=self._registry,
        )
        self._queue_length = Gauge(
            "pydeper_queue_length", "Descriptions that wait to be computed.", registry=self._registry
        )
        self._model_ready = Gauge("pydeper_model_ready", "1 once the model is loaded.", registry=self._registry)

    def watch(self, *, queue_length: Callable[[], int], model_ready: Callable[[], bool]) -> None:
        """Takes the gauges' values from these functions."""
        self._queue_length.set_function(queue_length)
        self._model_ready.set_function(model_ready)

    def text(self) -> bytes:
        """Returns all of them in Prometheus's text format."""
        return generate_latest(self._registry)
