"""Runs `optimum-cli export openvino` in the environment that it needs."""

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from pydeper.bundle.config import Precision
from pydeper.errors import PydeperError

VARIABLE = "PYDEPER_OPTIMUM_PYTHON"
_USUAL = Path(".venv-optimum")
_LAST_LINES = 15


class OptimumError(PydeperError, RuntimeError):
    """Optimum is not there, or failed."""


def find_optimum(python: str | None = None) -> str:
    """Returns the Python whose environment holds Optimum.

    Optimum needs transformers 4 and pydeper's export transformers 5, so they cannot share an environment.

    Args:
        python: Its path; None takes ``$PYDEPER_OPTIMUM_PYTHON``, else `.venv-optimum/bin/python`.

    Raises:
        OptimumError: There is none; says how to make it.
    """
    usual = _USUAL / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = python or os.environ.get(VARIABLE) or str(usual)
    if not Path(found).is_file():
        raise OptimumError(
            f"{found}: is no Python. Optimum needs an environment of its own: `python -m venv {_USUAL}`, then "
            f"`{usual} -m pip install -r requirements-optimum.txt`. --optimum-python or ${VARIABLE} names another one"
        )
    return found


def run_optimum(python: str, source: Path, folder: Path, precision: Precision) -> None:
    """Exports a Qwen2-VL; what Optimum says meanwhile goes to stderr.

    Args:
        python: See `find_optimum`.
        source: The model's folder, see `export.openvino.source.link_published`.
        folder: Where Optimum writes.
        precision: Of the language model's weights.

    Raises:
        OptimumError: It failed; holds the last that it said.
    """
    command = [python, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(source)]
    command += ["--task", "image-text-to-text", "--weight-format", precision, str(folder)]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}  # the files are here
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            last.append(line)
            sys.stderr.write(line)
    if process.returncode != 0:
        raise OptimumError(f"{' '.join(command)}: failed with status {process.returncode}:\n{''.join(last).rstrip()}")
