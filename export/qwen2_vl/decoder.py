"""Qwen2-VL's decoder stated again with ONNX Runtime's fused operators, for tracing.

Twice: whole, as the file that published repositories have, and as one layer whose weights are inputs, by which a long
prompt is computed layer after layer with weights that stay in a file.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.graphs.int8 import quantized_weight
from export.graphs.operators import (
    add_rms_norm,
    grouped_query_attention,
    integer_linear,
    rms_norm,
    rotary_embedding,
    shape_of,
)
from export.graphs.trace import trace
from pydeper.vlm.onnx.decoder import IN_PLACE, KV_CACHE


class Decoder(nn.Module):
    """inputs_embeds (B, S, hidden), attention_mask (B, T), position_ids (3, B, S), cache -> logits (B, 1, V), cache.

    The cache is a flat list: keys and values, layer by layer, each (B, kv_heads, P, head_dim), with T = P + S. It may
    instead be buffers of any capacity from T on, which are then given as past and as present at once. Rows may differ
    in length where S is 1: the mask of a row is ones, then zeros. Logits are those of the last position alone: for all
    of a prompt they would be hundreds of megabytes.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        text = model.model.language_model
        self.heads, self.kv_heads = text.config.num_attention_heads, text.config.num_key_value_heads
        self.turns = RotaryTurns(text.rotary_emb)
        self.layers, self.norm, self.lm_head = text.layers, text.norm, model.lm_head

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Continues P tokens by S; P may be 0."""
        dtype = self.norm.weight.dtype
        cos, sin = (turn.to(dtype) for turn in self.turns(position_ids))
        last = (attention_mask.sum(dim=1) - 1).to(torch.int32)
        total = shape_of(attention_mask, 1)
        x = inputs_embeds.to(dtype)
        first = self.layers[0].input_layernorm
        normed = rms_norm(x, first.weight, first.variance_epsilon)
        norms = [*(layer.input_layernorm for layer in self.layers[1:]), self.norm]
        present: list[Tensor] = []
        for i, (layer, following) in enumerate(zip(self.layers, norms, strict=True)):
            attention = layer.self_attn
            q, k, v = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
            q, k = rotary_embedding(q, cos, sin, self.heads), rotary_embedding(k, cos, sin, self.kv_heads)
            past_key, past_value = past_key_values[2 * i : 2 * i + 2]
            attended, key, value = grouped_query_attention(
                q, k, v, past_key, past_value, last, total, self.heads, self.kv_heads
            )
            present += [key, value]
            norm = layer.post_attention_layernorm
            normed, x = add_rms_norm(x, attention.o_proj(attended), norm.weight, norm.variance_epsilon)
            normed, x = add_rms_norm(x, layer.mlp(normed), following.weight, following.variance_epsilon)
        return self.lm_head(normed[:, -1:]).float(), present


class RotaryTurns(nn.Module):
    """position_ids (3, B, S) -> cosines and sines (B · S, head_dim / 2) of multimodal rotary embedding."""

    def __init__(self, rotary: Any) -> None:
        super().__init__()
        self.inv_freq = rotary.inv_freq.float()
        # (3, head_dim / 2): which axis turns which frequency.
        sections = torch.tensor(rotary.mrope_section)
        axis = torch.repeat_interleave(torch.arange(len(sections)) % 3, sections)
        self.axis = nn.Buffer(nn.functional.one_hot(axis, 3).T.float())

    def forward(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of every token, one row after the other."""
        angles = (position_ids[..., None].float() * self.inv_freq * self.axis[:, None, None]).sum(dim=0).flatten(0, 1)
        return angles.cos(), angles.sin()


