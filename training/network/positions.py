"""Where, when and for how long: the sinusoidal encodings of a fixation (paper, "dual-context encoder") and of words."""

import math

import torch
from torch import Tensor


def sinusoid(values: Tensor, size: int) -> Tensor:
    """Sinusoidal encoding of real numbers.

    PE(v)[2i] = sin(v / 10000^(2i/size)), PE(v)[2i+1] = cos(v / 10000^(2i/size)).

    Args:
        values: (...) real numbers.
        size: Numbers in an encoding; even.

    Returns:
        (..., size)
    """
    if size % 2:
        raise ValueError(f"a sinusoidal encoding pairs sines with cosines; its size must be even, not {size}")
    even = torch.arange(0, size, 2, device=values.device, dtype=values.dtype)
    angles = values.unsqueeze(-1) * torch.exp(even * (-math.log(10_000.0) / size))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def encode_where(boxes: Tensor, grid_size: int, size: int) -> Tensor:
    """Encodes box centres, in cells of the image grid: half of `size` for x, half for y.

    Args:
        boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
        grid_size: Cells along one side of the image.
        size: Numbers in an encoding; a multiple of 4.

    Returns:
        (B, M, size)
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) * (grid_size / 2)
    return sinusoid(centres, size // 2).flatten(-2)


def encode_order(tokens: Tensor, size: int) -> Tensor:
    """Encodes every token's index in its stream, the first being 0: when a fixation was, where a word stands.

    Args:
        tokens: (B, M, ...); only the shape, type and device matter.
        size: Numbers in an encoding; even.

    Returns:
        (1, M, size), to broadcast over the batch.
    """
    index = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
    return sinusoid(index, size).unsqueeze(0)


def encode_how_long(durations: Tensor, size: int) -> Tensor:
    """Encodes durations in hundredths of a second.

    Args:
        durations: (B, M) seconds.
        size: Numbers in an encoding; even.

    Returns:
        (B, M, size)
    """
    return sinusoid(durations * 100, size)
