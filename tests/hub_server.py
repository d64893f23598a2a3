"""A stand-in for the Hugging Face Hub on this machine: enough of its HTTP interface for the real client to fetch."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

_API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/(?P<kind>revision|tree)/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class HubServer(ThreadingHTTPServer):
    """Serves folders as model repositories, each with one commit, which is also its main branch.

    Attributes:
        downloads: (repository, path) of every file sent so far.
        requests: How many requests of any kind came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, tuple[str, Path]] = {}
        self.downloads: list[tuple[str, str]] = []
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, repository: str, folder: Path) -> str:
        """Puts a folder on the Hub; returns its commit."""
        state = [repository, *(_entry(folder, name) for name in files_of(folder))]
        commit = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        self.repositories[repository] = commit, folder
        return commit

    def downloaded(self, repository: str) -> set[str]:
        return {path for name, path in self.downloads if name == repository}


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server, and the Hub's client set to it, with an empty cache."""
    from huggingface_hub import constants

    server = HubServer()
    # What HF_ENDPOINT and HF_HOME set, had they been there when the client was first imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        self.server.requests += 1
        address = unquote(urlsplit(self.path).path)
        asked = _API.fullmatch(address) or _FILE.fullmatch(address)
        if asked is None or asked["repository"] not in self.server.repositories:
            return self._refuse("RepoNotFound")
        commit, folder = self.server.repositories[asked["repository"]]
        if asked["revision"] not in ("main", commit):
            return self._refuse("RevisionNotFound")
        if asked.re is _API:
            listed = [_entry(folder, name) for name in files_of(folder)]
            found = listed if asked["kind"] == "tree" else {"id": asked["repository"], "sha": commit, "siblings": []}
            return self._send(json.dumps(found).encode(), {"Content-Type": "application/json"})
        file = folder / asked["path"]
        if not file.is_file():
            return self._refuse("EntryNotFound")
        if self.command == "GET":
            self.server.downloads.append((asked["repository"], asked["path"]))
        content = file.read_bytes()
        return self._send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, reason: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(folder: Path, name: str) -> dict[str, object]:
    content = (folder / name).read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
