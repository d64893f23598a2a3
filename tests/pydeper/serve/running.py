"""A gateway as its clients meet it: a real server on a loopback port, with the built-in model."""

import contextlib
import socket
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

SCENE = demo_image().read_bytes()


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


def make_personas(model: DeperModel) -> dict[str, Persona]:
    """Makes the two people of the demonstration."""
    return {name: Persona.from_samples(demo_samples(name), model=model, name=name) for name in ("ana", "ben")}
