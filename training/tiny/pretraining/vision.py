"""Pre-training of the vision tower and of the image encoder: every token tells what is there and where it stands."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.precision import bfloat16_autocast
from training.seeding import step_generator
from training.tiny.pretraining.dense_targets import DenseHeads, dense_measures, dense_targets
from training.tiny.pretraining.initialisation import initialise_linear_layers
from training.tiny.world.sampling import Layout, sample_canvas, sample_scene
from training.tiny.world.scenes import Scene

Preprocess = Callable[[Sequence[Scene], tuple[float, float], bool], tuple[Tensor, tuple[int, int]]]
"""Scenes, their canvas and whether they are close-ups -> (B, ...) pixels, and rows and columns of tokens."""


@attrs.frozen
class Level:
    """Tokens of some layer that have to tell what is there.

    Attributes:
        channels: Numbers in a token.
        names: Which targets, see `DenseHeads`.
        finer: So many of them, each way, lie in one token of the last layer.
    """

    channels: int
    names: tuple[str, ...]
    finer: int = 1


@attrs.frozen(eq=False)
class SceneBatch:
    """Drawn scenes of one shape.

    Attributes:
        pixels: (B, ...) preprocessed images.
        targets: For each level, (B, targets, rows·columns) int64.
        measures: For each level, (B, measures, rows·columns).
        grid: Rows and columns of the last layer's tokens.
    """

    pixels: Tensor
    targets: Sequence[Tensor]
    measures: Sequence[Tensor]
    grid: tuple[int, int]


def tower_tokens(tower: Any, patches: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Tokens of Qwen2-VL's vision tower, for images of one shape.

    transformers' own forward pass attends image by image in a loop; this is the same computation for all at once.

    Args:
        tower: transformers' module.
        patches: (B, N, patch numbers), the merge² patches of a token together.
        grid: Rows and columns of tokens.

    Returns:
        The merged tokens (B, rows·columns, hidden), and the patches (B, rows·merge · columns·merge, width) after the
        layers that begin locally, see `initialise_tower`; both row after row.
    """
    merge = tower.config.spatial_merge_size
    rows, columns = (torch.arange(side * merge) for side in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)  # (H, W, 2)
    places = places.unflatten(1, (-1, merge)).unflatten(0, (-1, merge)).transpose(1, 2).reshape(-1, 2)
    angles = (places[..., None] * tower.rotary_pos_emb.inv_freq).flatten(1).repeat(1, 2)  # (N, head_dim)
    cos, sin = angles.cos(), angles.sin()
    x = early = F.linear(patches, tower.patch_embed.proj.weight.flatten(1))
    for number, block in enumerate(tower.blocks):
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = _attention(_turned(q, cos, sin), _turned(k, cos, sin), v)
        x = x + block.attn.proj(attended.transpose(1, 2).flatten(2))
        x = x + _quick_gelu_layers(block.mlp.fc1, block.mlp.fc2, block.norm2(x))
        early = x if number < _local_layers(tower) else early
    merged: Tensor = tower.merger.mlp(tower.merger.ln_q(x).unflatten(1, (-1, merge**2)).flatten(2))
    early = early.unflatten(1, (*grid, merge, merge)).transpose(2, 3).flatten(1, 4)
    return merged, early


_QUICK_GELU = 1.702


def _quick_gelu_layers(first: nn.Linear, second: nn.Linear, x: Tensor) -> Tensor:
    """A tower's MLP; with QuickGELU's factor in the weights, x·σ(1.702x) is PyTorch's SiLU, in one pass over memory."""
    hidden = F.linear(x, first.weight * _QUICK_GELU, first.bias * _QUICK_GELU)
    return F.linear(F.silu(hidden), second.weight / _QUICK_GELU, second.bias)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in plain products, which in bfloat16 take half of the time of PyTorch's fused kernel on a CPU."""
    with torch.autocast(q.device.type, enabled=False):
        attended: Tensor = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1) @ v
    return attended


def _local_layers(tower: Any) -> int:
    return 2 * len(tower.blocks) // 3


_LOCAL = 1.5  # how much the first layers' heads prefer a patch's neighbours


@torch.no_grad()
def initialise_tower(tower: Any) -> None:
    """Starts a tower that is small enough to learn shapes in an hour.

    Weights are scaled by their fan-in, see `initialise_linear_layers`. And attention begins locally, as a convolution
    does: with constant queries and keys, the rotary embedding alone makes a head look at the patch at a certain offset,
    another one for each head (cf. d'Ascoli et al. 2021, "ConViT").

    Args:
        tower: transformers' module; its weights are drawn anew from torch's generator.
    """
    weight = tower.patch_embed.proj.weight
    nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    initialise_linear_layers(tower, len(tower.blocks), ("attn.proj", "mlp.fc2"))
    offsets = torch.tensor(
        [[(-0.7, -0.7), (-0.7, 0.7), (0.7, -0.7), (0.7, 0.7)], [(-1.5, 0.0), (1.5, 0.0), (0.0, -1.5), (0.0, 1.5)]]
    )
    for layer, block in enumerate(tower.blocks[: _local_layers(tower)]):
        heads, size = block.attn.num_heads, block.attn.qkv.out_features // (3 * block.attn.num_heads)
        frequencies = tower.rotary_pos_emb.inv_freq
        # In a head the first half of the numbers holds, for rows and then columns, one component of each frequency, the
        # second half the other one. Only the two fastest frequencies can tell neighbours apart.
        strength = torch.zeros(len(frequencies))
        strength[:2] = _LOCAL * size**0.25
        for head in range(heads):
            offset = offsets[layer % 2, head % 4]
            angles = torch.cat([frequencies * offset[0], frequencies * offset[1]])
            key = torch.cat([strength.repeat(2) * angles.cos(), -strength.repeat(2) * angles.sin()])
            query = torch.cat([strength.repeat(2), torch.zeros(2 * len(frequencies))])
            bias = block.attn.qkv.bias.view(3, heads, size)
            bias[0, head], bias[1, head] = query, key