class StreamedLayer(nn.Module):
    """One decoder layer for one row of many tokens, its weights inputs: hidden states (1, S, hidden) -> the same.

    Linear layers multiply 8-bit integers (`export.graphs.operators.integer_linear`), which on a processor with
    instructions for it is several times as fast as any other way; too much memory for every layer at once, not for one
    at a time.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        text = model.model.language_model
        self.heads, self.kv_heads = text.config.num_attention_heads, text.config.num_key_value_heads
        self.epsilon = text.norm.variance_epsilon
        self.turns = RotaryTurns(text.rotary_emb)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        input_norm: Tensor,
        mlp_norm: Tensor,
        qkv_bias: Tensor,
        qkv_scale: Tensor,
        o_scale: Tensor,
        gate_scale: Tensor,
        up_scale: Tensor,
        down_scale: Tensor,
        qkv: Tensor,
        o: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, mask, positions and cache as in `Decoder`; weights as `layer_weights` gives them."""
        cos, sin = self.turns(position_ids)
        last = (attention_mask.sum(dim=1) - 1).to(torch.int32)
        normed = rms_norm(hidden, input_norm, self.epsilon)
        width = o.shape[0]
        kv_width = (qkv.shape[1] - width) // 2
        q, k, v = (integer_linear(normed, qkv, qkv_scale) + qkv_bias).split([width, kv_width, kv_width], dim=-1)
        attended, key, value = grouped_query_attention(
            rotary_embedding(q, cos, sin, self.heads),
            rotary_embedding(k, cos, sin, self.kv_heads),
            v,
            past_key,
            past_value,
            last,
            shape_of(attention_mask, 1),
            self.heads,
            self.kv_heads,
        )
        normed, x = add_rms_norm(hidden, integer_linear(attended, o, o_scale), mlp_norm, self.epsilon)
        # Not one matrix for both: reading so wide a one column by column is slow.
        opened = nn.functional.silu(integer_linear(normed, gate, gate_scale))
        inner = opened * integer_linear(normed, up, up_scale)
        return x + integer_linear(inner, down, down_scale), key, value


def layer_weights(layer: Any) -> dict[str, np.ndarray]:
    """A decoder layer's weights as the inputs of `StreamedLayer`: (K, N) int8 matrices, and float32 vectors."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    matrices = {
        "qkv": torch.cat([projection.weight for projection in projections]),
        "o": attention.o_proj.weight,
        "gate": mlp.gate_proj.weight,
        "up": mlp.up_proj.weight,
        "down": mlp.down_proj.weight,
    }
    weights = {
        "input_norm": layer.input_layernorm.weight.float().numpy(),
        "mlp_norm": layer.post_attention_layernorm.weight.float().numpy(),
        "qkv_bias": torch.cat([projection.bias for projection in projections]).float().numpy(),
    }
    integers = {}
    for name, matrix in matrices.items():
        integers[name], weights[f"{name}_scale"] = quantized_weight(matrix.float().numpy().T, name)
    # Vectors first: an array of records of both is then aligned without gaps.
    return weights | integers


def trace_decoder(model: Any) -> ir.Model:
    """Traces transformers' language model, stated again; embeddings and logits in float32, the cache in its own."""
    text = model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    batch, length, past = 2, 5, 3  # sizes 0 and 1 would be baked in
    same = torch.export.Dim.DYNAMIC
    names = [f"{i}.{kind}" for i in range(text.num_hidden_layers) for kind in ("key", "value")]
    cache = [torch.zeros(batch, text.num_key_value_heads, past, head_dim, dtype=model.dtype) for _ in names]
    graph = trace(
        Decoder(model),
        {
            "inputs_embeds": torch.zeros(batch, length, text.hidden_size),
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "position_ids": torch.zeros(3, batch, length, dtype=torch.int64),
            "past_key_values": cache,
        },
        {
            # Where the exporter finds out by itself that two axes are one, it wants one name for both.
            "inputs_embeds": {0: "batch", 1: "length"},
            "attention_mask": {0: same, 1: "total"},
            "position_ids": {1: same, 2: same},
            "past_key_values": [{0: same, 2: "past"} for _ in names],
        },
        ["logits", *(f"present.{name}" for name in names)],
        ["inputs_embeds", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
    )
    graph.metadata_props[KV_CACHE] = IN_PLACE
    return graph


def trace_streamed_layer(model: Any, weights: dict[str, np.ndarray]) -> ir.Model:
    """Traces one decoder layer whose weights are inputs."""
    text = model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    length, past = 5, 3
    inputs = {
        "hidden": torch.zeros(1, length, text.hidden_size),
        "attention_mask": torch.ones(1, past + length, dtype=torch.int64),
        "position_ids": torch.zeros(3, 1, length, dtype=torch.int64),
        "past_key": torch.zeros(1, text.num_key_value_heads, past, head_dim),
        "past_value": torch.zeros(1, text.num_key_value_heads, past, head_dim),
    }
    same = torch.export.Dim.DYNAMIC
    axes: dict[str, Any] = {
        "hidden": {1: "length"},
        "attention_mask": {1: "total"},
        "position_ids": {2: same},
        "past_key": {2: "past"},
        "past_value": {2: same},
    }
    return trace(
        StreamedLayer(model),
        inputs | {name: torch.from_numpy(array) for name, array in weights.items()},
        axes | {name: {} for name in weights},
        ["hidden_out", "key", "value"],
    )
