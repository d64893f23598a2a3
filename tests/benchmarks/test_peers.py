"""The benchmark of other runtimes, with a small network and those sides that the tests have."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.peers import __main__ as peers
from benchmarks.standin import write_standin


@pytest.mark.slow  # exports a network
def test_each_side_describes_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_standin(tmp_path / "work" / "standin", "small")
    sides = ["pydeper, ONNX Runtime", "transformers, float32"]
    report = tmp_path / "results"
    command = ["peers", "--work", str(tmp_path / "work"), "--rounds", "2", "--tokens", "4", "--threads", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--sides", *sides, "--report", str(report)])
    peers.main()
    assert capsys.readouterr().out.count("| transformers, float32") == 3
    written = json.loads((report / "peers.json").read_text())
    assert list(written["results"]) == sides
    first, second = written["results"].values()
    assert first["tokens/s, relative"]["value"] == first["first token, relative"]["value"] == 1
    assert second["first token, relative"]["value"] > 0
    for figures in written["results"].values():
        assert all(figures[measure]["value"] > 0 for measure in peers.MEASURES)
        parts = figures["image s"]["value"] + figures["prompt s"]["value"]
        assert figures["first token s"]["value"] == pytest.approx(parts, rel=0.5)


@pytest.mark.parametrize(("capability", "dtype"), [("AVX512", "bfloat16"), ("AVX2", "float32"), ("DEFAULT", "float32")])
def test_transformers_is_compared_in_the_type_that_is_fastest(
    monkeypatch: pytest.MonkeyPatch, capability: str, dtype: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    sides = peers.fastest_sides()
    assert [side for side in sides if side.startswith("transformers")] == [f"transformers, {dtype}"]
    assert len(sides) == len(peers.SIDES) - 1
