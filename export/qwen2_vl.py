"""Qwen2-VL from transformers to the three files of a bundle's `vlm` folder.

The vision tower and the decoder are stated again in plain modules around the original layers. The originals cannot be
exported for any grid: the tower splits its attention by numbers that only the data knows, and the tracer of old bakes
the first grid in without a word. Here positions and the attention mask are computed from `image_grid_thw` inside the
graph, so one graph serves any grid and any number of images.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from export.graph import Precision, save, trace
from export.quantize import to_fp16
from pydeper.vlm.prompt import rotary_positions
from pydeper.vlm.qwen2_vl import DECODER, EMBEDDINGS, VISION_ENCODER

PARITY_TOLERANCE = 1e-4  # of the largest absolute value compared


@attrs.frozen
class VLMExport:
    """What an export did.

    Attributes:
        vision_error: Largest difference of the image features from transformers', relative to the largest feature.
        prefill_error: The same of the logits after the prompt.
        step_error: The same of the logits of the steps that follow.
        rounding: Largest change that fp16 storage made to any one weight.
    """

    vision_error: float
    prefill_error: float
    step_error: float
    rounding: float


def export_vlm(
    source: Qwen2VLForConditionalGeneration | str | Path,
    out_dir: str | Path,
    precision: Precision = "fp16",
    *,
    rounding_tolerance: float = 0.0,
    parity_tolerance: float = PARITY_TOLERANCE,
    revision: str | None = None,
) -> VLMExport:
    """Exports a Qwen2-VL and checks the files against transformers.

    Args:
        source: A model in memory (not changed), a folder in the Hub's layout, or a Hub id.
        out_dir: Receives `vision_encoder.onnx`, `embed_tokens.npy` and `decoder_model_merged.onnx`, all at once after
            the check has passed; weights of more than 1 GiB stand beside their graph in a `.data` file.
        precision: How weights are stored; computation is float32 either way.
        rounding_tolerance: fp16 only: largest change of any one weight that is accepted. The default accepts none.
        parity_tolerance: Largest accepted difference from transformers in float32, relative to the largest value.
        revision: Of a Hub id.

    Raises:
        ValueError: The architecture has a feature this export does not state, a weight would be rounded by more than
            allowed, or the check fails.
    """
    if isinstance(source, str | Path):
        source = Qwen2VLForConditionalGeneration.from_pretrained(source, revision=revision, dtype="auto")
    model = source
    if model.dtype != torch.float32 or model.training or model.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    _check_architecture(model.config)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=out_dir, prefix=".export-") as folder:
        work = Path(folder)
        rounding = [
            save(_export_vision(model), work / VISION_ENCODER, precision, rounding_tolerance),
            save(_export_decoder(model), work / DECODER, precision, rounding_tolerance),
        ]
        table = model.get_input_embeddings().weight.numpy()
        if precision == "fp16":
            table, change = to_fp16(table, EMBEDDINGS, rounding_tolerance)
            rounding.append(change)
        np.save(work / EMBEDDINGS, table)
        report = VLMExport(*_measure(model, work), rounding=max(rounding))
        worst = max(report.vision_error, report.prefill_error, report.step_error)
        if not worst <= parity_tolerance:
            raise ValueError(f"the exported files differ from transformers by {worst:.3g}: {report}")
        for file in sorted(work.iterdir()):
            file.replace(out_dir / file.name)
    return report


# The vision tower


class VisionTower(nn.Module):
    """pixel_values (N, patch numbers), image_grid_thw (K, 3) -> image_features (N / merge², hidden)."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.merge = visual.config.spatial_merge_size
        self.patch_embed = nn.Parameter(
            visual.patch_embed.proj.weight.detach().flatten(1).T
        )  # a convolution with stride = kernel is linear
        self.inv_freq = visual.rotary_pos_emb.inv_freq
        self.blocks = nn.ModuleList(VisionBlock(block) for block in visual.blocks)
        self.merger = visual.merger

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Encodes any number of images in one pass."""
        frame, row, column = self.coordinates(pixel_values.shape[0], image_grid_thw)
        elsewhere = torch.finfo(torch.float32).min
        mask = torch.where(frame[:, None] == frame[None, :], 0.0, elsewhere)  # attention stays within a frame
        angles = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=-1)
        x = (pixel_values @ self.patch_embed)[None]  # 3-D throughout: weight quantisers pass over 2-D Gemm
        for block in self.blocks:
            x = block(x, mask, angles)
        x = self.merger.ln_q(x)
        x = x.reshape(1, -1, x.shape[-1] * self.merge**2)
        return self.merger.mlp(x).squeeze(0)

    def coordinates(self, patches: int, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) a number for each patch's frame, unlike all others', and its row and column in the frame."""
        index = torch.arange(patches)
        size = grid[:, 1] * grid[:, 2]
        ends = torch.cumsum(grid[:, 0] * size, dim=0)
        image = (index[:, None] >= ends[None, :]).sum(dim=1)
        start = (ends - grid[:, 0] * size)[image]
        within = (index - start) % size[image]
        frame = index - within  # the index of the frame's first patch
        # Patches come in squares of merge x merge, the squares row by row.
        square, inside = within // self.merge**2, within % self.merge**2
        squares_across = grid[:, 2][image] // self.merge
        row = square // squares_across * self.merge + inside // self.merge
        column = square % squares_across * self.merge + inside % self.merge
        return frame, row, column


