"""The examples run as their READMEs say, on the built-in model."""

import asyncio
import contextlib
import csv
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from examples.alt_text_server.app import STATUSES, from_environment, make_app
from examples.photo_library.caption import caption_library, language_tags
from examples.photo_library.caption import main as caption
from pydeper import (
    DeperModel,
    IncompatiblePersonaError,
    InvalidArgumentError,
    OutOfMemoryError,
    Persona,
    read_samples,
)
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
DEMO = ROOT / "pydeper" / "builtin" / "tiny" / "demo"
SCENE = (DEMO / "scene.png").read_bytes()
LI, LANG = (
    "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li",
    "{http://www.w3.org/XML/1998/namespace}lang",
)


@pytest.fixture(scope="module")
def model() -> DeperModel:
    return DeperModel.from_pretrained("tiny", threads=1)


@pytest.fixture(scope="module")
def personas(model) -> dict[str, Persona]:
    return {
        name: Persona.from_samples(read_samples(DEMO / f"{name}.jsonl"), model=model, name=name)
        for name in ("ana", "ben")
    }


@pytest.fixture(scope="module")
def said(model, personas) -> dict[str | None, str]:
    return {name: model.describe(SCENE, personas.get(name)) for name in ("ana", "ben", None)}


# --- alt texts


@pytest.fixture(scope="module")
def client(model, personas) -> Iterator[TestClient]:
    with TestClient(make_app(model, personas, max_bytes=1_000_000)) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("ana", {"X-Reader": "ana"}),
        ("ben", {"Cookie": "reader=ben"}),
        ("ben", {"X-Reader": "ben", "Cookie": "reader=ana"}),
        (None, {}),
    ],
)
def test_each_reader_has_an_alt_text_of_their_own(client, said, name, headers):
    answer = client.post("/alt-text", content=SCENE, headers=headers)
    assert answer.status_code == 200
    assert answer.json() == {"alt": said[name]}
    assert answer.headers["Vary"] == "X-Reader, Cookie"
    assert answer.headers["Cache-Control"] == "private"
    streamed = client.post("/alt-text/stream", content=SCENE, headers=headers)
    assert (streamed.status_code, streamed.text) == (200, said[name])


@pytest.mark.parametrize("path", ["/alt-text", "/alt-text/stream"])
@pytest.mark.parametrize(
    ("content", "headers", "query", "status", "message"),
    [
        (SCENE, {"X-Reader": "eve"}, "", 404, "no persona of this reader"),
        (b"no image", {}, "", 422, "image given as 8 bytes is not an image file"),
        (b"", {}, "", 422, "image given as 0 bytes"),
        (SCENE[:700], {"X-Reader": "ana"}, "", 422, "cut short"),
        (bytes(1_000_001), {}, "", 413, "larger than 1000000 bytes"),
        (SCENE, {}, "?style=sonnet", 400, "style: .* got 'sonnet'"),
    ],
)
def test_what_was_wrong_is_a_status(client, path, content, headers, query, status, message):
    answer = client.post(path + query, content=content, headers=headers)
    assert answer.status_code == status
    assert re.search(message, answer.json()["error"])


