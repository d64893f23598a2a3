"""A gateway as its clients meet it: a real server on a loopback port, with the built-in model."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx2
import uvicorn

from pydeper import DeperModel, Persona, demo_image, demo_samples
from pydeper.serve.access import create_key
from pydeper.serve.app import make_app
from pydeper.serve.settings import Settings
from pydeper.serve.store.store import Store
from tests.support.paths import ROOT

SCENE = demo_image().read_bytes()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@attrs.define
class Gateway:
    """A running gateway.

    Attributes:
        address: Where it is.
        store: Its database.
        app: The application.
    """

    address: str
    store: Store
    app: Any

    def client(self, tenant: str | None = None, **options: Any) -> httpx2.Client:
        """Returns a client with a key of a tenant, or without one."""
        headers = {} if tenant is None else {"Authorization": f"Bearer {create_key(self.store, tenant)}"}
        return httpx2.Client(base_url=self.address, headers=headers, timeout=60, **options)


@contextlib.contextmanager
def running_gateway(
    model: DeperModel, folder: Path, opened: Callable[[Settings], DeperModel] | None = None, **settings: Any
) -> Iterator[Gateway]:
    """Serves a model that is loaded already, from a thread of this process."""
    given = {"database": f"sqlite:///{folder}/gateway.db", **settings}
    app = make_app(Settings(**given), opened or (lambda _: model))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield Gateway(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.store, app)
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str, list[str]]]:
    """`pydeper serve` on a free port: the process, its address, and its log, which is whole when it has ended."""
    command = [sys.executable, "-m", "pydeper", "serve", "--model", "tiny", "--port", "0", "--threads", "1", *arguments]
    log: list[str] = []
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        reading = threading.Thread(target=log.extend, args=[process.stderr])
        try:
            line = next(line for line in process.stderr if "running on" in line)
            reading.start()
            yield process, json.loads(line)["event"].split()[3], log
        finally:
            process.kill()
            process.wait()
            reading.join()


def make_personas(model: DeperModel) -> dict[str, Persona]:
    """Makes the two people of the demonstration."""
    return {name: Persona.from_samples(demo_samples(name), model=model, name=name) for name in ("ana", "ben")}
