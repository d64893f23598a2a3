"""The HTTP of a stand-in for the Hub: the Hub itself, and the storage of large objects to which it points."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import attrs

from tests.support.hub.repository import Repository, entry, git_hash, is_large, sha256

_REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"


@attrs.define
class Fault:
    """What the next requests of a kind meet: a refusal, a connection cut short, or a wait.

    Attributes:
        request: Pattern of ``"METHOD /path"``.
        times: How many requests meet it.
        status: Answer with this status instead.
        cut_after: Close the connection after so many bytes of content, sent or received.
        wait: Seconds to wait before anything else.
        before: Called before anything else.
    """

    request: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    cut_after: int | None = None
    wait: float = 0.0
    before: Callable[[], object] | None = None


@attrs.frozen
class Transfer:
    """Content that went over the wire: a file sent ("GET", "org/name/path") or an object received ("PUT", its sha256).

    `size` counts what really went, `start` is where a range began.
    """

    method: str
    what: str
    start: int
    size: int


class Hub(Protocol):
    """What the handlers need of the Hub whose requests they answer; `HubServer` explains it."""

    repositories: dict[str, Repository]
    objects: dict[str, bytes]
    parts: dict[tuple[str, int], bytes]
    tokens: dict[str, str]
    part_size: int | None
    transfers: list[Transfer]
    log: list[str]
    leaked: bool
    lock: threading.RLock

    @property
    def url(self) -> str: ...

    @property
    def storage_url(self) -> str: ...

    def next_fault(self, request: str) -> Fault | None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


def serve(handler: type[BaseHTTPRequestHandler], hub: Hub) -> Server:
    server = Server(("127.0.0.1", 0), handler)
    server.hub = hub
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """Finds the method that answers a request, after what faults there are."""

    server: Server
    routes: tuple[tuple[str, str, str], ...]  # method, pattern of the path, name of the method here

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.log.append(request)
        self.fault = self.hub.next_fault(request) or Fault("")
        time.sleep(self.fault.wait)
        if self.fault.before:
            self.fault.before()
        try:
            content = self._received(path)
            if self.fault.status:
                return self._send(b"{}", self.fault.headers, status=self.fault.status)
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, name in self.routes:
                if wanted == method and (asked := re.fullmatch(pattern, path)):
                    return getattr(self, name)(content, **asked.groupdict())
            raise RefusedError(404)
        except RefusedError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(b"{}", {name: text for name, text in headers.items() if text}, status=refusal.status)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has gone

    def _received(self, path: str) -> bytes:
        """Returns the request's content; one that is to be cut short ends here, as a lost connection does."""
        limit, content = self.fault.cut_after if self.command == "PUT" else None, b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while (size := int(self.rfile.readline(), 16)) > 0 and (limit is None or len(content) < limit):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length if limit is None else min(limit, length))
        if self.command == "PUT":
            self.hub.transfers.append(Transfer("PUT", path.split("/")[2], 0, len(content)))
        if limit is not None:
            raise ConnectionResetError
        return content

    def _send(self, content: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: self.fault.cut_after])

    def _send_json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _send_file(self, content: bytes, name: str, headers: Mapping[str, str]) -> None:
        """Sends a file, or the end of it that is asked for, and keeps account of it."""
        start, status = 0, 200
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "GET":  # noted before it goes, for the client goes on as soon as it has all
            sent = content[start:][: self.fault.cut_after]
            self.hub.transfers.append(Transfer("GET", name, start, len(sent)))
        self._send(content[start:], headers, status)


