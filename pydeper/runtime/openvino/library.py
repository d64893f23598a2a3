"""The `openvino` module, imported so that it reports nothing to anybody."""

import importlib
import sys
import threading
from typing import Any

from pydeper.errors import RuntimeMissingError

_TELEMETRY = "openvino_telemetry"
_lock = threading.Lock()


def import_openvino() -> Any:
    """Imports the `openvino` module.

    By itself the module would send an event to its maker on every import, and keep an identifier in the home folder. It
    does without where its package for that is missing, so here it is missing for the moment of the import. A program
    that has imported `openvino` before has made that choice itself.

    Raises:
        RuntimeMissingError: It is missing, or one of its own libraries is.
    """
    with _lock:
        hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # what Python takes for "not installed"
        try:
            return importlib.import_module("openvino")
        except ImportError as error:
            raise RuntimeMissingError(
                f'OpenVINO cannot be imported ({error}): pip install "pydeper[openvino]"'
            ) from error
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]
