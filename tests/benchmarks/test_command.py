"""Reports name the command that made them."""

import argparse
from pathlib import Path

import pytest

from benchmarks.measuring.command import report_command

parser = argparse.ArgumentParser()
parser.add_argument("--work", type=Path, default=Path("runs/work"))
parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4])
parser.add_argument("--seconds", type=float, default=60.0)
parser.add_argument("--real", action="store_true")
parser.add_argument("--vlm", type=Path)
parser.add_argument("--side", default="both ways")
parser.add_argument("--report", type=Path)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([], ""),
        (["--report", "elsewhere", "--work", "elsewhere", "--seconds", "60"], ""),
        (["--seconds", "5"], "--seconds 5 "),
        (["--seconds", "0.5", "--at-once", "2", "8"], "--at-once 2 8 --seconds 0.5 "),
        (["--vlm", "/models/some vlm", "--real"], "--real --vlm FOLDER "),
        (["--side", "one way"], "--side 'one way' "),
    ],
)
def test_what_is_not_a_default_is_named_and_files_are_not(given: list[str], shown: str) -> None:
    places = {"work": None, "vlm": "FOLDER"}
    command = report_command("benchmarks.some", parser, parser.parse_args(given), places)
    assert command == f"python -m benchmarks.some {shown}--report docs/results"
