"""ONNX Runtime's fused operators as functions of torch tensors.

They stand for their operator in a traced graph and compute nothing in torch: a module that uses them is for
`export.graphs.trace.trace` alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_MICROSOFT = "com.microsoft"


def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Turns the pairs (x_i, x_{i + d/2}) of every head of x (B, S, heads · d) by angles of its own at every token.

    The operator looks angles up by position; here the table is as long as the input, one row a token, so that
    positions of any kind (three axes, rows and columns) can be put into it.

    Args:
        x: (B, S, heads · d).
        cos: (B · S, d / 2).
        sin: (B · S, d / 2).
        heads: Number of heads.
    """
    batch, length, _ = x.shape
    rows = torch.arange(batch * length).reshape(batch, length)
    return torch.onnx.ops.symbolic(
        f"{_MICROSOFT}::RotaryEmbedding",
        (x, rows, cos, sin),
        {"num_heads": heads},
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )


def attention_within_images(q: Tensor, k: Tensor, v: Tensor, image_grid_thw: Tensor, heads: int) -> Tensor:
    """Attention of all patches of an image to all of the same image; on a CPU block by block.

    Args:
        q: (1, N, heads · d), the images one after another, all of the same number of patches: where they are not, the
            graph fails when it runs.
        k: As q.
        v: As q.
        image_grid_thw: (K, 3) int64, frames (1), rows and columns of each image.
        heads: Number of heads.

    Returns:
        (1, N, heads · d).
    """
    images, (_, patches, width) = image_grid_thw.shape[0], q.shape
    largest = image_grid_thw.prod(dim=1).amax(dim=0)
    apart = torch.stack([torch.tensor(images), largest, torch.tensor(width)])

    def reshaped(x: Tensor, shape: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return torch.onnx.ops.symbolic("::Reshape", (x, shape), {}, dtype=x.dtype, shape=sizes, version=20)

    q, k, v = (reshaped(x, apart, (images, patches // images, width)) for x in (q, k, v))
    attended = torch.onnx.ops.symbolic(
        f"{_MICROSOFT}::MultiHeadAttention", (q, k, v), {"num_heads": heads}, dtype=q.dtype, shape=q.shape, version=1
    )
    return reshaped(attended, torch.tensor([1, -1, width]), (1, patches, width))


def grouped_query_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    last: Tensor,
    total: Tensor,
    heads: int,
    kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal attention whose heads share keys and values in groups, over a cache and the tokens that come now.

    Where the cache's buffer is given as past and as present at once, keys and values are written into it in place.

    Args:
        q: (B, S, heads · d).
        k: (B, S, kv_heads · d).
        v: (B, S, kv_heads · d).
        past_key: (B, kv_heads, P, d); P may be the capacity of a buffer.
        past_value: (B, kv_heads, P, d).
        last: (B,) int32, tokens of each row, those that come now included, less one.
        total: () int32, the largest number of tokens of a row, those that come now included.
        heads: Number of query heads.
        kv_heads: Number of key and value heads.

    Returns:
        (B, S, heads · d), and keys and values of all tokens.
    """
    batch, _, width = q.shape
    whole = (batch, kv_heads, past_key.shape[2] + q.shape[1], width // heads)
    attended, key, value = torch.onnx.ops.symbolic_multi_out(
        f"{_MICROSOFT}::GroupQueryAttention",
        (q, k, v, past_key, past_value, last, total),
        {"num_heads": heads, "kv_num_heads": kv_heads},
        dtypes=(q.dtype, k.dtype, v.dtype),
        shapes=(q.shape, whole, whole),
        version=1,
    )
    return attended, key, value


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm over the last axis."""
    return torch.onnx.ops.symbolic(
        "::SimplifiedLayerNormalization",
        (x, weight),
        {"axis": -1, "epsilon": epsilon, "stash_type": 1},
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )


def add_rms_norm(x: Tensor, change: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Returns RMSNorm(x + change), and x + change."""
    normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
        f"{_MICROSOFT}::SkipSimplifiedLayerNormalization",
        (x, change, weight),
        {"epsilon": epsilon},
        dtypes=(x.dtype, torch.float32, torch.float32, x.dtype),
        shapes=(x.shape,) * 4,
        version=1,
    )
    return normed, total


def integer_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Product with an int8 matrix (K, N) of scaled columns, x (1, S, K) rounded to 8 bits row by row.

    The same arithmetic as `export.graphs.int8.quantize_linear_int8`, for weights that are inputs of the graph.

    Args:
        x: (1, S, K).
        weight: (K, N) int8.
        scale: (N,) float32.

    Returns:
        (1, S, N).
    """
    largest = torch.maximum(x.amax(dim=-1, keepdim=True), -x.amin(dim=-1, keepdim=True))
    row_scale = largest.clamp_min(torch.finfo(torch.float32).tiny * 127) / 127
    middle = torch.tensor(128, dtype=torch.uint8)
    quantized = torch.onnx.ops.symbolic(
        "::QuantizeLinear",
        (x, row_scale.flatten(), middle.expand(x.shape[1])),
        {"axis": 1},
        dtype=torch.uint8,
        shape=x.shape,
        version=20,
    )
    product = torch.onnx.ops.symbolic(
        f"{_MICROSOFT}::MatMulIntegerToFloat",
        (quantized, weight, torch.tensor(1.0), scale, middle),
        {},
        dtype=x.dtype,
        shape=(*x.shape[:-1], weight.shape[1]),
        version=1,
    )
    return product * row_scale


def shape_of(x: Tensor, axis: int) -> Tensor:
    """The length of an axis as an int32 scalar that the graph computes."""
    size: Sequence[int] = (1,)
    length = torch.onnx.ops.symbolic(
        "::Shape", (x,), {"start": axis, "end": axis + 1}, dtype=torch.int64, shape=size, version=20
    )
    return length.to(torch.int32).squeeze(0)
