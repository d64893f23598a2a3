"""A stand-in for a vLLM server on this machine: enough of its HTTP interface, answered by a local runtime.

It reads a request on its own account: the prompt is rendered by a chat template and tokenized as a server does it, and
the soft token is read by torch. `VLLMServer.script` makes it fail as real ones do.
"""

import contextlib
import json
import select
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs

from tests.support.vllm.engine import Completion, Engine, RefusedError

PATIENCE = 60  # seconds


@attrs.define
class Fault:
    """What the next completion meets: an answer of another kind, or a stream that fails.

    Attributes:
        status: Answer with this status, and with `error` and `headers`.
        after: Fail after so many tokens; before the first event where it is None.
        how: "drop" closes the connection, "end" ends the stream properly, "malformed" sends half an event, "error"
            sends an event of `error`, "wait" sends nothing more until the client is gone.
    """

    status: int | None = None
    error: Mapping[str, Any] | str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    after: int | None = None
    how: str = "drop"


class VLLMServer:
    """The server and what it was asked.

    Attributes:
        engine: What describes.
        models: What `/v1/models` says.
        version: What `/version` says; None: there is no such page.
        key: The API key that it wants, or None.
        script: The faults of the next completions, in order; None in it is a completion that goes well.
        completions: The bodies of all completions that were asked for.
        connections: How many were made.
        most_at_once: The most completions that were open together.
        hold: Completions wait until so many of them are open; 1: none waits.
        left: Set when a client has gone away while a completion was waiting.
    """

    def __init__(self, engine: Engine, *, certificate: Path | None = None) -> None:
        self.engine = engine
        self.models: object = [{"id": "served", "root": f"/models/{engine.base_model}", "max_model_len": 900}]
        self.version: str | None = "0.32.0"
        self.key: str | None = None
        self.script: list[Fault | None] = []
        self.completions: list[dict[str, Any]] = []
        self.connections = 0
        self.most_at_once = 0
        self.hold = 1
        self.left = threading.Event()
        self.waiting = threading.Event()
        self._at_once = 0
        self._changed = threading.Condition()
        self._scheme = "https" if certificate else "http"
        self._http = _HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"vllm": self}))
        self._http.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def root(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}"

    @property
    def address(self) -> str:
        return f"{self.root}/v1"

    @contextlib.contextmanager
    def open_completion(self, body: dict[str, Any]) -> Iterator[Fault | None]:
        with self._changed:
            self.completions.append(body)
            fault = self.script.pop(0) if self.script else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.most_at_once >= self.hold, PATIENCE)
        try:
            yield fault
        finally:
            with self._changed:
                self._at_once -= 1

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _HTTPServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away, and faults close connections: both are meant."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vllm: VLLMServer

    def setup(self) -> None:
        super().setup()
        self.vllm.connections += 1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/version" and self.vllm.version is not None:
            self._answer(200, {"version": self.vllm.version})
        elif self.path == "/v1/models" and self._authorized():
            self._answer(200, {"object": "list", "data": self.vllm.models})
        elif self.path != "/v1/models":
            self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._answer(404, {"detail": "Not Found"})
        if not self._authorized():
            return None
        with self.vllm.open_completion(body) as fault:
            if fault is not None and fault.status is not None:
                content = {"error": fault.error} if isinstance(fault.error, Mapping) else fault.error
                return self._answer(fault.status, content, fault.headers)
            return self._complete(body, fault)

    def _authorized(self) -> bool:
        if self.vllm.key is None or self.headers.get("Authorization") == f"Bearer {self.vllm.key}":
            return True
        self._answer(401, {"error": f"Unauthorized: {self.headers.get('Authorization')}"})
        return False

    def _complete(self, body: dict[str, Any], fault: Fault | None) -> None:
        if fault is not None and fault.after is None:
            return self._fail(fault)
        known = [entry["id"] for entry in self.vllm.models] if isinstance(self.vllm.models, list) else []
        try:
            if body["model"] not in known:
                raise RefusedError(404, f"The model `{body['model']}` does not exist.")
            completion = self.vllm.engine.complete(body)
        except RefusedError as refused:
            return self._answer(refused.status, {"error": {"message": str(refused), "code": refused.status}})
        self._begin_stream()
        for number, event in enumerate(_events(completion)):
            if fault is not None and fault.after == number - 1:
                return self._fail(fault)
            self._event(event)
        self._event({"choices": [], "usage": {"completion_tokens": len(completion.token_ids)}})
        self._chunk(b": a comment, which keeps connections open\n\ndata: [DONE]\n\n")
        return self._chunk(b"")

    def _fail(self, fault: Fault) -> None:
        if fault.after is None and fault.how != "drop":
            self._begin_stream()
        if fault.how == "malformed":
            self._chunk(b'data: {"choices": [{"index": 0, \n\n')
        elif fault.how == "error":
            self._event({"error": fault.error})
        elif fault.how == "end":
            return self._chunk(b"")
        elif fault.how == "wait":
            self.vllm.waiting.set()
            if select.select([self.connection], [], [], PATIENCE)[0]:  # nothing else comes than the end
                self.vllm.left.set()
        self.close_connection = True
        return None

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, event: Mapping[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _answer(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _events(completion: Completion) -> Iterator[dict[str, Any]]:
    """The events of a stream: the prompt, then a token each; the last one says why there are no more."""
    opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    yield {"choices": [opening], "prompt_token_ids": completion.prompt_ids}
    for number, token in enumerate(completion.token_ids, 1):
        reason = completion.finish_reason if number == len(completion.token_ids) else None
        delta = {"content": "\u2028 whatever"}  # the text is made of the tokens
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, "token_ids": [token]}]}
