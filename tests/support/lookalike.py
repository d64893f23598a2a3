"""Folders that look as published ONNX repositories of Qwen2-VL do (onnx-community/Qwen2-VL-2B-Instruct and its like).

Those were made with tools of their own: graphs of plain operators, with attention spelt out and a cache that grows by
concatenation; logits of every position; the patches' grid under the name `grid_thw`; fp16 forms by a converter that
keeps inputs and outputs in float32 (or all but the cache, as newer repositories have it); 4-bit forms of MatMul alone;
8-bit forms with dynamic quantisation; large weights in `.onnx_data` files. This is a statement of its own and shares no
module with the project's export, so that what reads both reads them by what the graphs say of themselves.
"""

import copy
import functools
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from export.graphs.trace import trace

Variant = Literal["fp32", "fp16", "int8", "uint8", "quantized", "q4", "q4f16", "bnb4"]

# Importing the quantisers turns every library's progress reports on.
logging.getLogger().setLevel(logging.WARNING)

_DATA_THRESHOLD = 4096  # bytes; smaller tensors stay in the graph
_MASKED = -1e9


def write_lookalike(
    folder: Path,
    model: Qwen2VLForConditionalGeneration,
    variants: Sequence[Variant] = ("fp32",),
    *,
    grid_name: str = "grid_thw",
    cache_type: Literal["float32", "float16"] = "float32",
    outside: Sequence[Variant] = (),
) -> Path:
    """Writes a repository's files.

    Args:
        folder: Receives `config.json` and the subfolder `onnx`.
        model: In float32 on the CPU.
        variants: The forms of every part.
        grid_name: The name of the vision encoder's second input: `image_grid_thw` in newer repositories.
        cache_type: Element type of the cache in the forms that compute in float16.
        outside: Which forms have their weights in `.onnx_data` files, the decoder in two.

    Returns:
        `folder`.
    """
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    graphs = {
        "vision_encoder": _vision_encoder(model, grid_name),
        "embed_tokens": _embed_tokens(model),
        "decoder_model_merged": _decoder(model),
    }
    for variant in variants:
        for part, graph in graphs.items():
            suffix = "" if variant == "fp32" else f"_{variant}"
            converted = _convert(graph, variant, cache_type)
            files = (2 if part == "decoder_model_merged" else 1) if variant in outside else 0
            _save(converted, folder / "onnx" / f"{part}{suffix}.onnx", files)
    return folder


