"""Thousands of damaged files: nothing but a `PydeperError` comes out, quickly and without much memory.

The seeds are the golden files. `make test-slow` goes on for longer, and hands what passes to ONNX Runtime as well.
"""

import contextlib
import copy
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydeper import Persona, PydeperError
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.manifest import read_manifest
from pydeper.bundle.tokenizer import open_tokenizer
from pydeper.runtime.mapped_arrays import map_array
from pydeper.runtime.onnx_file import check_model
from tests.support.paths import GOLDEN, ROOT

BUNDLE = GOLDEN / "bundle"
MEGABYTE = 1 << 20


def read_npy(path: Path) -> None:
    map_array(path)


READERS: dict[str, Callable[[Path], object]] = {
    "ana.safetensors": Persona.load,
    "bundle/config.json": lambda path: BundleConfig.from_json(path.read_bytes()),
    "bundle/manifest.json": lambda path: read_manifest(path.parent),
    "bundle/tokenizer.json": lambda path: open_tokenizer(path).encode("a red circle <subj> é").ids,
    "bundle/adapter.onnx": check_model,
    "bundle/vlm/decoder_model_merged.onnx": check_model,
    "bundle/vlm/embed_tokens.npy": read_npy,
}

# --- bytes


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes flipped, cut out, repeated, put elsewhere or cut short; the beginning, where headers are, most often."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        last = max(len(changed) - 1, 0)
        place = draw(st.integers(0, last) | st.integers(0, min(last, 400)))
        match draw(st.integers(0, 5)):
            case 0:
                changed[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del changed[place : place + draw(st.integers(1, 40))]
            case 2:
                del changed[place:]
            case 3:
                start = draw(st.integers(0, last))
                changed[place:place] = changed[start : start + draw(st.integers(1, 200))]
            case 4:
                changed[place : place + 8] = draw(st.sampled_from([b"\xff" * 8, b"\x00" * 8, b"\x80" * 8, b"\xff" * 9]))
            case 5:
                changed[place:place] = draw(st.binary(max_size=20))
    return bytes(changed)


# --- trees of JSON


NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, -(2**64), 10**19, 1e308, -1e308, 1e-300)
TEXTS = ("", " ", "1", "١", "..", "/", "../x", "nul", "a" * 300, "\x1b[2J", "\u202e", "<subj>", "org/name")
ODD = st.one_of(
    st.sampled_from([None, True, False, [], {}, [[]], [{}], {"": {}}, *NUMBERS, *TEXTS]),
    st.text(max_size=6),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from places(value)


def one_of(draw: st.DrawFn, tree: Any) -> tuple[Any, Any]:
    found = list(places(tree))
    return found[draw(st.integers(0, len(found) - 1))]


RAW = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 30, "[" * 2000 + "]" * 2000, '"\\ud800"']


@st.composite
def rewritten(draw: st.DrawFn, tree: Any) -> bytes:
    """The text of a JSON tree with values replaced, dropped, copied or added, and with what JSON forbids."""
    changed = {"root": copy.deepcopy(tree)}
    raw = {}
    for _ in range(draw(st.integers(1, 3))):
        container, key = one_of(draw, changed)
        match draw(st.integers(0, 5)):
            case 0 | 1:
                container[key] = copy.deepcopy(draw(ODD))
            case 2:
                del container[key]
                changed.setdefault("root", None)
            case 3:
                other, name = one_of(draw, changed)
                container[key] = copy.deepcopy(other[name])
            case 4 if isinstance(container, dict):
                container[draw(st.text(max_size=4))] = copy.deepcopy(draw(ODD))
            case _:
                mark = f"@{len(raw)}@"
                raw[mark] = draw(st.sampled_from(RAW))
                container[key] = mark
    text = json.dumps(changed["root"], ensure_ascii=draw(st.booleans()))
    for mark, value in raw.items():
        text = text.replace(f'"{mark}"', value)
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("{", '{"format_version": 1, ', draw(st.integers(1, 3)))
    return text.encode("utf-8", "surrogatepass")


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


# --- running


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "golden"
    shutil.copytree(GOLDEN, folder)
    return folder