class HubHandler(Handler):
    routes = (
        ("POST", "/api/repos/create", "create"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("GET", f"/api/models/{_REPOSITORY}", "info"),
        ("GET", f"/api/models/{_REPOSITORY}/revision/(?P<revision>.+)", "info"),
        ("GET", f"/api/models/{_REPOSITORY}/tree/(?P<revision>.+)", "tree"),
        ("GET", f"/api/models/{_REPOSITORY}/refs", "refs"),
        ("POST", f"/api/models/{_REPOSITORY}/preupload/(?P<branch>.+)", "preupload"),
        ("POST", f"/api/models/{_REPOSITORY}/commit/(?P<branch>.+)", "commit"),
        ("POST", f"/api/models/{_REPOSITORY}/branch/(?P<branch>.+)", "branch"),
        ("POST", f"/api/models/{_REPOSITORY}/tag/(?P<revision>.+)", "tag"),
        ("DELETE", f"/api/models/{_REPOSITORY}/tag/(?P<tag>.+)", "untag"),
        ("POST", f"/{_REPOSITORY}.git/info/lfs/objects/batch", "batch"),
        ("POST", "/lfs/complete/(?P<oid>[0-9a-f]+)", "complete"),
        ("POST", "/lfs/verify", "verify"),
        ("GET", f"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def _may(self) -> str:
        """What the token may: nothing, "read" or "write"."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not token:
            return ""
        if scheme != "Bearer" or token not in self.hub.tokens:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _repository(self, name: str, write: bool = False) -> Repository:
        found, may = self.hub.repositories.get(name), self._may()
        if found is None or (found.private and not may):
            raise RefusedError(404 if may else 401, "RepoNotFound", "Repository not found")
        if write and may != "write":
            raise RefusedError(403 if may else 401, message="You don't have the rights to write here")
        return found

    def _commit_of(self, repository: Repository, revision: str) -> str:
        if (commit := repository.resolve(revision)) is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def create(self, content: bytes) -> None:
        if (may := self._may()) != "write":
            raise RefusedError(403 if may else 401, message="You don't have the rights to create a model here")
        asked = json.loads(content)
        name = f"{asked['organization']}/{asked['name']}"
        with self.hub.lock:
            if name in self.hub.repositories:
                exists = {"url": f"{self.hub.url}/{name}", "error": "You already created this model repo"}
                return self._send_json(exists, status=409)
            made = Repository(name, private=asked.get("visibility") == "private")
            made.commit({".gitattributes": b"*.onnx filter=lfs\n"}, "initial commit")
            self.hub.repositories[name] = made
        return self._send_json({"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self, content: bytes) -> None:
        import yaml

        front = json.loads(content)["content"].split("---\n")[1]
        errors = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "not a mapping"}]
        self._send_json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def info(self, content: bytes, repository: str, revision: str = "main") -> None:
        found = self._repository(repository)
        commit = self._commit_of(found, revision)
        self._send_json({"id": repository, "sha": commit, "private": found.private, "siblings": []})

    def tree(self, content: bytes, repository: str, revision: str) -> None:
        found = self._repository(repository)
        files = found.commits[self._commit_of(found, revision)]
        self._send_json([entry(path, files[path]) for path in sorted(files)])

    def refs(self, content: bytes, repository: str) -> None:
        found = self._repository(repository)
        kinds = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        listed = {
            kind: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": at} for name, at in refs.items()]
            for kind, (ref, refs) in kinds.items()
        }
        self._send_json({**listed, "converts": []})

    def preupload(self, content: bytes, repository: str, branch: str) -> None:
        found = self._repository(repository, write=True)
        there = found.commits[self._commit_of(found, branch)]
        answers = []
        for file in json.loads(content)["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            large = is_large(path, sample)
            old = there.get(path)
            oid = None if old is None else sha256(old) if large else git_hash(old)
            answers.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self._send_json({"files": answers})

    def batch(self, content: bytes, repository: str) -> None:
        self._repository(repository, write=True)
        self._send_json({"objects": [self._upload_of(item) for item in json.loads(content)["objects"]]})

    def _upload_of(self, item: dict[str, Any]) -> dict[str, Any]:
        oid, size, part = item["oid"], item["size"], self.hub.part_size
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{self.hub.storage_url}/objects/{oid}"}
        if part is not None and size > part:
            numbers = range(1, -(-size // part) + 1)
            addresses = {f"{n:05}": f"{self.hub.storage_url}/objects/{oid}/parts/{n}" for n in numbers}
            upload = {"href": f"{self.hub.url}/lfs/complete/{oid}", "header": {"chunk_size": str(part), **addresses}}
        verify = {"href": f"{self.hub.url}/lfs/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def complete(self, content: bytes, oid: str) -> None:
        parts = [self.hub.parts.get((oid, part["partNumber"])) for part in json.loads(content)["parts"]]
        if None in parts or sha256(whole := b"".join(part for part in parts if part)) != oid:
            raise RefusedError(400)
        self.hub.objects[oid] = whole
        self._send_json({})

    def verify(self, content: bytes) -> None:
        asked = json.loads(content)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404)
        self._send_json({})

    def commit(self, content: bytes, repository: str, branch: str) -> None:
        with self.hub.lock:
            found = self._repository(repository, write=True)
            head, *operations = map(json.loads, content.splitlines())
            parent = self._commit_of(found, branch)
            if head["value"].get("parentCommit", parent) != parent:
                raise RefusedError(412, message="A commit has happened since. Please refresh and try again.")
            files = dict(found.commits[parent])
            for operation in operations:
                self._apply(operation["key"], operation["value"], files)
            commit = found.commit(files, head["value"]["summary"], branch)
        self._send_json({"commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "commitOid": commit})

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, bytes]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.hub.objects:
                raise RefusedError(400, message="an LFS object was never uploaded")
            files[path] = self.hub.objects[value["oid"]]
        elif key == "deletedFile" and path in files:
            del files[path]
        else:
            raise RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")

    def branch(self, content: bytes, repository: str, branch: str) -> None:
        found = self._repository(repository, write=True)
        if branch in found.branches:
            raise RefusedError(409, message="Reference already exists")
        found.branches[branch] = self._commit_of(found, json.loads(content or b"{}").get("startingPoint", "main"))
        self._send_json({})

    def tag(self, content: bytes, repository: str, revision: str) -> None:
        found, tag = self._repository(repository, write=True), json.loads(content)["tag"]
        if tag in found.tags:
            raise RefusedError(409, message="Tag reference exists already")
        found.tags[tag] = self._commit_of(found, revision)
        self._send_json({})

    def untag(self, content: bytes, repository: str, tag: str) -> None:
        if self._repository(repository, write=True).tags.pop(tag, None) is None:
            raise RefusedError(404, "RevisionNotFound")
        self._send_json({})

    def resolve(self, content: bytes, repository: str, revision: str, path: str) -> None:
        found = self._repository(repository)
        commit = self._commit_of(found, revision)
        if found.gated:
            raise RefusedError(403 if self._may() else 401, "GatedRepo", "Access to this model is restricted")
        if path not in (files := found.commits[commit]):
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        file = files[path]
        if not is_large(path, file):
            return self._send_file(
                file, f"{repository}/{path}", {"X-Repo-Commit": commit, "ETag": f'"{git_hash(file)}"'}
            )
        oid = sha256(file)
        self.hub.objects[oid] = file
        location = f"{self.hub.storage_url}/objects/{oid}/of/{repository}/{path}"
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(file))}
        self._send(b"", {"X-Repo-Commit": commit, "Location": location, **linked}, status=302)
        return None


class StorageHandler(Handler):
    routes = (
        ("GET", f"/objects/(?P<oid>[0-9a-f]+)/of/(?P<name>{_REPOSITORY}/.+)", "download"),
        ("PUT", "/objects/(?P<oid>[0-9a-f]+)", "upload"),
        ("PUT", "/objects/(?P<oid>[0-9a-f]+)/parts/(?P<number>[0-9]+)", "upload_part"),
    )

    def _answer(self) -> None:
        self.hub.leaked |= "Authorization" in self.headers
        super()._answer()

    def download(self, content: bytes, oid: str, name: str, repository: str) -> None:
        self._send_file(self.hub.objects[oid], name, {"ETag": f'"{oid}"'})

    def upload(self, content: bytes, oid: str) -> None:
        if sha256(content) != oid:
            raise RefusedError(400)
        self.hub.objects[oid] = content
        self._send(b"", {})

    def upload_part(self, content: bytes, oid: str, number: str) -> None:
        self.hub.parts[oid, int(number)] = content
        self._send(b"", {"ETag": sha256(content)})
