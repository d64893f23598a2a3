"""The gateway beside a plain FastAPI endpoint, under concurrent clients: `python -m benchmarks.serving`.

The plain endpoint calls `model.describe`, one request at a time. Both serve the built-in model, each in a process of
its own, and are asked in turn, so that a slower machine slows both. A client sends a picture and a persona's file,
reads the answer to its end, and asks again. Pictures and personas differ from request to request, and every answer is
compared with the one that `model.describe` gives alone.
"""

import argparse
import asyncio
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import attrs
import httpx2
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.measuring.command import report_command
from benchmarks.measuring.sides import SPAWN
from pydeper import DeperModel, Persona, demo_samples
from pydeper.persona.file import parse_persona
from pydeper.speed.machine import cpu
from training.evaluation.report import Figure, check_reports, format_table, write_report
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene

NAME = "serving"
PICTURES, PEOPLE = 48, 8
Figures = dict[str, Figure]


@attrs.frozen
class Work:
    """What clients ask for, and what the answers are.

    Attributes:
        pictures: PNG files.
        personas: Persona files.
        texts: By picture and persona, what `model.describe` says alone.
    """

    pictures: list[bytes]
    personas: list[bytes]
    texts: list[list[str]]


@attrs.define
class Tally:
    """What clients have met.

    Attributes:
        first: Seconds to the first piece, of every whole answer.
        whole: Seconds to its end.
        ends: How requests ended: "right", "wrong" (another text), a status, "refused" (before a byte of an answer),
            "cut" (within it).
    """

    first: list[float] = attrs.Factory(list)
    whole: list[float] = attrs.Factory(list)
    ends: Counter[str] = attrs.Factory(Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16, 64], help="concurrent clients")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each number of clients and side")
    parser.add_argument("--requests", type=int, default=2000, help="over which memory has to stay flat")
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: ONNX Runtime's choice)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=f"also write {NAME}.json and {NAME}.md there")
    options = parser.parse_args()
    if options.report is not None:
        check_reports(options.report, [NAME])
    work = make_work(options.threads)
    rows: dict[str, Figures] = {}
    with ExitStack() as stack:
        plain = stack.enter_context(plain_endpoint(options.threads))
        gateway, process = stack.enter_context(serving_gateway(options.threads))
        sides = {"plain endpoint": (plain, False), "gateway": (gateway, False), "gateway, streamed": (gateway, True)}
        for clients in options.clients:
            for name, (address, streamed) in sides.items():
                tally = asyncio.run(load(address, work, clients, seconds=options.seconds, streamed=streamed))
                rows[f"{name}, {clients} clients"] = figures_of(tally, options.seconds)
                check(tally)
            ratio = rate(rows, "gateway", clients) / rate(rows, "plain endpoint", clients)
            rows[f"gateway, {clients} clients"]["× plain"] = ratio
        print(format_table(rows))
        facts = {
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "seconds": options.seconds,
            "memory": memory(gateway, process, work, options.requests),
            "overload": overload(gateway, work),
            "SIGTERM": terminated(gateway, process, work),
            "command": report_command("benchmarks.serving", parser, options),
        }
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    if options.report is not None:
        write_report(options.report, NAME, rows, title="The gateway beside a plain endpoint", facts=facts)


def make_work(threads: int | None) -> Work:
    """Draws pictures and mixes personas, and has each pair described alone."""
    model = DeperModel.from_pretrained("tiny", threads=threads, image_cache=PICTURES)
    known = [Persona.from_samples(demo_samples(name), model=model) for name in ("ana", "ben")]
    people = [Persona.blend(known, weights=[1 - share, share]) for share in (i / (PEOPLE - 1) for i in range(PEOPLE))]
    pictures = [drawn_scene(number) for number in range(PICTURES)]
    texts = [[model.describe(picture, persona, max_new_tokens=256) for persona in people] for picture in pictures]
    return Work(pictures, [persona.to_bytes() for persona in people], texts)


def drawn_scene(seed: int) -> bytes:
    file = io.BytesIO()
    render(sample_scene(np.random.default_rng(seed))).save(file, "PNG")
    return file.getvalue()


# --- the two sides


@contextmanager
def plain_endpoint(threads: int | None) -> Iterator[str]:
    """Starts what one would write first: an endpoint around `model.describe`."""
    port, there = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=serve_plainly, args=(there, threads), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{port.recv()}/describe"
    process.terminate()
    process.join()


def serve_plainly(port: Connection, threads: int | None) -> None:
    model, one_at_a_time = DeperModel.from_pretrained("tiny", threads=threads, image_cache=16), threading.Lock()
    app = FastAPI()

    @app.post("/describe")
    def describe(image: UploadFile, persona: UploadFile) -> dict[str, str]:
        with one_at_a_time:
            whose = Persona(**parse_persona(persona.file.read()))
            return {"description": model.describe(image.file.read(), whose, max_new_tokens=256)}

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            port.send(self.servers[0].sockets[0].getsockname()[1])

    Server(uvicorn.Config(app, port=0, log_level="error", access_log=False)).run()


