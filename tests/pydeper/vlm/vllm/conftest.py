"""The built-in model twice, on this machine and on a stand-in for a vLLM server; two people whom it knows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pydeper
from pydeper import DeperModel, Persona, VLLMServers
from pydeper.bundle.layout import BUILTIN
from tests.support.vllm.engine import Engine
from tests.support.vllm.server import VLLMServer

DEMO = BUILTIN / "tiny" / "demo"
Opened = Callable[..., DeperModel]


@pytest.fixture(scope="session")
def local() -> DeperModel:
    return DeperModel.from_pretrained("tiny", device="cpu", threads=1)


@pytest.fixture(scope="session")
def people(local: DeperModel) -> list[Persona]:
    samples = [pydeper.read_samples(DEMO / f"{name}.jsonl") for name in ("ana", "ben")]
    return [Persona.from_samples(of, model=local) for of in samples]


@pytest.fixture(scope="session")
def pictures() -> list[Path]:
    return [DEMO / name for name in ("scene.png", "ana-1.png", "ben-1.png")]


@pytest.fixture(scope="session")
def session_engine() -> Engine:
    return Engine()


@pytest.fixture
def engine(session_engine: Engine) -> Iterator[Engine]:
    """As a server has it that was started as it should be."""
    before = dict(vars(session_engine))
    yield session_engine
    vars(session_engine).update(before)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(engine: Engine) -> Iterator[VLLMServer]:
    server = VLLMServer(engine)
    yield server
    server.close()


@pytest.fixture
def second(engine: Engine) -> Iterator[VLLMServer]:
    server = VLLMServer(engine)
    yield server
    server.close()


@pytest.fixture
def opened() -> Opened:
    """Loads the built-in model with its VLM on servers; they are tried again at once."""

    def load(*servers: VLLMServer | str, **settings: Any) -> DeperModel:
        addresses = [server if isinstance(server, str) else server.address for server in servers]
        vlm = VLLMServers(addresses, **{"backoff": 0.001, **settings})
        return DeperModel.from_pretrained("tiny", device="cpu", threads=1, vlm=vlm)

    return load