class _Vision(nn.Module):
    """pixel_values (N, numbers of a patch), grid (1, 3) of one image -> image_features (N / merge², hidden)."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.merge, self.heads = visual.config.spatial_merge_size, visual.blocks[0].attn.num_heads
        self.patch_embed, self.blocks, self.merger = visual.patch_embed, visual.blocks, visual.merger
        self.inv_freq = visual.rotary_pos_emb.inv_freq

    def forward(self, pixel_values: Tensor, grid: Tensor) -> Tensor:
        index = torch.arange(pixel_values.shape[0])
        square, inside = index // self.merge**2, index % self.merge**2
        across = grid[0, 2] // self.merge
        row = square // across * self.merge + inside // self.merge
        column = square % across * self.merge + inside % self.merge
        angles = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=-1)
        x = pixel_values @ self.patch_embed.proj.weight.flatten(1).T
        for block in self.blocks:
            q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
            q, k = _turn(q, angles), _turn(k, angles)
            attended = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
            x = x + block.attn.proj(attended.transpose(0, 1).flatten(1))
            x = x + block.mlp(block.norm2(x))
        return self.merger.mlp(self.merger.ln_q(x).reshape(-1, x.shape[-1] * self.merge**2))


class _Decoder(nn.Module):
    """As transformers computes it; past and present are flat lists of (B, kv_heads, P, head_dim), key then value."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        text = model.model.language_model
        self.embed, self.layers, self.norm, self.head = text.embed_tokens, text.layers, text.norm, model.lm_head
        self.inv_freq, self.sections = text.rotary_emb.inv_freq, list(text.rotary_emb.mrope_section)

    def forward(
        self, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[Tensor], inputs_embeds: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        total, length = attention_mask.shape[1], inputs_embeds.shape[1]
        past = past_key_values[0].shape[2]
        hidden_keys = (torch.arange(total)[None] > (torch.arange(length) + past)[:, None])[None, None]
        hidden_keys = hidden_keys | (attention_mask == 0)[:, None, None]
        every = position_ids[..., None] * self.inv_freq  # (3, B, S, head_dim / 2)
        pieces = every.split(self.sections, dim=-1)
        angles = torch.cat([piece[axis % 3] for axis, piece in enumerate(pieces)], dim=-1)[:, None]
        x, present = inputs_embeds, []
        for index, layer in enumerate(self.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(x)
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            q, k, v = (p(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for p in projections)
            key = torch.cat([past_key_values[2 * index], _turn(k, angles)], dim=2)
            value = torch.cat([past_key_values[2 * index + 1], v], dim=2)
            groups = attention.num_key_value_groups
            scores = _turn(q, angles) @ key.repeat_interleave(groups, dim=1).transpose(-1, -2)
            weights = (scores / attention.head_dim**0.5).masked_fill(hidden_keys, _MASKED).softmax(dim=-1)
            attended = weights @ value.repeat_interleave(groups, dim=1)
            x = x + attention.o_proj(attended.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            present += [key, value]
        return self.head(self.norm(x)), present


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = torch.cat([angles, angles], dim=-1).cos(), torch.cat([angles, angles], dim=-1).sin()
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


@functools.cache  # tracing takes seconds
def _vision_encoder(model: Any, grid_name: str) -> onnx.ModelProto:
    vision = model.config.vision_config
    merge = vision.spatial_merge_size
    numbers = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    graph = trace(
        _Vision(model.model.visual),
        {"pixel_values": torch.zeros(6 * merge**2, numbers), "grid": torch.tensor([[1, 2 * merge, 3 * merge]])},
        {"pixel_values": {0: "patches"}, "grid": None},
        ["image_features"],
        ["pixel_values", grid_name],
    )
    return ir.to_proto(graph)


@functools.cache  # tracing takes seconds
def _decoder(model: Any) -> onnx.ModelProto:
    text = model.config.text_config
    batch, length, past = 2, 5, 3
    names = [f"{i}.{kind}" for i in range(text.num_hidden_layers) for kind in ("key", "value")]
    cache = (batch, text.num_key_value_heads, past, text.hidden_size // text.num_attention_heads)
    same = torch.export.Dim.DYNAMIC
    graph = trace(
        _Decoder(model),
        {
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "position_ids": torch.zeros(3, batch, length, dtype=torch.int64),
            "past_key_values": [torch.zeros(cache) for _ in names],
            "inputs_embeds": torch.zeros(batch, length, text.hidden_size),
        },
        {
            "attention_mask": {0: "batch", 1: "total"},
            "position_ids": {1: same, 2: "length"},
            "past_key_values": [{0: same, 2: "past"} for _ in names],
            "inputs_embeds": {0: same, 1: same},
        },
        ["logits", *(f"present.{name}" for name in names)],
        ["attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names), "inputs_embeds"],
    )
    return ir.to_proto(graph)


def _embed_tokens(model: Any) -> onnx.ModelProto:
    table = model.get_input_embeddings().weight.detach().numpy()
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["inputs_embeds"])],
        "embed_tokens",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, ["batch", "length", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _convert(graph: onnx.ModelProto, variant: Variant, cache_type: str) -> onnx.ModelProto:
    graph = copy.deepcopy(graph)
    if variant in ("int8", "uint8", "quantized"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.onnx"
            quantize_dynamic(graph, path, weight_type=QuantType.QUInt8 if variant == "uint8" else QuantType.QInt8)
            return onnx.load(path)
    if variant in ("q4", "q4f16"):
        quantizer = MatMulNBitsQuantizer(graph, block_size=32, is_symmetric=True)
        quantizer.process()
        graph = quantizer.model.model
    if variant == "bnb4":
        bnb4 = MatMulBnb4Quantizer(graph, MatMulBnb4Quantizer.NF4, block_size=64)
        bnb4.process()
        graph = bnb4.model.model
    if variant in ("fp16", "q4f16"):
        values = [value.name for value in (*graph.graph.input, *graph.graph.output)]
        kept = [name for name in values if cache_type == "float32" or not name.startswith(("past_", "present."))]
        graph = convert_float_to_float16(graph, keep_io_types=kept)
    return graph


def _save(graph: onnx.ModelProto, path: Path, data_files: int) -> None:
    """Writes a graph, its large tensors into `data_files` files beside it: `.onnx_data`, `.onnx_data_1`, ..."""
    names = [path.name + ("_data" if i == 0 else f"_data_{i}") for i in range(data_files)]
    large = [tensor for tensor in graph.graph.initializer if len(tensor.raw_data) > _DATA_THRESHOLD]
    for i, tensor in enumerate(large if names else []):
        onnx.external_data_helper.set_external_data(tensor, location=names[i % len(names)])
    onnx.save(graph, path)