class VisionBlock(nn.Module):
    """Pre-norm attention within a frame, and a feed-forward network."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.heads = block.attn.num_heads
        self.norm1, self.qkv, self.proj = block.norm1, block.attn.qkv, block.attn.proj
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, x: Tensor, mask: Tensor, angles: Tensor) -> Tensor:
        """X (1, N, width), mask (N, N) added to the scores, angles (N, head_dim / 2) -> (1, N, width)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, angles), rotate(k, angles)
        attended = attend(q, k, v, mask)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


# The decoder


class Decoder(nn.Module):
    """inputs_embeds (B, S, hidden), attention_mask (B, P+S), position_ids (3, B, S), cache -> logits (B, 1, V), cache.

    The cache is a flat list: keys and values, layer by layer, each (B, kv_heads, P, head_dim). Logits are those of the
    last position alone: for all of a prompt they would be hundreds of megabytes.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        text = model.model.language_model
        self.inv_freq = text.rotary_emb.inv_freq
        # (3, head_dim / 2): which axis turns which frequency.
        axis = torch.repeat_interleave(
            torch.arange(len(text.rotary_emb.mrope_section)) % 3, torch.tensor(text.rotary_emb.mrope_section)
        )
        self.axis = nn.Buffer(nn.functional.one_hot(axis, 3).T.float())
        self.layers = nn.ModuleList(DecoderLayer(layer) for layer in text.layers)
        self.norm, self.lm_head = text.norm, model.lm_head

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Continues P tokens by S; P may be 0."""
        length = inputs_embeds.shape[1]
        keys = torch.arange(attention_mask.shape[1])
        queries = torch.arange(length) + past_key_values[0].shape[2]
        seen = (keys[None, :] <= queries[:, None])[None] & (attention_mask[:, None, :] != 0)
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
        angles = (position_ids[..., None].float() * self.inv_freq * self.axis[:, None, None]).sum(dim=0)[:, None]
        x = inputs_embeds
        present: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, key, value = layer(x, mask, angles, past_key_values[2 * i], past_key_values[2 * i + 1])
            present += [key, value]
        return self.lm_head(self.norm(x[:, -1:])), present


class DecoderLayer(nn.Module):
    """Pre-norm causal attention whose heads share keys and values in groups, and a gated feed-forward network."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.self_attn
        self.kv_heads, self.head_dim = attention.num_key_value_heads, attention.head_dim
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj, self.mlp = attention.o_proj, layer.mlp
        self.input_norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm

    def forward(
        self, x: Tensor, mask: Tensor, angles: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X (B, S, hidden), mask (B, 1, S, P+S), angles (B, 1, S, head_dim / 2) -> x, keys and values of P+S."""
        normed = self.input_norm(x)
        q, k, v = (
            projection(normed).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        key = torch.cat([past_key, rotate(k, angles)], dim=2)
        value = torch.cat([past_value, v], dim=2)
        # Query heads that share a key head form a group: (B, kv_heads, group, S, head_dim).
        q = rotate(q, angles).unflatten(1, (self.kv_heads, -1))
        attended = attend(q, key[:, :, None], value[:, :, None], mask[:, None]).flatten(1, 2)
        x = x + self.o_proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x)), key, value


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding: turns the pairs (x_i, x_{i+d/2}) of (..., S, d) by angles (..., S, d/2)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of (..., S, d) over (..., T, d); the mask is added to the scores."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
    return scores.softmax(dim=-1) @ v


# Graphs


