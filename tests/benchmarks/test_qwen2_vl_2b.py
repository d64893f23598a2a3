"""The benchmark beside transformers, with a small network."""

import json
from pathlib import Path

import pytest

from benchmarks import qwen2_vl_2b
from benchmarks.standin import write_standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # exports a network, and a persona encoder of the true size


def test_both_sides_describe_and_the_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, file = tmp_path / "work", tmp_path / "figures.json"
    write_standin(work / "standin", "small")
    command = ["qwen2_vl_2b", "--work", str(work), "--rounds", "1", "--threads", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", command)
    qwen2_vl_2b.main()
    figures = json.loads(file.read_text())
    assert all(value > 0 for value in figures.values()), figures
    parts = figures["ours, tokens/s"] / figures["transformers, tokens/s"]
    assert figures["decode against transformers"] == pytest.approx(parts)
