"""What a machine could do at most: how fast it reads memory, and how fast it multiplies 8-bit integers."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measuring.timing import seconds

_ROWS, _INPUTS, _OUTPUTS = 1024, 1280, 5120  # the largest product of Qwen2-VL's image encoder, for 448×448 pixels


def memory_bandwidth(threads: int) -> float:
    """GB/s at which all threads together read memory that is in no cache."""
    parts = np.array_split(np.ones(1 << 27), threads)  # 1 GiB
    with ThreadPoolExecutor(threads) as pool:
        took = min(seconds(lambda: list(pool.map(np.sum, parts))) for _ in range(4))
    return 8 * (1 << 27) / took / 1e9


def integer_throughput(threads: int) -> float:
    """10¹² operations a second of one large product of 8-bit integers in ONNX Runtime; a product and a sum are two."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (_INPUTS, _OUTPUTS), np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [_ROWS, _INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [_ROWS, _OUTPUTS])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": rng.integers(0, 256, (_ROWS, _INPUTS), np.uint8)}
    took = min(seconds(lambda: session.run(None, given)) for _ in range(20))
    return 2 * _ROWS * _INPUTS * _OUTPUTS / took / 1e12


def image_operations(vision: Mapping[str, Any], hidden_size: int, tokens: int) -> float:
    """Operations of Qwen2-VL's image encoder, for an image of so many tokens.

    Args:
        vision: `vision_config` of the model.
        hidden_size: Of the language model.
        tokens: Image tokens.
    """
    width, merged = vision["embed_dim"], vision["spatial_merge_size"] ** 2
    patches = tokens * merged
    cut = vision["in_chans"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * width * patches
    linear = (4 + 2 * vision["mlp_ratio"]) * width**2 * patches
    attention = 2 * patches**2 * width
    merger = ((merged * width) ** 2 + merged * width * hidden_size) * tokens
    return 2.0 * float(cut + vision["depth"] * (linear + attention) + merger)


def prompt_operations(config: Mapping[str, Any], tokens: int) -> float:
    """Operations of Qwen2-VL's language model, for a prompt of so many tokens and the token after it."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    keys = hidden // heads * config["num_key_value_heads"]
    linear = (2 * hidden * (hidden + keys) + 3 * hidden * config["intermediate_size"]) * tokens
    attention = 2 * tokens**2 * hidden  # computed whole, though a token sees only those before it
    return 2.0 * float(config["num_hidden_layers"] * (linear + attention) + hidden * config["vocab_size"])
