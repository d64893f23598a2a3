"""Benchmarks from command to report, on as little as they take, so that a change elsewhere does not break them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.standin import write_standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(benchmark: str, *options: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("benchmark", "line"),
    [
        ("tiny_runtime", r"from the encoded image +\d+\.\d ms"),
        ("bulk", r"\| two personas \| +\d+\.\d+ \|"),
        ("bfloat16", r"\| step of Muon +\| +\d+\.\d+ \|"),
    ],
)
def test_what_is_printed(benchmark: str, line: str) -> None:
    assert re.search(line, printed := run(benchmark)), printed


@pytest.mark.parametrize(
    ("command", "report"),
    [
        ("import_time", "import-time"),
        ("object_sequence_score --systems 2 --images 2 --people 2 --runs 1", "object-sequence-score"),
        ("serving --clients 1 --seconds 2 --requests 20 --threads 1", "serving"),
        ("training_throughput --tiny --batch 4 --runs 1", "training-throughput-tiny"),
    ],
)
def test_what_is_reported(tmp_path: Path, command: str, report: str) -> None:
    benchmark, *options = command.split()
    run(benchmark, *options, "--report", str(tmp_path))
    results = json.loads((tmp_path / f"{report}.json").read_text())["results"]
    assert results
    assert all(figure["value"] > 0 for figures in results.values() for figure in figures.values()), results


def test_descriptions_at_once(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_standin(work / "standin", "small")
    options = ["--images", "2", "--at-once", "1", "2", "--rounds", "1", "--threads", "1"]
    run("capacity", "--work", str(work), *options, "--report", str(tmp_path / "report"))
    assert (tmp_path / "report/capacity.json").exists()