@contextmanager
def serving_gateway(threads: int | None) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Starts `pydeper serve`; yields the address of its endpoint, and its process."""
    with tempfile.TemporaryDirectory(prefix="pydeper-benchmark-") as folder:
        command = [sys.executable, "-m", "pydeper", "serve", "--model", "tiny", "--no-keys", "--port", "0"]
        command += [] if threads is None else ["--threads", str(threads)]
        process = subprocess.Popen(
            [*command, "--database", f"sqlite:///{folder}/gateway.db"], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        line = next(line for line in process.stderr if "running on" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield f"{json.loads(line)['event'].split()[3]}/v1/describe", process
        finally:
            process.kill()
            process.wait()


# --- clients


async def load(
    address: str,
    work: Work,
    clients: int,
    *,
    seconds: float = float("inf"),
    requests: int = sys.maxsize,
    streamed: bool = False,
) -> Tally:
    """Lets clients ask for so long, or so often in all."""
    tally, numbers, until = Tally(), iter(range(requests)), time.monotonic() + seconds

    async def ask_on(client: httpx2.AsyncClient) -> None:
        for number in numbers:
            if time.monotonic() >= until:
                return
            await ask(client, address, work, number, tally, streamed=streamed)
            if tally.ends["refused"]:
                return

    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=None)) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(clients)))
    return tally


async def ask(
    client: httpx2.AsyncClient, address: str, work: Work, number: int, tally: Tally, *, streamed: bool = False
) -> None:
    """Sends one request, and compares the answer."""
    picture, person = number * 7 % PICTURES, number % PEOPLE
    files = {"image": ("picture.png", work.pictures[picture]), "persona": ("p.safetensors", work.personas[person])}
    began, first, body = time.perf_counter(), None, b""
    try:
        data = {"stream": "true"} if streamed else {}
        async with client.stream("POST", address, files=files, data=data) as answer:
            async for chunk in answer.aiter_bytes():
                first = first or time.perf_counter()
                body += chunk
    except httpx2.TransportError:
        tally.ends["cut" if body else "refused"] += 1
        return
    if answer.status_code != 200:
        tally.ends[str(answer.status_code)] += 1
        await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))
        return
    text = text_of_events(body) if streamed else json.loads(body)["description"]
    tally.ends["right" if text == work.texts[picture][person] else "wrong"] += 1
    tally.first.append((first or began) - began)
    tally.whole.append(time.perf_counter() - began)


def text_of_events(body: bytes) -> str:
    """Joins the pieces of a stream; one that did not end well has no text."""
    events = [event.split("\n", 1) for event in body.decode().strip().split("\n\n")]
    if events[-1][0] != "event: done":
        return ""
    return "".join(json.loads(data.removeprefix("data: "))["text"] for name, data in events if name == "event: piece")


# --- figures


def figures_of(tally: Tally, seconds: float) -> Figures:
    first, whole = (sorted(1000 * value for value in values) for values in (tally.first, tally.whole))
    return {
        "a second": len(whole) / seconds,
        "first p50 ms": statistics.median(first),
        "first p99 ms": first[int(0.99 * (len(first) - 1))],
        "end p50 ms": statistics.median(whole),
        "end p99 ms": whole[int(0.99 * (len(whole) - 1))],
    }


def rate(rows: dict[str, Figures], side: str, clients: int) -> float:
    found = rows[f"{side}, {clients} clients"]["a second"]
    assert isinstance(found, float)
    return found


def check(tally: Tally) -> None:
    """Ends the benchmark where an answer is lost, or is another request's."""
    if tally.ends.keys() != {"right"}:
        raise SystemExit(f"not every answer is the right one: {dict(tally.ends)}")


def memory(address: str, process: "subprocess.Popen[str]", work: Work, requests: int) -> str:
    """Sends requests and tells what the gateway's memory has done meanwhile."""
    asyncio.run(load(address, work, 16, requests=max(requests // 10, 1)))
    before = resident_mib(process.pid)
    check(asyncio.run(load(address, work, 16, requests=requests)))
    return f"{before:.0f} MiB before {requests} requests, {resident_mib(process.pid):.0f} MiB after"


def resident_mib(process: int) -> float:
    (line,) = (it for it in Path(f"/proc/{process}/status").read_text().splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def overload(address: str, work: Work) -> str:
    """Fills the queue from another process, and times the refusals."""
    crowd = SPAWN.Process(target=crowd_of_clients, args=(address, work), daemon=True)
    crowd.start()
    times: list[float] = []
    with httpx2.Client(timeout=300) as client:
        files = {"image": ("picture.png", work.pictures[0])}
        until = time.monotonic() + 60
        while len(times) < 100 and time.monotonic() < until:
            began = time.perf_counter()
            answer = client.post(address, files=files)
            if answer.status_code == 429:
                times.append(1000 * (time.perf_counter() - began))
    crowd.terminate()
    crowd.join()
    times.sort()
    if not times:
        return "not reached"
    return f"{len(times)} answers of status 429, p50 {statistics.median(times):.1f} ms, p99 {times[-2]:.1f} ms"


def crowd_of_clients(address: str, work: Work) -> None:
    asyncio.run(load(address, work, 128))


def terminated(address: str, process: "subprocess.Popen[str]", work: Work) -> str:
    """Ends the gateway while 16 clients ask, and tells what became of their requests."""

    async def ask_until_the_end() -> Tally:
        asking = asyncio.ensure_future(load(address, work, 16))
        await asyncio.sleep(3)
        process.send_signal(signal.SIGTERM)
        return await asking

    ends = asyncio.run(ask_until_the_end()).ends
    process.wait(timeout=60)
    found = ", ".join(f"{count} {name}" for name, count in ends.items())
    return f"{found} (refused: before they were accepted); exit status {process.returncode}"


if __name__ == "__main__":
    main()
