"""Capture sessions for tests: a folder of pictures, recordings, and the real server on loopback."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from pydeper.capture.app import make_app
from pydeper.capture.opening import open_session
from pydeper.capture.pictures import find_pictures
from pydeper.capture.session import CaptureSession
from tests.support.images import random_image
from tests.support.paths import ROOT


def make_pictures(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        random_image(40 + i, 30, i).save(folder / f"{i}.png")
    return folder


def recording(attempt: str = "a", **changes: Any) -> dict[str, Any]:
    """What the page sends: two stops of a second each, at the left and at the right."""
    points = [[0.2 if i < 60 else 0.8, 0.5, i / 60] for i in range(120)]
    return {
        "description": "A dog, then a ball.", "points": points, "mode": "viewport", "input": "mouse",
        "image_size": [40, 30], "shown_size": [400.5, 300], "screen": [1920, 1080], "device_pixel_ratio": 1.5,
        "started": "2026-11-28T12:00:00Z", "duration": 2.0, "blur": 14, "radius": 0.12, "attempt": attempt, **changes,
    }  # fmt: skip


def started(folder: Path, out: Path, **options: Any) -> CaptureSession:
    return open_session(folder, find_pictures(folder)[0], out, model="tiny", **options)


def client(address: str, tab: str = "one") -> httpx.Client:
    headers = {"Origin": address, "X-Tab": tab}
    return httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=60)


def agree(page: httpx.Client, *, publish: bool = False) -> None:
    body = {"publish": publish, "language": "en", "text": "I agree."}
    assert page.post("/api/consent", json=body).status_code == 204


@contextmanager
def serving(session: CaptureSession, **options: Any) -> Iterator[str]:
    """The app in a thread; yields its address."""
    app = make_app(session, model="tiny", **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        session.close()


@contextmanager
def command(*arguments: object, limit: int | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command; yields its process and its address, and kills it where the block has not ended it."""

    def set_limit() -> None:
        import resource

        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-m", "pydeper", "capture", *map(str, arguments), "--model", "tiny", "--no-open"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        preexec_fn=None if limit is None else set_limit,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            printed = ""
            while not (found := re.search(r"Open (http://\S+)", printed)):
                line = process.stdout.readline()
                assert line, printed
                printed += line
            yield process, found[1].rstrip("/")
        finally:
            process.send_signal(signal.SIGKILL)