def test_an_upload_is_refused_before_it_is_there_whole(model):
    chunks, answer = iter(range(1000)), []

    async def receive() -> dict[str, Any]:
        next(chunks)
        return {"type": "http.request", "body": bytes(1000), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    scope = {"type": "http", "method": "POST", "path": "/alt-text", "headers": [], "query_string": b""}
    asyncio.run(make_app(model, {}, max_bytes=5000)(scope, receive, send))
    assert answer[0]["status"] == 413
    assert next(chunks) == 6


def test_memory_that_runs_out_is_asked_for_again_later(model, personas, monkeypatch):
    def out_of_memory(*_: object, **__: object) -> Any:
        raise OutOfMemoryError("memory ran out")

    monkeypatch.setattr(model, "encode_image", out_of_memory)
    with TestClient(make_app(model, personas)) as client:
        answer = client.post("/alt-text", content=SCENE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_personas_of_another_model_are_refused_at_the_start(model, personas):
    with pytest.raises(IncompatiblePersonaError):
        make_app(model, {"ana": attrs.evolve(personas["ana"], encoder_fingerprint="sha256:other")})


def test_every_status_is_one_of_pydepers_own_errors():
    assert all(400 <= status < 600 for status in STATUSES.values())


def test_readers_of_one_picture_share_one_encoding(model, personas, said):
    model.clear_image_cache()
    with serving(make_app(model, personas)) as address:
        texts: dict[str, str] = {}

        def ask(name: str) -> None:
            answer = httpx2.post(f"{address}/alt-text", content=SCENE, headers={"X-Reader": name}, timeout=None)
            texts[name] = answer.json()["alt"]

        threads = [threading.Thread(target=ask, args=[name]) for name in personas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {name: said[name] for name in personas}
    assert model.report().cached_images == 1


def test_a_reader_who_leaves_stops_the_work(model, personas, said, monkeypatch):
    """With turns for two, six streams that were left early would also block a seventh if they kept theirs."""
    astream, begun, ended = model.astream, 0, 0

    async def without_end(image: Any, persona: Persona | None, **options: Any) -> AsyncGenerator[str, None]:
        if persona is personas["ben"]:
            async for piece in astream(image, persona, **options):
                yield piece
            return
        nonlocal begun, ended
        begun += 1
        try:
            while True:
                yield "on and on "
                await asyncio.sleep(0.001)
        finally:
            ended += 1

    monkeypatch.setattr(model, "astream", without_end)
    leave = {"content": SCENE, "headers": {"X-Reader": "ana"}, "timeout": None}
    with serving(make_app(model, personas)) as address:
        for _ in range(6):
            with httpx2.stream("POST", f"{address}/alt-text/stream", **leave) as left:
                assert next(left.iter_text())
        answer = httpx2.post(f"{address}/alt-text", content=SCENE, headers={"X-Reader": "ben"}, timeout=None)
    assert answer.json() == {"alt": said["ben"]}
    assert begun == ended == 6


def test_the_server_is_set_up_from_its_environment(personas, said, tmp_path, monkeypatch):
    personas["ana"].save(tmp_path / "ana.safetensors")
    monkeypatch.setenv("ALT_TEXT_PERSONAS", str(tmp_path))
    monkeypatch.delenv("PYDEPER_MODEL", raising=False)
    with TestClient(from_environment()) as client:
        assert client.post("/alt-text", content=SCENE, headers={"X-Reader": "ana"}).json() == {"alt": said["ana"]}
        assert client.post("/alt-text", content=SCENE, headers={"X-Reader": "ben"}).status_code == 404


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app behind a real server on loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


# --- the photo library


@pytest.fixture
def library(tmp_path) -> Path:
    """Two photos in two folders, one of them named alike in two formats, and one broken."""
    photos = tmp_path / "photos"
    (photos / "2024").mkdir(parents=True)
    shutil.copy(DEMO / "scene.png", photos / "scene.png")
    Image.open(DEMO / "ana-1.png").convert("RGB").save(photos / "scene.jpg")
    shutil.copy(DEMO / "ben-1.png", photos / "2024" / "one & only.PNG")
    (photos / "2024" / "broken.jpg").write_bytes(SCENE[:1000])
    (photos / "notes.txt").write_text("no photo")
    return photos


@pytest.fixture
def readers(personas) -> dict[str, Persona]:
    return language_tags(list(personas.values()))


def alternatives(sidecar: Path) -> dict[str, str]:
    return {item.attrib[LANG]: item.text or "" for item in ET.parse(sidecar).iter(LI)}


def test_the_command_of_the_readme_describes_a_library(personas, said, library, tmp_path, capsys):
    files = [argument for name in personas for argument in ("--persona", str(tmp_path / f"{name}.safetensors"))]
    for name, persona in personas.items():
        persona.save(tmp_path / f"{name}.safetensors")
    table = tmp_path / "captions.csv"
    command = [str(library), "--out", str(tmp_path / "out"), "--csv", str(table), *files]

    assert caption(command) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "3 described, 0 complete before, 1 broken"
    assert re.match(r"broken: .*broken\.jpg: image .* cannot be decoded", err)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "one & only.PNG.xmp",
        "scene.jpg.xmp",
        "scene.png.xmp",
    ]
    found = alternatives(tmp_path / "out" / "scene.png.xmp")
    assert found == {"x-default": said["ana"], "en-x-ana": said["ana"], "en-x-ben": said["ben"]}
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len(rows) == 6
    assert {"photo": "scene.png", "reader": "en-x-ben", "description": said["ben"]} in rows
    assert {row["photo"] for row in rows} == {"scene.png", "scene.jpg", "2024/one & only.PNG"}

    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.xmp")}
    assert caption(command) == 1
    assert capsys.readouterr().out.startswith("0 described, 3 complete before, 1 broken")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.xmp")}


def test_it_goes_on_where_it_stopped(model, readers, library, monkeypatch):
    describe_each, asked = model.describe_each, []

    def stopped_at_the_second(*arguments: Any, **options: Any) -> list[str]:
        asked.append(arguments[0])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return describe_each(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "describe_each", stopped_at_the_second)
        (library / "2024" / "broken.jpg").unlink()
        with pytest.raises(KeyboardInterrupt):
            caption_library(library, library, model, readers)
    assert not list(library.rglob(".*"))
    assert caption_library(library, library, model, readers)[:2] == (2, 1)


def test_a_new_reader_is_added_and_the_rest_of_a_sidecar_stays(model, readers, said, library):
    sidecar = library / "scene.png.xmp"
    sidecar.write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        '<rdf:li xml:lang="x-default">Ours, 1987</rdf:li><rdf:li xml:lang="en-x-ana">mine</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    caption_library(library, library, model, readers)
    assert alternatives(sidecar) == {"x-default": "Ours, 1987", "en-x-ana": "mine", "en-x-ben": said["ben"]}
    assert 'xmp:Rating="4"' in sidecar.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["<x:xmpmeta", "<html/>", ""])
def test_a_sidecar_that_is_none_is_left_alone(model, readers, library, content):
    sidecar = library / "scene.png.xmp"
    sidecar.write_text(content)
    count = caption_library(library, library, model, readers)
    assert (count.described, set(count.broken)) == (2, {library / "scene.png", library / "2024" / "broken.jpg"})
    assert sidecar.read_text() == content


def test_readers_need_names_that_tell_them_apart(personas):
    nameless = attrs.evolve(personas["ana"], name=None)
    for people in ([nameless], [personas["ana"], attrs.evolve(personas["ben"], name="Ana!")]):
        with pytest.raises(InvalidArgumentError, match="needs a name"):
            language_tags(people)


def test_texts_that_xml_cannot_write_are_written_without(model, readers, library, monkeypatch):
    monkeypatch.setattr(model, "describe_each", lambda *_, **__: ["a\x00 <b> & \x1b", "ok"])
    caption_library(library, library, model, readers)
    assert alternatives(library / "scene.jpg.xmp")["en-x-ana"] == "a <b> & "


# --- the pages


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's first console block, one a line, those of pip left out."""
    (block, *_) = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("pip ")]


def test_the_commands_of_the_readmes_run(said, tmp_path):
    """In a folder that looks like a clone; the server has tests of its own."""
    shutil.copytree(ROOT / "pydeper" / "builtin", tmp_path / "pydeper" / "builtin")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    programs = {"pydeper": [sys.executable, "-m", "pydeper"], "python": [sys.executable], "mkdir": ["mkdir"]}
    for program, *arguments in [*commands(EXAMPLES / "README.md"), *commands(EXAMPLES / "photo_library" / "README.md")]:
        command = [*programs[program], *arguments]
        # -P: `pydeper` is the installed one, not the folder that only looks like a clone.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs" / "captions.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 2 * 11
    assert {"photo": "scene.png", "reader": "en-x-ana", "description": said["ana"]} in rows
    shown = (EXAMPLES / "photo_library" / "README.md").read_text(encoding="utf-8")
    for language, start in re.findall(r'xml:lang="([\w-]+)">([^…]+)…', shown):
        assert said["ben" if language == "en-x-ben" else "ana"].startswith(start), language


def test_the_readmes_say_that_the_model_knows_drawn_scenes_only():
    for page in EXAMPLES.rglob("README.md"):
        assert "drawn scenes" in page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists()
