"""Nothing dangerous comes out of what was downloaded: no code, no other file, no command to a terminal."""

import ast
import json
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from PIL import Image

import pydeper
from pydeper import BundleError, InvalidImageError, PersonaError, PydeperError
from pydeper.bundle.layout import BUILTIN
from pydeper.bundle.tokenizer import open_tokenizer
from pydeper.images import open_image
from pydeper.runtime.mapped_arrays import map_array
from pydeper.runtime.onnx_file import check_model
from pydeper.runtime.session import open_session
from pydeper.untrusted import is_inner_path, is_plain_name, is_plain_text, legible, parse_json, shown

SDK = Path(pydeper.__file__).parent
EXPORTED = sorted(BUILTIN.rglob("*.onnx"))
WEIGHTS = np.arange(32, dtype=np.float32).reshape(8, 4)


# --- no code


# Reads the gaze files of one published dataset, which are pickles, with stand-ins for all that they may name.
RESTRICTED = SDK / "readers" / "restricted_pickle.py"
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
            assert not {alias.name.split(".")[0] for alias in node.names} & RUNS_CODE
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in RUNS_CODE
            assert not (node.module or "").endswith(RESTRICTED.stem) or path.parent == RESTRICTED.parent
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


# --- ONNX files


def model(*nodes, weights=None, **more):
    """y = x @ w, and further nodes."""
    weights = weights or numpy_helper.from_array(WEIGHTS, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, **more)


def outside(location="w.bin", **more):
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    set_external_data(tensor, location, **more)
    tensor.ClearField("raw_data")
    return model(weights=tensor)


def branch(*nodes):
    """A node that holds graphs."""
    empty = helper.make_graph([], "else", [], [])
    inner = helper.make_graph(list(nodes), "then", [], [])
    return helper.make_node("If", ["c"], [], then_branch=inner, else_branch=empty)


def written(folder, made):
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


@pytest.mark.parametrize("path", EXPORTED, ids=lambda path: path.name)
def test_what_we_export_passes(path):
    check_model(path)