def attempt(workplace: Path, name: str, data: bytes) -> None:
    """Reads a changed file; what else than a `PydeperError` comes out, fails the test."""
    path = workplace / name
    path.write_bytes(data)
    began = time.thread_time()  # of this thread alone: how busy the machine is does not count
    tracemalloc.start()
    try:
        with contextlib.suppress(PydeperError):
            READERS[name](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.thread_time() - began < 5
    assert peak < 4 * MEGABYTE + 30 * len(data)


def examples(count: int) -> Callable[[Any], Any]:
    """A fixed budget; `slow` tests pass more."""
    return settings(
        max_examples=count, derandomize=True, database=None, suppress_health_check=[*HealthCheck], print_blob=False
    )


def fuzz_bytes(workplace: Path, name: str, count: int) -> None:
    original = (GOLDEN / name).read_bytes()

    @examples(count)
    @given(damaged(original))
    def run(data: bytes) -> None:
        attempt(workplace, name, data)

    run()


def fuzz_json(workplace: Path, name: str, count: int) -> None:
    whole = (GOLDEN / name).read_bytes()
    tree, rest = header_of(whole) if name.endswith(".safetensors") else (json.loads(whole), None)
    if name.endswith("tokenizer.json"):  # of its hundreds of entries a few will do
        tree["model"]["merges"] = tree["model"]["merges"][:3]

    @examples(count)
    @given(rewritten(tree))
    def run(data: bytes) -> None:
        attempt(workplace, name, data if rest is None else with_header(data, rest))

    run()


TREES = [name for name in READERS if name.endswith((".json", ".safetensors"))]


@pytest.mark.parametrize("name", READERS)
def test_damaged_bytes(workplace: Path, name: str) -> None:
    fuzz_bytes(workplace, name, 200)


@pytest.mark.parametrize("name", TREES)
def test_rewritten_json(workplace: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz_json(workplace, name, 120)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_bytes_for_long(workplace: Path, name: str) -> None:
    fuzz_bytes(workplace, name, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_rewritten_json_for_long(workplace: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz_json(workplace, name, 10_000)


# --- what a real system would die of, with its memory limited


RUN = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
sys.path.insert(0, sys.argv[2])
from tests.pydeper import test_fuzz
test_fuzz.{run}(Path(sys.argv[3]), int(sys.argv[4]))
print("done")
"""


def in_limited_memory(run: str, folder: Path, count: int, gigabytes: float) -> None:
    limit = str(int(gigabytes * 1024) * MEGABYTE)
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(run=run), limit, str(ROOT), folder, str(count)],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.rstrip().endswith("done")


def read_the_huge(folder: Path, count: int) -> None:
    """Files whose words or length promise gigabytes."""
    huge = [
        ("ana.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
        ("ana.safetensors", with_header(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}}' % 2**60, b"0000")),
        ("bundle/config.json", b"[" * (3 * MEGABYTE)),
        ("bundle/manifest.json", b'{"format_version": 1, "files": {' + b'"a":{},' * (300_000) + b"}}"),
        ("bundle/adapter.onnx", b"\x3a\xff\xff\xff\xff\x0f" + b"\x0a\x00" * 1000),
        ("bundle/vlm/embed_tokens.npy", npy(f"{(2**40, 2**20)}")),
        ("bundle/vlm/embed_tokens.npy", npy("(-1, 8)")),
        ("bundle/vlm/embed_tokens.npy", npy("(" * 5000)),
    ]  # fmt: skip
    for name, data in huge * count:
        attempt(folder, name, data)
    for name in ("ana.safetensors", "bundle/manifest.json", "bundle/tokenizer.json"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 36)  # a hole of 64 GiB
        with contextlib.suppress(PydeperError):
            READERS[name](folder / name)


def npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64


def open_with_the_runtime(folder: Path, count: int) -> None:
    """What the walk lets through goes to ONNX Runtime, which must refuse it or load it."""
    from pydeper.runtime.session import open_session

    rng = np.random.default_rng(0)
    for name in ("bundle/adapter.onnx", "bundle/vlm/decoder_model_merged.onnx"):
        original = (GOLDEN / name).read_bytes()
        graph = [place for place in range(len(original)) if not 40 < place < len(original) - 900 or place % 7 == 0]
        for _ in range(count):
            data = bytearray(original)
            for _ in range(int(rng.integers(1, 4))):
                place = int(rng.choice(graph)) % len(data)
                data[place : place + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 3)))
            (folder / name).write_bytes(data)
            with contextlib.suppress(PydeperError):
                open_session(folder / name, threads=1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_what_promises_gigabytes_is_refused_without_them(workplace: Path) -> None:
    in_limited_memory("read_the_huge", workplace, 1, 1.5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_what_passes_does_not_bring_the_runtime_down(workplace: Path) -> None:
    in_limited_memory("open_with_the_runtime", workplace, 3000, 4)
