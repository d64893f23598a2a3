"""`pydeper describe --output` of a file that is gone on with: .jsonl and .parquet."""

import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import pydeper
from pydeper import DeperModel, Persona
from pydeper.cli.main import main
from pydeper.images import open_image
from tests.support.images import random_image
from tests.support.processes import running_python

SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@pytest.fixture
def home(tmp_path, monkeypatch, ana, ben):
    """A folder with three pictures and the personas of two people."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "people"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        random_image(60, 60, seed).save(f"pictures/{seed}.png")
    ana.save("people/ana.safetensors")
    ben.save("people/ben.safetensors")
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def rows(path: Path) -> list[dict[str, str | None]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@SUFFIXES
def test_a_folder_is_described_for_a_folder_of_people(home, bundle_folder, model, ana, ben, capsys, suffix):
    command = ("describe", "pictures", "-o", f"out{suffix}", "--model", bundle_folder, "--max-new-tokens", 4)
    assert run(*command, "--personas", "people") == 0
    assert rows(home / f"out{suffix}") == [
        {"image": image, "persona": name, "description": model.describe(image, persona, max_new_tokens=4)}
        for image in (f"pictures/{seed}.png" for seed in range(3))
        for name, persona in (("ana", ana), ("ben", ben))
    ]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"out{suffix}: 6 descriptions (")
    assert printed.err.endswith(" a second)\n")

    (home / "pictures/1b.png").write_bytes(b"no image")
    (home / "pictures/1c.png").write_bytes(b"no image")
    assert run(*command, "--persona", "people/ana.safetensors", "--personas", "people/ben.safetensors") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"out{suffix}: 0 descriptions, 6 were there, 2 images failed:"
    assert lines[1].startswith("  pictures/1b.png: image 'pictures/1b.png' is not an image file")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("describe - -o out.jsonl", "-: out.jsonl is a file to go on with"),
        ("describe pictures --personas people people/ana.safetensors -o out.jsonl", "two are called 'ana'"),
        ("describe pictures --personas pictures -o out.jsonl", "pictures: the folder holds no personas"),
        ("describe pictures --batch-size 0 -o out.jsonl", "must be a whole number from 1 on, got 0"),
        ("describe pictures --batch-size 4", "--batch-size: is for an --output that ends in .jsonl or .parquet"),
        ("describe pictures --max-new-tokens 0 -o out.jsonl", "max_new_tokens"),
        ("describe pictures -o no/such/out.jsonl", "no/such/out.jsonl"),
        ("describe pictures -o pictures/old.jsonl", "pictures/old.jsonl: is there already, and without old.jsonl.run"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_file(home, bundle_folder, capsys, monkeypatch, arguments, told):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((home / "pictures/0.png").read_bytes())))
    (home / "pictures/old.jsonl").write_text("{}\n")
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert run(*arguments.split(), "--model", bundle_folder) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert told in printed.err
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_pipe_that_is_called_like_a_file_is_written_into(home, bundle_folder, model):
    (home / "out.jsonl").symlink_to("/dev/stdout")
    done = subprocess.run(
        [sys.executable, "-m", "pydeper", "describe", "pictures/0.png", "--json", "-o", "out.jsonl",
         "--model", str(bundle_folder), "--max-new-tokens", "4"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["description"] == model.describe("pictures/0.png", max_new_tokens=4)


@pytest.mark.parametrize(("suffix", "places"), [(".jsonl", (1, 20)), (".parquet", (20,))])
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_nothing_is_lost_or_written_twice_by_kill_9(tmp_path, suffix, places):
    """The real command, killed at random places, the first of them before or soon after its first lines."""
    scene, chance = np.asarray(open_image(pydeper.demo_image())), random.Random(f"places {suffix}")
    images = [tmp_path / f"{number:02}.png" for number in range(24)]
    for number, image in enumerate(images):
        Image.fromarray(np.roll(scene, 5 * number, axis=1)).save(image)
    people = {name: Persona.from_samples(pydeper.demo_samples(name), model="tiny") for name in ("ana", "ben")}
    for name, persona in people.items():
        persona.save(tmp_path / f"{name}.safetensors")
    output = tmp_path / f"out{suffix}"
    growing = output if suffix == ".jsonl" else tmp_path / "out.parquet.part.jsonl"
    command = [
        "-m", "pydeper", "describe", str(tmp_path), "--personas", str(tmp_path), "--model", "tiny", "--threads", "1",
        "--batch-size", "2", "--max-new-tokens", "24", "--output", str(output),
    ]  # fmt: skip
    killed = 0
    for most in places:
        lines = chance.randint(1, most) + (growing.read_bytes().count(b"\n") if growing.exists() else 0)
        with running_python(*command) as process:
            while process.poll() is None and (not growing.exists() or growing.read_bytes().count(b"\n") < lines):
                time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    assert killed
    with running_python(*command) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert " were there" in printed
    found = rows(output)
    assert sorted((row["image"], row["persona"]) for row in found) == [
        (str(image), name) for image in images for name in sorted(people)
    ]
    model = DeperModel.from_pretrained("tiny", threads=1)
    texts = model.describe_batch([(row["image"], people[row["persona"]]) for row in found], max_new_tokens=24)
    assert [row["description"] for row in found] == texts
    assert sorted(path.name for path in tmp_path.glob("*out*")) == [output.name, f"{output.name}.run.json"]


def test_ctrl_c_says_how_to_go_on(home, bundle_folder, capsys, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pydeper.DeperModel.describe_batch", interrupt)
    assert run("describe", "pictures", "-o", "out.jsonl", "--model", bundle_folder) == 130
    assert capsys.readouterr().err.strip() == "out.jsonl: interrupted; the same command goes on"