@pytest.fixture
def elsewhere():
    """Opens sessions in a thread of their own: the first one makes its thread take tiny numbers for 0, for good."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda *arguments, **options: pool.submit(open_session, *arguments, **options).result()


def test_a_sound_model_runs_with_weights_inside_and_beside(tmp_path, elsewhere):
    x = np.ones((2, 8), np.float32)
    session = elsewhere(written(tmp_path, model()), threads=1)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ WEIGHTS)
    (tmp_path / "w.bin").write_bytes(b"-" * 64 + WEIGHTS.tobytes())
    session = elsewhere(written(tmp_path, outside(offset=64, length=WEIGHTS.nbytes)), threads=1)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x @ WEIGHTS)


EVIL = helper.make_node("Run", ["x"], ["z"], domain="evil.ops")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (model(EVIL), r"operator of the domain 'evil\.ops'.*known: '', 'ai\.onnx', 'com\.microsoft'"),
        (model(branch(EVIL)), r"domain 'evil\.ops'"),
        (model(branch(branch(branch(EVIL)))), r"domain 'evil\.ops'"),
        (model(helper.make_node("Run", [], [], domain="\x1b[2J")), r"domain '\\x1b\[2J'"),
        (model(helper.make_node("EPContext", [], ["z"], domain="com.microsoft")), "operator 'EPContext'"),
        (model(branch(helper.make_node("PythonOp", [], ["z"], domain="com.microsoft"))), "operator 'PythonOp'"),
        (
            model(functions=[helper.make_function("f", "F", ["a"], ["b"], [], [helper.make_opsetid("", 20)])]),
            "functions of its own",
        ),
        (b"", "has 0 bytes"),
        (b"ORTM" * 100, "damaged"),
        (model().SerializeToString()[:-5], "cut short or damaged"),
        (model().SerializeToString() + b"\x0b\x0c", "damaged"),  # a group, which protobuf would step over
        (b"\x82\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "cut short or damaged"),
    ],
)
def test_a_model_that_brings_other_code_is_refused_before_it_is_opened(tmp_path, made, told):
    path = written(tmp_path, made)
    with pytest.raises(BundleError, match=rf"model\.onnx: .*{told}"):
        open_session(path)


def test_training_steps_and_sparse_tensors_are_refused(tmp_path):
    trained = model()
    trained.training_info.add().algorithm.node.append(EVIL)
    sparse = model()
    dense = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    where = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(dense, where, [2**40]))
    constant = model(
        helper.make_node("Constant", [], ["z"], sparse_value=helper.make_sparse_tensor(dense, where, [2**40]))
    )
    for made, told in ((trained, "steps for training"), (sparse, "sparse tensors"), (constant, "sparse tensors")):
        with pytest.raises(BundleError, match=told):
            check_model(written(tmp_path, made))


@pytest.mark.parametrize(
    "location",
    [
        *("/etc/passwd", "../w.bin", "sub/w.bin", "./w.bin", "..", ".", "", "C:w.bin", "\\\\host\\w.bin", "sub\\w.bin"),
        *("w.bin:stream", "nul", "COM1.bin", "w.bin.", "w.bin ", "w\x00.bin", "w\u202e.bin", "*/_ORT_MEM_ADDR_/*"),
    ],
)
def test_weights_come_only_from_a_file_beside_the_model(tmp_path, location):
    (tmp_path / "sub").mkdir()
    (tmp_path / "model").mkdir()
    for place in (tmp_path, tmp_path / "sub", tmp_path / "model"):
        (place / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = written(tmp_path / "model", outside(location, offset=0, length=WEIGHTS.nbytes))
    with pytest.raises(BundleError, match=r"wants weights from .* not the name of a file beside it"):
        open_session(path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"offset": 1, "length": WEIGHTS.nbytes}, r"wants 128 bytes from byte 1 of 'w\.bin', which has 128"),
        ({"offset": 2**62, "length": 2**62}, "which has 128"),
        ({"offset": 129}, "which has 128"),
        ({"offset": -1}, "not a number of bytes"),
        ({"offset": 0, "length": -5}, "not a number of bytes"),
        ({"length": 1}, "a tensor of 32 elements in 1 bytes"),
    ],
)
def test_weights_must_lie_inside_their_file(tmp_path, more, told):
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(BundleError, match=told):
        check_model(written(tmp_path, outside(**more)))


def test_a_tensor_says_one_thing_of_where_it_lies(tmp_path):
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    made = outside()
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(BundleError, match="says twice of a tensor what its 'location' is"):
        check_model(written(tmp_path, made))
    made = outside("missing.bin")
    with pytest.raises(BundleError, match=r"wants weights from missing\.bin, which is not beside it"):
        check_model(written(tmp_path, made))
    hidden = model(helper.make_node("Constant", [], ["z"], value=outside("../w.bin").graph.initializer[0]))
    with pytest.raises(BundleError, match="not the name of a file beside it"):
        check_model(written(tmp_path, hidden))


@pytest.mark.parametrize("dims", [[2**40], [2**31, 2**31, 2**31], [-1], [1 << 20, 1]])
def test_a_tensor_that_is_larger_than_its_bytes_is_refused(tmp_path, dims):
    made = model()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(dims)
    with pytest.raises(BundleError, match=r"elements in \d+ bytes|too large|negative size"):
        check_model(written(tmp_path, made))


def test_graphs_in_graphs_end_somewhere(tmp_path):
    def field(number, payload):
        size, length = len(payload), b""
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    graph = b""
    for _ in range(10_000):  # a graph holds a node holds an attribute holds a graph; onnx itself would not write it
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(BundleError, match="more than 64 deep"):
        check_model(written(tmp_path, field(7, graph)))


def verdict(proto, folder):
    """Whether a model is to be refused for what it uses; told from `onnx`'s own objects."""

    def tensors(graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                for inner in graphs(attribute):
                    yield from tensors(inner)

    def graphs(attribute):
        return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]

    def nodes(graph):
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                for inner in graphs(attribute):
                    yield from nodes(inner)

    foreign = any(node.domain not in ("", "ai.onnx", "com.microsoft") for node in nodes(proto.graph))
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in tensors(proto.graph)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
    ]
    return foreign or bool(proto.functions) or any(place.get("location") not in folder for place in places)


def test_the_reader_agrees_with_onnx_on_damaged_files(tmp_path):
    """Whatever protobuf still reads, and finds foreign operators or files in, must be refused."""
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes() * 4)
    rng = np.random.default_rng(0)
    tensor = outside("w.bin", offset=0, length=WEIGHTS.nbytes).graph.initializer[0]
    node = helper.make_node("Gelu", ["y"], ["z"], domain="com.microsoft")
    whole = model(branch(node, helper.make_node("Constant", [], ["q"], value=tensor)), weights=tensor)
    data = whole.SerializeToString()
    read = foreign = passed = 0
    for _ in range(2500):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 3)):
            place = int(rng.integers(len(changed)))
            match rng.integers(3):
                case 0:
                    changed[place] = rng.integers(256)
                case 1:
                    del changed[place : place + int(rng.integers(1, 4))]
                case 2:
                    other = int(rng.integers(len(data)))
                    changed[place:place] = data[other : other + int(rng.integers(1, 24))]
        try:
            check_model(written(tmp_path, bytes(changed)))
            sound = True
        except BundleError:
            sound = False
        passed += sound
        try:
            proto = onnx.ModelProto.FromString(bytes(changed))
        except Exception:
            assert True  # not a message at all: either verdict is right, for the runtime refuses it too
            continue
        read += 1
        if verdict(proto, {"w.bin"}):
            foreign += 1
            assert not sound, bytes(changed)
    assert min(read, foreign, passed) > 50


@pytest.mark.parametrize("path", EXPORTED, ids=lambda path: path.name)
def test_every_operator_of_an_exported_file_is_seen(path, tmp_path):
    proto = onnx.load(path)
    rng = np.random.default_rng(0)
    for index in rng.choice(len(proto.graph.node), min(8, len(proto.graph.node)), replace=False):
        changed = onnx.ModelProto.FromString(proto.SerializeToString())
        changed.graph.node[int(index)].domain = "evil.ops"
        with pytest.raises(BundleError, match=r"evil\.ops"):
            check_model(written(tmp_path, changed))


