"""Logs as one JSON object a line: what happened and how long it took, never a picture, a text or a persona."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType

LOGGER = logging.getLogger("pydeper.serve")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, with the fields that it was given as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line |= fields_of_error(record.exc_info[0], record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=str)


def fields_of_error(kind: type[BaseException], trace: TracebackType | None) -> dict[str, object]:
    """Returns what a log may hold of an error: its type and where it was raised. Messages may quote somebody's text."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
    return {"error": kind.__name__, "traceback": places}


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Writes a line with these fields."""
    LOGGER.log(level, event, extra={"fields": fields})


def log_to_stderr() -> None:
    """Sends the gateway's lines, and uvicorn's own, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("pydeper.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
