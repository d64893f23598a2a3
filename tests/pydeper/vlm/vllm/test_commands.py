"""The command `pydeper` with vLLM servers."""

from pathlib import Path

import pytest

from pydeper import DeperModel, Persona
from pydeper.cli.main import main
from tests.support.vllm.server import VLLMServer


def test_describe(
    server: VLLMServer,
    local: DeperModel,
    people: list[Persona],
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    people[0].save(tmp_path / "ana.safetensors")
    command = ["describe", str(pictures[0]), "--persona", str(tmp_path / "ana.safetensors"), "--model", "tiny"]
    for more in ([], ["--stream"]):
        assert main([*command, "--vlm", server.address, *more]) == 0
        assert capsys.readouterr().out == local.describe(pictures[0], people[0]) + "\n"
    assert len(server.completions) == 2


def test_doctor_names_the_servers(
    server: VLLMServer, second: VLLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYDEPER_MODEL", "tiny")
    assert main(["doctor", "--vlm", server.address, "--vlm", second.address]) == 0
    told = capsys.readouterr().out
    assert f"{server.address}: vLLM 0.32.0, model 'served'" in told
    assert f"{second.address}: vLLM 0.32.0, model 'served'" in told


def test_doctor_finds_a_server_that_does_not_fit(
    server: VLLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYDEPER_MODEL", "tiny")
    server.version = "0.19.0"
    assert main(["doctor", "--vlm", server.address]) == 1
    told = capsys.readouterr().out
    assert f"FIX  default model: {server.address}: is vLLM '0.19.0'" in told
    assert "1 to fix." in told