def _export_vision(model: Any) -> ir.Model:
    vision = model.config.vision_config
    merge = vision.spatial_merge_size
    grid = torch.tensor([[1, 2 * merge, 3 * merge], [1, 3 * merge, 2 * merge]])
    pixels = torch.zeros(12 * merge**2, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    return trace(
        VisionTower(model.model.visual),
        {"pixel_values": pixels, "image_grid_thw": grid},
        {"pixel_values": {0: "patches"}, "image_grid_thw": {0: "images"}},
        ["image_features"],
    )


def _export_decoder(model: Any) -> ir.Model:
    text = model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    batch, length, past = 2, 5, 3  # sizes 0 and 1 would be baked in
    same = torch.export.Dim.DYNAMIC
    names = [f"{i}.{kind}" for i in range(text.num_hidden_layers) for kind in ("key", "value")]
    return trace(
        Decoder(model),
        {
            "inputs_embeds": torch.zeros(batch, length, text.hidden_size),
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "position_ids": torch.zeros(3, batch, length, dtype=torch.int64),
            "past_key_values": [torch.zeros(batch, text.num_key_value_heads, past, head_dim) for _ in names],
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


# Checks


def _check_architecture(config: Any) -> None:
    text, vision = config.text_config, config.vision_config
    for name, found, stated in (
        ("text_config.rope_parameters.rope_type", text.rope_parameters["rope_type"], "default"),
        ("text_config.layer_types", set(text.layer_types), {"full_attention"}),
        ("vision_config.rope_parameters.rope_type", vision.rope_parameters["rope_type"], "axial"),
    ):
        if found != stated:
            raise ValueError(f"this export states {name} = {stated}, but the model has {found}")


def _measure(model: Any, folder: Path) -> tuple[float, float, float]:
    """Runs the exported files and transformers on the same random images and prompts; returns the three errors."""
    rng = np.random.default_rng(0)
    config, merge = model.config, model.config.vision_config.spatial_merge_size
    grids = np.array([[1, 2 * merge, 5 * merge], [1, 3 * merge, merge], [1, 4 * merge, 4 * merge]])
    patch_numbers = model.model.visual.patch_embed.proj.weight[0].numel()
    pixels = rng.standard_normal((int(grids.prod(axis=1).sum()), patch_numbers), dtype=np.float32)
    vision = onnxruntime.InferenceSession(folder / VISION_ENCODER, providers=["CPUExecutionProvider"])
    (features,) = vision.run(None, {"pixel_values": pixels, "image_grid_thw": grids})
    expected = model.model.visual(torch.from_numpy(pixels), torch.from_numpy(grids)).pooler_output
    vision_error = _relative(features, expected)

    # Two rows of one prompt that differ in one embedding, as two personas do.
    table = np.load(folder / EMBEDDINGS, mmap_mode="r")
    image = config.image_token_id
    text = rng.choice(np.setdiff1d(np.arange(len(table)), image), 7)
    first, second = ([image] * int(grid.prod() // merge**2) for grid in grids[:2])
    ids = np.concatenate([text, first, text[:3], second, text])
    positions, next_position = rotary_positions(ids, image, grids[:2], merge)
    embeddings = np.repeat(table[ids].astype(np.float32)[None], 2, axis=0)
    embeddings[:, ids == image] = features[: int((ids == image).sum())]
    embeddings[:, -3] = rng.standard_normal(embeddings[:, -3].shape) * table.std(dtype=np.float32)

    decoder = onnxruntime.InferenceSession(folder / DECODER, providers=["CPUExecutionProvider"])
    names = [value.name for value in decoder.get_inputs()][3:]
    sizes = config.text_config
    empty = (2, sizes.num_key_value_heads, 0, sizes.hidden_size // sizes.num_attention_heads)
    cache = [np.zeros(empty, dtype=np.float32) for _ in names]
    errors = []
    fed, new, numbers = embeddings[:, :0], embeddings, positions
    placed = positions[:, :0]
    for _ in range(4):
        fed, placed = np.concatenate([fed, new], axis=1), np.concatenate([placed, numbers], axis=1)
        feeds = {
            "inputs_embeds": new,
            "attention_mask": np.ones((2, fed.shape[1]), dtype=np.int64),
            "position_ids": np.repeat(numbers[:, None], 2, axis=1),
            **dict(zip(names, cache, strict=True)),
        }
        logits, *cache = decoder.run(None, feeds)
        expected = model(
            inputs_embeds=torch.from_numpy(fed),
            position_ids=torch.from_numpy(np.repeat(placed[:, None], 2, axis=1)),
            attention_mask=torch.ones(2, fed.shape[1], dtype=torch.int64),
            use_cache=False,
            logits_to_keep=1,
        ).logits
        errors.append(_relative(logits, expected))
        tokens = logits[:, -1].argmax(axis=-1)
        new, numbers = table[tokens].astype(np.float32)[:, None], np.full((3, 1), next_position)
        next_position += 1
    return vision_error, errors[0], max(errors[1:])


def _relative(found: np.ndarray, expected: Tensor) -> float:
    reference = expected.numpy()
    if found.shape != reference.shape:
        raise ValueError(f"the exported file gives shape {found.shape}, transformers {reference.shape}")
    return float(np.abs(found - reference).max() / np.abs(reference).max())
