"""Nothing dangerous comes out of what was downloaded: no code, no other file, no command to a terminal."""

import ast
import json
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pydeper
from pydeper import BundleError, InvalidImageError, PersonaError
from pydeper.images import open_image
from pydeper.runtime.mapped_arrays import map_array
from pydeper.untrusted import is_plain_text

SDK = Path(pydeper.__file__).parent


# --- no code


# Reads the gaze files of one published dataset, which are pickles, with stand-ins for all that they may name.
RESTRICTED = SDK / "readers" / "restricted_pickle.py"
# Tells a forked process's C library how to end it; reads no file.
FORKS = SDK / "runtime" / "forks.py"
# Writes a pickle, opcode by opcode, and reads none.
TORCH_FILE = SDK / "vlm" / "vllm" / "torch_file.py"
RUNS_CODE = {
    *("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop", "runpy", "ctypes"),
    *("subprocess", "torch", "yaml"),
}


@pytest.mark.parametrize(
    "path", sorted({*SDK.rglob("*.py")} - {RESTRICTED}), ids=lambda path: str(path.relative_to(SDK))
)
def test_the_sdk_neither_unpickles_nor_runs_what_it_reads(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            allowed = {FORKS: {"ctypes"}, TORCH_FILE: {"pickle"}}.get(path, set())
            assert not {alias.name.split(".")[0] for alias in node.names} & RUNS_CODE - allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in RUNS_CODE
            assert not (node.module or "").endswith(RESTRICTED.stem) or path.parent == RESTRICTED.parent
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr.isupper()  # an opcode
        elif isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called not in ("eval", "exec", "compile", "__import__", "system") or ast.unparse(node.func) in (
                "re.compile",
                "platform.system",
            ), ast.unparse(node)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False", ast.unparse(node)
            assert "trust_remote_code" not in options, ast.unparse(node)
            assert called != "register_custom_ops_library", ast.unparse(node)


def test_an_array_file_that_holds_a_pickle_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "archive.npz", np.zeros(3))
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npy", "archive.npz", "plain.npy"):
        with pytest.raises(BundleError, match=rf"{name}: not a numpy array file"):
            map_array(tmp_path / name)
    assert not (tmp_path / "ran").exists()


# --- messages


def test_what_a_library_says_of_a_file_is_made_legible(tmp_path):
    header = json.dumps({"\x1b[2J": {"dtype": "\x1b[31m", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "p.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(PersonaError) as caught:
        pydeper.Persona.load(tmp_path / "p.safetensors")
    assert is_plain_text(str(caught.value))


# --- pictures


def test_a_picture_that_unpacks_without_end_is_refused_by_its_header(tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (8, 8)).save(bomb)
    data = bytearray(bomb.read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = struct.pack(">I", crc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in an app, where Pillow's warning stops nothing
        for image in (bytes(data), bytes(data[:16]) + struct.pack(">II", 9_460, 9_460) + _recheck(data)):
            with pytest.raises(InvalidImageError, match=r"too large .*make it smaller first"):
                open_image(image)


def _recheck(data):
    head = bytes(data[12:16]) + struct.pack(">II", 9_460, 9_460) + bytes(data[24:29])
    return bytes(data[24:29]) + struct.pack(">I", zlib.crc32(head)) + bytes(data[33:])
