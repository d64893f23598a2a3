"""A stand-in for the Hugging Face Hub on this machine: enough of its HTTP interface for the real client.

As there, two servers: the Hub, with its repositories, and a storage of large objects at another address, to which the
Hub only points. `HubServer.fault` makes either answer as a Hub in trouble does.
"""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub.handlers import Fault, HubHandler, StorageHandler, Transfer, serve
from tests.support.hub.repository import Repository

_PATIENCE = 300  # seconds that the client waits for an answer, so that a busy machine is no Hub in trouble


class HubServer:
    """Both servers and what they hold.

    Attributes:
        repositories: By name.
        objects: What the storage holds: sha256 -> content.
        tokens: Token -> "read" or "write"; writing needs one that may write, a private repository any.
        part_size: Objects larger than this are uploaded in parts; None: none are.
        transfers: All content sent and received so far.
        log: All requests so far, as ``"METHOD /path"``.
        leaked: Whether a token ever came to the storage, whose business it is not.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.tokens = {"hf_writer": "write", "hf_reader": "read"}
        self.part_size: int | None = None
        self.transfers: list[Transfer] = []
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.leaked = False
        self.lock = threading.RLock()
        self._hub = serve(HubHandler, self)
        self._storage = serve(StorageHandler, self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_port}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self._storage.server_port}"

    @property
    def requests(self) -> int:
        return len(self.log)

    @property
    def downloads(self) -> list[tuple[str, str]]:
        """(repository, path) of every file sent so far."""
        sent = (transfer.what.split("/", 2) for transfer in self.transfers if transfer.method == "GET")
        return [(f"{organisation}/{name}", path) for organisation, name, path in sent]

    def downloaded(self, repository: str) -> set[str]:
        return {path for name, path in self.downloads if name == repository}

    def uploaded(self) -> list[str]:
        """The sha256 of all objects of which anything was received, once a request."""
        return [transfer.what for transfer in self.transfers if transfer.method == "PUT"]

    def publish(self, repository: str, folder: Path) -> str:
        """Puts a folder's present content on the Hub's main branch; returns the commit."""
        files = {name: (folder / name).read_bytes() for name in _files_of(folder)}
        with self.lock:
            return self.repositories.setdefault(repository, Repository(repository)).commit(files, "Publish")

    def fault(self, request: str, **what: Any) -> None:
        self.faults.append(Fault(request, **what))

    def next_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of another process that is to use this Hub, with its cache in `home`."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": str(_PATIENCE),
            "HF_HUB_DOWNLOAD_TIMEOUT": str(_PATIENCE),
            "HF_TOKEN": "hf_writer",
        }

    def shutdown(self) -> None:
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server, and the Hub's client set to it, with an empty cache and a token that may write."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    server = HubServer()
    # What the variables of `HubServer.environment` set, had they been there when the client was first imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", _PATIENCE)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", _PATIENCE)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    disable_progress_bars()
    yield server
    enable_progress_bars()
    server.shutdown()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries again at once."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    class Clock:
        sleep = staticmethod(lambda seconds: None)

    monkeypatch.setattr(_http, "time", Clock)
    monkeypatch.setattr(file_download, "time", Clock)


def _files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