# --- the tokenizer


def tokenizer_file(folder, **changes):
    whole = json.loads((BUILTIN / "tiny" / "tokenizer.json").read_text(encoding="utf-8"))
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(whole | changes), encoding="utf-8")
    return path


def test_a_tokenizer_may_not_ask_for_padding_or_cut_texts(tmp_path):
    padding = {
        "strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "x",
    }  # fmt: skip
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    tokenizer = open_tokenizer(tokenizer_file(tmp_path, padding=padding, truncation=truncation))
    assert 1 < len(tokenizer.encode("a red circle", add_special_tokens=False).ids) < 20


def test_a_tokenizer_that_breaks_the_library_is_a_bundle_error(tmp_path, capfd):
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    for changes in (
        {"normalizer": normalizer},
        {"model": None},
        {"model": {"type": "BPE", "vocab": {}, "merges": [1]}},
    ):
        with pytest.raises(BundleError, match=r"tokenizer\.json: is not a tokenizer"):
            open_tokenizer(tokenizer_file(tmp_path, **changes))
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(BundleError, match="is not a tokenizer"):
        open_tokenizer(path)
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)  # a hole: it takes no room on the disk
    with pytest.raises(BundleError, match="is larger than"):
        open_tokenizer(path)


# --- texts


@pytest.mark.parametrize("text", ["ana", "Ána María", "عائشة", "李明", "नेहा", "👩‍🔬", "می‌خواهم", "a (b) [c] {d} 'e'"])
def test_names_of_all_scripts_are_plain(text):
    assert is_plain_text(text)
    assert legible(text) == text


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "a\x00", "\x9b2J", "a\u202eb", "\u2066a", "a\u2028b", "\ud800", "a\rb", "\x07"]
)
def test_what_commands_a_terminal_is_written_out(text):
    assert not is_plain_text(text, breaks=True)
    safe = legible(text)
    assert is_plain_text(safe)
    assert "\\" in safe
    assert is_plain_text(str(PydeperError(text)))
    assert is_plain_text(shown(text))


def test_line_breaks_are_kept_where_they_are_plain():
    assert legible("a\n\tb\x1b") == "a\n\tb\\x1b"
    assert not is_plain_text("a\nb")
    assert is_plain_text("a\nb", breaks=True)


def test_what_is_shown_is_short_whatever_it_is():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("x" * 10**6, 10**5000, list(range(10**5)), nested, {"k" * 1000: "v" * 1000}, b"b" * 10**6):
        assert len(shown(value)) <= 80


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *[(name, True) for name in ("a", "a.onnx", "a.onnx_data_1", "scène.png", "com10.txt", "console", "my file")],
        *[(name, False) for name in ("", ".", "..", "a/b", "a\\b", "a:b", "con", "CON.txt", "lpt¹", "aux .x")],
        *[(name, False) for name in ("a.", "a ", "a\n", "a\x00", "a*", "x" * 256, "é" * 128, "e\u0301", "\ud800")],
    ],
)
def test_names_mean_the_same_file_everywhere(name, plain):
    assert is_plain_name(name) is plain
    assert is_inner_path(f"vlm/{name}") is plain or "/" in name


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": 1, "b": 2, "a": 1}', "same key twice in one object: 'a'"),
        (b"[NaN]", "NaN is not"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"[1e400]", "too large a number"),
        (b"1" * 5000, "5000 digits"),
        (b"[" * 65 + b"]" * 65, "more than 64 deep"),
        (b"[" * 10**6, "not valid JSON"),
        (b'["\\ud800"]', "surrogates"),
        (b'{"\\udfff": 1}', "surrogates"),
        (b"", "not valid JSON"),
    ],
)
def test_json_that_is_not_plain_is_refused(data, told):
    with pytest.raises(BundleError, match=told):
        parse_json(data, BundleError)
    with pytest.raises(PersonaError, match=told):  # which is a ValueError as well
        parse_json(data, PersonaError)


def test_plain_json_is_read():
    assert parse_json(b'{"a": [1, -2.5, null, true, "\\ud83d\\ude00"]}', BundleError) == {
        "a": [1, -2.5, None, True, "😀"]
    }
    assert parse_json(b"[" * 64 + b"]" * 64, BundleError)


def test_what_libraries_say_of_a_file_is_made_legible(tmp_path, elsewhere):
    header = json.dumps({"\x1b[2J": {"dtype": "\x1b[31m", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "p.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(PersonaError) as caught:
        pydeper.Persona.load(tmp_path / "p.safetensors")
    assert is_plain_text(str(caught.value))
    made = model(helper.make_node("No\x1b[31mSuch", ["y"], ["\x1b]0;title\x07"]))
    with pytest.raises(BundleError, match="cannot load this model") as refused:
        elsewhere(written(tmp_path, made))
    assert is_plain_text(str(refused.value), breaks=True)


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
