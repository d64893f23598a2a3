"""The commands of a clone in terminals and pipes of any kind: encodings, closed streams, full disks, signals."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from export.cli import main as export
from tests.support.paths import ROOT
from training.cli import main as training


def run(*command: str, encoding: str = "utf-8", **streams: object) -> subprocess.CompletedProcess[bytes]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", *command], env=environment, cwd=ROOT, timeout=120, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("module", ["training", "export"])
def test_a_name_that_an_encoding_lacks_is_written_as_escapes(module: str) -> None:
    command = ["shard", "日本.jsonl", "--out", "o"] if module == "training" else ["verify", "日本"]
    done = run(module, *command, encoding="cp1252")
    assert done.returncode == 2
    assert b"\\u65e5\\u672c" in done.stderr
    assert b"Traceback" not in done.stderr
    assert run(module, command[0], "--help", encoding="ascii").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_message() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run("export", "verify", "pydeper/builtin/tiny", stdout=full)
    assert (done.returncode, done.stderr) == (2, b"export: [Errno 28] No space left on device\n")


def test_a_reader_that_has_gone_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("export", "verify", "pydeper/builtin/tiny", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.filterwarnings("default")
def test_errors_and_warnings_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refresh(page: Path, results: Path) -> None:
        warnings.warn("the page is long", stacklevel=1)
        raise PermissionError(13, "Permission denied", str(page))

    monkeypatch.setattr("training.evaluation.page.refresh", refresh)
    assert training.main(["page", "results.md"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "python -m training page: warning: the page is long",
        "python -m training page: [Errno 13] Permission denied: 'results.md'",
    ]


def test_ctrl_c_says_what_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr("export.cli.verify.verify", stopped)
    assert export.main(["verify", "bundle"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
