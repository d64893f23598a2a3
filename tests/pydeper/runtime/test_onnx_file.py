"""An ONNX file is walked before it is opened: no foreign code, no other file, no promise that its bytes do not keep."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from pydeper import BundleError
from pydeper.bundle.layout import BUILTIN
from pydeper.runtime.onnx_file import check_model
from pydeper.runtime.session import open_session
from pydeper.untrusted import is_plain_text

EXPORTED = sorted(BUILTIN.rglob("*.onnx"))


WEIGHTS = np.arange(32, dtype=np.float32).reshape(8, 4)


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


def test_what_the_runtime_says_of_a_file_is_made_legible(tmp_path, elsewhere):
    made = model(helper.make_node("No\x1b[31mSuch", ["y"], ["\x1b]0;title\x07"]))
    with pytest.raises(BundleError, match="cannot load this model") as refused:
        elsewhere(written(tmp_path, made))
    assert is_plain_text(str(refused.value), breaks=True)
