"""Qwen2-VL's vision encoder stated again, for tracing.

transformers' own cannot be exported for any grid: it splits its attention by numbers that only the data knows. Here
positions are computed from `image_grid_thw` inside the graph, so one graph serves any grid.
"""

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.graphs.operators import attention_within_images, rotary_embedding
from export.graphs.trace import trace


class VisionEncoder(nn.Module):
    """pixel_values (N, patch numbers), image_grid_thw (K, 3) -> image_features (N / merge², hidden).

    For still images, each one frame; attention stays within an image. Images of one call may differ in shape but not
    in their number of patches: they stand beside each other as a batch, so that none is ever compared with another.
    Where they do differ the graph fails when it runs.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.merge = visual.config.spatial_merge_size
        self.patch_embed = nn.Parameter(
            visual.patch_embed.proj.weight.detach().flatten(1).T
        )  # a convolution with stride = kernel is linear
        self.inv_freq = visual.rotary_pos_emb.inv_freq.float()
        self.blocks = nn.ModuleList(VisionBlock(block) for block in visual.blocks)
        self.merger = visual.merger

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Encodes the images of one call."""
        row, column = self.coordinates(pixel_values.shape[0], image_grid_thw)
        angles = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=-1)
        dtype = self.patch_embed.dtype
        turns = angles.cos().to(dtype), angles.sin().to(dtype)
        x = (pixel_values.to(dtype) @ self.patch_embed)[None]  # 3-D throughout: weight quantisers pass over 2-D Gemm
        for block in self.blocks:
            x = block(x, turns, image_grid_thw)
        x = self.merger.ln_q(x)
        tokens: Tensor = self.merger.mlp(x.reshape(1, -1, x.shape[-1] * self.merge**2)).squeeze(0).float()
        return tokens

    def coordinates(self, patches: int, grid: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) the row and the column of every patch in its frame."""
        index = torch.arange(patches)
        size = grid[:, 1] * grid[:, 2]
        ends = torch.cumsum(grid[:, 0] * size, dim=0)
        image = (index[:, None] >= ends[None, :]).sum(dim=1)
        start = (ends - grid[:, 0] * size)[image]
        within = (index - start) % size[image]
        # Patches come in squares of merge x merge, the squares row by row.
        square, inside = within // self.merge**2, within % self.merge**2
        squares_across = grid[:, 2][image] // self.merge
        row = square // squares_across * self.merge + inside // self.merge
        column = square % squares_across * self.merge + inside % self.merge
        return row, column


class VisionBlock(nn.Module):
    """Pre-norm attention within an image, and a feed-forward network."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attn
        self.heads = attention.num_heads
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.qkv = nn.Parameter(attention.qkv.weight.detach().T)
        q_bias, k_bias, v_bias = attention.qkv.bias.detach().chunk(3)
        self.q_bias, self.k_bias = nn.Parameter(q_bias), nn.Parameter(k_bias)
        # A row of attention sums to 1, so the values' bias passes through it unchanged.
        self.proj = nn.Parameter(attention.proj.weight.detach().T)
        self.proj_bias = nn.Parameter((attention.proj.bias + attention.proj.weight @ v_bias).detach())

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], image_grid_thw: Tensor) -> Tensor:
        """X (1, N, width), cosines and sines (N, head_dim / 2) of the patches' positions -> (1, N, width)."""
        q, k, v = (self.norm1(x) @ self.qkv).chunk(3, dim=-1)
        q = rotary_embedding(q + self.q_bias, *turns, self.heads)
        k = rotary_embedding(k + self.k_bias, *turns, self.heads)
        attended = attention_within_images(q, k, v, image_grid_thw, self.heads)
        x = x + (attended @ self.proj + self.proj_bias)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


def trace_vision_encoder(visual: Any) -> ir.Model:
    """Traces transformers' vision tower, stated again; inputs in float32 whatever its own precision."""
    config = visual.config
    merge = config.spatial_merge_size
    grid = torch.tensor([[1, 2 * merge, 3 * merge], [1, 3 * merge, 2 * merge]])
    pixels = torch.zeros(12 * merge**2, config.in_channels * config.temporal_patch_size * config.patch_size**2)
    return trace(
        VisionEncoder(visual),
        {"pixel_values": pixels, "image_grid_thw": grid},
        {"pixel_values": {0: "patches"}, "image_grid_thw": {0: "images"}},
        ["image_features"],
    )
