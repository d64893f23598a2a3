"""`pydeper serve` as a process: its keys, how it ends, and how it stands a fork."""

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from pydeper import DeperModel
from pydeper.cli.main import main
from tests.pydeper.serve.running import ENVIRONMENT, SCENE, running_gateway, serving


def test_keys_are_made_listed_and_revoked(tiny: DeperModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = f"sqlite:///{tmp_path}/gateway.db"

    def keys(*arguments: str) -> str:
        assert main(["serve", "keys", *arguments, "--database", database]) == 0
        return capsys.readouterr().out

    key = keys("create", "ana").strip()
    key_id = key.split("_")[1]
    listed = keys("list")
    assert listed.startswith(f"{key_id}  ana, created 20")
    assert key not in listed
    with running_gateway(tiny, tmp_path) as gateway, gateway.client() as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert client.get("/v1/personas").status_code == 200
        keys("revoke", key_id)
        assert client.get("/v1/personas").status_code == 401
    assert ", revoked 20" in keys("list")
    assert main(["serve", "keys", "revoke", key_id, "--database", database]) == 2
    said = capsys.readouterr().err
    assert said == f"pydeper: there is no valid key {key_id!r}; `pydeper serve keys list` tells the ids\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--no-keys", "--host", "0.0.0.0"], "--no-keys: everybody who reaches 0.0.0.0"),
        (["--batch-rows", "0"], "batch_rows: must be a number from 1"),
        (["--model", "tiny", "--database", "nowhere"], "database: is no URL"),
        (["--model", "./nowhere"], "there is no model './nowhere'"),
        (["keys", "create", "a b"], "tenant: must be 1 to 64 letters"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pydeper: {complaint}")
    assert said.count("\n") == 1


def test_sigterm_under_load_answers_all_that_was_accepted(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-keys") as (process, address, log):

        def ask(_: int) -> list[int]:
            found: list[int] = []
            with httpx2.Client(base_url=address, timeout=60) as client:
                try:
                    while True:
                        found.append(client.post("/v1/describe", files={"image": SCENE}).status_code)
                        if len(found) == 2:
                            busy.set()
                except httpx2.TransportError:
                    return found

        busy = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask, number) for number in range(8)]
            assert busy.wait(60)
            process.send_signal(signal.SIGTERM)
            answered = [status for job in asking for status in job.result()]
        assert process.wait(60) == -signal.SIGTERM
    assert {*answered} == {200}
    lines = [json.loads(line) for line in log]
    accepted = [line["status"] for line in lines if line["event"] == "request"]
    assert accepted == [200] * len(answered)
    assert lines[-1]["event"].startswith("Finished server process")


PRELOADED = """
import os, socket, sys, threading, time
import httpx2, uvicorn
from pydeper import demo_image
from pydeper.serve.app import from_environment

app = from_environment()
listening = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child == 0:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    server.run([listening])
    sys.exit(0)
url = f"http://127.0.0.1:{listening.getsockname()[1]}"
found = set()
for _ in range(3):
    answer = httpx2.post(f"{url}/v1/describe", files={"image": demo_image().read_bytes()}, timeout=100)
    found.add((answer.status_code, answer.json()["description"]))
os.kill(child, 15)
print(os.waitpid(child, 0)[1])
print(len(found), found.pop()[0])
"""


def test_a_server_that_preloads_the_app_and_forks_gets_a_sound_model(tmp_path: Path) -> None:
    environment = {
        **ENVIRONMENT,
        "PYDEPER_SERVE_MODEL": "tiny",
        "PYDEPER_SERVE_KEYS": "false",
        "PYDEPER_SERVE_THREADS": "1",
    }
    command = [sys.executable, "-c", PRELOADED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["15", "1", "200"]