def encoder_tokens(encoder: Any, pixels: Tensor, _grid: tuple[int, int]) -> tuple[Tensor]:
    """Tokens (B, G·G, C) of the image encoder's last map, without the pooled token."""
    return (encoder(pixels).last_hidden_state[:, 1:],)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


# --- the task


@attrs.frozen(eq=False)
class DrawnScenes:
    """Fresh scenes for every step; no scene is seen twice.

    Most of what a tower must learn, it learns from close-ups: small pictures of one or two objects, which cost a
    fraction of whole scenes. They come first, evenly drawn in the beginning and in more and more ways; then whole
    scenes, which teach where things stand among others, with a step of close-ups after every three.

    Attributes:
        preprocess: Draws scenes of one canvas as the encoder's input.
        levels: Which targets are wanted.
        batch_size: Whole scenes in a batch.
        close_ups: So many steps, the first ones, are of close-ups; 0: none are.
        seed: Seed of all scenes.
    """

    preprocess: Preprocess
    levels: Sequence[Level]
    batch_size: int
    close_ups: int
    seed: int

    def batch(self, step: int, micro_batch: int) -> SceneBatch:
        """The scenes of a step."""
        rng = step_generator(self.seed, step, micro_batch)
        close = step < self.close_ups or (self.close_ups > 0 and step % 4 == 0)
        canvas = (1.0, 1.0) if close else sample_canvas(rng)
        count = 4 * self.batch_size if close else self.batch_size
        variety = min(1.0, step / self.close_ups) if close else 1.0
        scenes = [
            sample_scene(rng, _close_up(rng, variety) if close else whole_scene(rng), canvas) for _ in range(count)
        ]
        pixels, grid = self.preprocess(scenes, canvas, close)
        targets, measures = [], []
        for level in self.levels:
            finer = (grid[0] * level.finer, grid[1] * level.finer)
            targets.append(_stack(dense_targets(scene, *finer, level.names) for scene in scenes))
            measures.append(_stack(dense_measures(scene, *finer) for scene in scenes))
        return SceneBatch(pixels, targets, measures, grid)


def _stack(arrays: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays)))


def _close_up(rng: np.random.Generator, variety: float) -> Layout:
    """One object or two, seldom none; `variety` is the share that is not evenly drawn."""
    nothing, plain = rng.random() < 0.08, bool(rng.random() > variety)
    return Layout((0, 0), plain=plain) if nothing else Layout((1, 2), extents=(0.15, 0.9), plain=plain)


def whole_scene(rng: np.random.Generator) -> Layout:
    """Mostly a few objects that lie apart, in half of the scenes beyond doubt; now and then none at all, or a crowd."""
    kind = rng.random()
    if kind < 0.06:
        return Layout((0, 0))
    return Layout((7, 12)) if kind < 0.1 else Layout((1, 6)) if kind < 0.5 else Layout((2, 6), clear=True)


@attrs.define(eq=False)
class VisionTask:
    """Trains a vision tower or image encoder under dense heads.

    Attributes:
        name: Name of the run.
        encoder: The module that is trained.
        features: Maps (encoder, pixels of a batch, its grid) to the (B, N, C) tokens of each level.
        scenes: What it is trained on.
        learning_rate: Peak rate of AdamW.
        heads_warmup: So many steps, the first ones, in which gradients stop at the heads.
        bfloat16: Whether matrices are multiplied in bfloat16.
    """

    name: str
    encoder: nn.Module
    features: Callable[[Any, Tensor, tuple[int, int]], Sequence[Tensor]]
    scenes: DrawnScenes
    learning_rate: float
    heads_warmup: int = 0
    bfloat16: bool = False
    state: nn.ModuleDict = attrs.field(init=False)
    _heads: list[DenseHeads] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._heads = [DenseHeads(level.channels, level.names) for level in self.scenes.levels]
        self.state = nn.ModuleDict({"encoder": self.encoder, "heads": nn.ModuleList(self._heads)})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [
            {"params": list(self.encoder.parameters()), "lr": self.learning_rate},
            {"params": list(self.state["heads"].parameters()), "lr": self.learning_rate, "muon": False},
        ]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`; what the last level tells is logged."""
        batch = self.scenes.batch(step, micro_batch)
        with bfloat16_autocast(batch.pixels.device, wanted=self.bfloat16):
            with torch.set_grad_enabled(step >= self.heads_warmup):
                tokens = self.features(self.encoder, batch.pixels, batch.grid)
            levels = [
                heads.losses(*level)
                for heads, *level in zip(self._heads, tokens, batch.targets, batch.measures, strict=True)
            ]
        return levels[0] | {"loss": torch.stack([level["loss"] for level in levels]).sum()}
