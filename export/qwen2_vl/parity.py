"""Do the exported files of a Qwen2-VL give what transformers gives?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.graphs.parity import ParityError, cpu_session, relative_error, smallest_cosine, typical_cosine
from pydeper.vlm.prompt import rotary_positions

LEAST_COSINE = 0.98
"""Where activations are rounded to 8 bits the largest difference says little; the direction of most vectors says more,
see `export.graphs.parity.typical_cosine`."""


def require_parity(name: str, error: float, cosine: float, tolerance: float) -> None:
    """Accepts a file that is near enough to transformers.

    Args:
        name: What the file holds, for the message.
        error: Largest difference, relative to the largest value.
        cosine: That of most vectors.
        tolerance: Largest accepted error.

    Raises:
        ParityError: The error is above the tolerance, the cosine is below `LEAST_COSINE`, or one is not a number.
    """
    if not error <= tolerance or not cosine >= LEAST_COSINE:
        raise ParityError(
            f"{name}: the exported files differ from transformers by {error:.3g} of the largest value (allowed: "
            f"{tolerance:.3g}), at a cosine of {cosine:.4f} (needed: {LEAST_COSINE})"
        )


def random_images(config: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random pixels (N, patch numbers) and the grid (1, 3) of two images of different shapes, for a vision tower."""
    merge, rng = config.spatial_merge_size, np.random.default_rng(0)
    grids = [np.array([[1, rows * merge, columns * merge]]) for rows, columns in ((2, 6), (4, 3))]
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    return [(rng.standard_normal((int(grid.prod()), patch), dtype=np.float32), grid) for grid in grids]


def compare_vision_encoder(visual: Any, path: Path) -> tuple[float, float, float]:
    """Runs a vision encoder file on random pixels of two images of different shapes.

    Args:
        visual: transformers' vision tower; float32 afterwards.
        path: The ONNX file.

    Returns:
        The relative error, and the smallest and the typical cosine of the image features.
    """
    pixels, grids = (np.concatenate(arrays) for arrays in zip(*random_images(visual.config), strict=True))
    (features,) = cpu_session(path).run(None, {"pixel_values": pixels, "image_grid_thw": grids})
    expected = visual.float()(torch.from_numpy(pixels), torch.from_numpy(grids)).pooler_output
    return relative_error(features, expected), smallest_cosine(features, expected), typical_cosine(features, expected)


class DecoderCheck:
    """A prompt with two images, in two rows that differ in one embedding as two personas do, and three steps."""

    def __init__(self, model: Any) -> None:
        self.model = model
        rng = np.random.default_rng(0)
        sizes, merge = model.config.text_config, model.config.vision_config.spatial_merge_size
        self.image = model.config.image_token_id
        grids = np.array([[1, 2 * merge, 5 * merge], [1, 3 * merge, merge]])
        table = model.get_input_embeddings().weight
        text = rng.choice(np.setdiff1d(np.arange(len(table)), self.image), 7)
        first, second = ([self.image] * int(grid.prod() // merge**2) for grid in grids)
        ids = np.concatenate([text, first, text[:3], second, text])
        self.positions, self.next_position = rotary_positions(ids, self.image, grids, merge)
        embeddings = np.repeat(table[torch.from_numpy(ids)].numpy()[None], 2, axis=0)
        spread = float(table.std())
        for place in (*np.flatnonzero(ids == self.image), -3):
            embeddings[:, place] = rng.standard_normal(embeddings[:, place].shape) * spread
        self.embeddings = embeddings.astype(np.float32)
        self.followers = (rng.standard_normal((3, 2, 1, sizes.hidden_size)) * spread).astype(np.float32)
        self.expected: list[np.ndarray] = []
        self.expect()

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Embeddings and positions: of the prompt, then of each step."""
        yield self.embeddings, self.positions
        for step, embedding in enumerate(self.followers):
            yield embedding, np.full((3, 1), self.next_position + step)

    def expect(self) -> None:
        """Computes what transformers gives with the weights as they are now."""
        fed, placed = (np.concatenate([piece[i] for piece in self.pieces()], axis=1) for i in (0, 1))
        rows = torch.from_numpy(np.repeat(placed[:, None], 2, axis=1))
        hidden = self.model.model.language_model(
            inputs_embeds=torch.from_numpy(fed),
            position_ids=rows,
            attention_mask=torch.ones(2, fed.shape[1], dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        steps = len(self.followers) + 1
        logits = self.model.lm_head(hidden[:, -steps:]).numpy()
        self.expected = [logits[:, i : i + 1] for i in range(steps)]

    def run(self, path: Path) -> list[np.ndarray]:
        """Runs a decoder file; its rows one by one in the prompt, both at once in the steps."""
        session = cpu_session(path)
        names = [value.name for value in session.get_inputs()]
        dtype = np.float16 if "float16" in session.get_inputs()[-1].type else np.float32
        sizes = self.model.config.text_config
        head_dim = sizes.hidden_size // sizes.num_attention_heads
        empty = np.zeros((2, sizes.num_key_value_heads, 0, head_dim), dtype)
        cache, found, length = [empty] * (len(names) - 3), [], 0
        for embeddings, positions in self.pieces():
            length += embeddings.shape[1]
            numbers = np.repeat(positions[:, None], 2, axis=1)
            fed = [embeddings, np.ones((2, length), np.int64), numbers, *cache]
            logits, *cache = session.run(None, dict(zip(names, fed, strict=True)))
            found.append(logits)
        return found


def compare_streamed_layers(model: Any, path: Path) -> tuple[float, float]:
    """Runs each layer of `decoder_layers_int8` on what transformers feeds it with a prompt of random tokens.

    Returns:
        The smallest cosine with transformers of a token's keys, values, or change of the hidden state; and the smallest
        of a layer's typical ones.
    """
    text = model.model.language_model
    rng = np.random.default_rng(0)
    length = 48
    table = model.get_input_embeddings().weight
    embeddings = table[torch.from_numpy(rng.choice(len(table), length))].numpy()[None]
    positions = np.ascontiguousarray(np.broadcast_to(np.arange(length), (3, 1, length)))
    session = cpu_session(path)
    head_dim = text.config.hidden_size // text.config.num_attention_heads
    empty = np.zeros((1, text.config.num_key_value_heads, 0, head_dim), np.float32)
    fixed = {
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": positions,
        "past_key": empty,
        "past_value": empty,
    }
    layers = np.load(path.with_suffix(".npy"), mmap_mode="r")
    smallest: list[float] = []
    typical: list[float] = []

    def compare(layer: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
        i = layer.self_attn.layer_idx
        before, after = inputs[0].numpy(), (output[0] if isinstance(output, tuple) else output).numpy()
        weights = {name: np.asarray(layers[name][i]) for name in layers.dtype.names}
        hidden, key, value = session.run(None, {"hidden": before, **fixed, **weights})
        cached = options["past_key_values"].layers[i]
        pairs = ((hidden - before, after - before), (key, cached.keys), (value, cached.values))
        smallest.extend(smallest_cosine(*pair) for pair in pairs)
        typical.extend(typical_cosine(*pair) for pair in pairs)

    hooks = [layer.register_forward_hook(compare, with_kwargs=True) for layer in text.layers]
    try:
        text(inputs_embeds=torch.from_numpy(embeddings), position_ids=torch.from_numpy(positions), use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    return min(smallest), min(typical)
