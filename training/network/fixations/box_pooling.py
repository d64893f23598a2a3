"""What a fixation saw: the image tokens under its box."""

from typing import Literal

import torch
from torch import Tensor

BoxPooling = Literal["overlap", "centre"]

# In cells: a box that ends on the edge of a cell does not overlap the next one by what rounding adds.
_ROUNDING = 1e-4


def pool_boxes(image_tokens: Tensor, boxes: Tensor, grid_size: int, kind: BoxPooling = "overlap") -> Tensor:
    """Means of the image tokens whose cells a box covers; of the cell at its centre where it covers none.

    Args:
        image_tokens: (B, G·G, C), row by row from the top left.
        boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
        grid_size: G.
        kind: "overlap": a cell counts where the box overlaps it, as in the released code. "centre": where its centre
            lies in the box or on its edge.

    Returns:
        (B, M, C)
    """
    cells = torch.arange(grid_size, device=boxes.device)
    x1, y1, x2, y2 = (boxes.unsqueeze(-1) * grid_size).unbind(-2)  # (B, M, 1) each, in cells
    covers = _overlaps if kind == "overlap" else _holds_centre
    covered = _cross(covers(y1, y2, cells), covers(x1, x2, cells))
    nearest = _cross(_cell_of(y1, y2, grid_size) == cells, _cell_of(x1, x2, grid_size) == cells)
    chosen = (covered | (nearest & ~covered.any(-1, keepdim=True))).to(image_tokens.dtype)
    return (chosen / chosen.sum(-1, keepdim=True)) @ image_tokens


def _overlaps(low: Tensor, high: Tensor, cells: Tensor) -> Tensor:
    return (low + _ROUNDING < cells + 1) & (cells < high - _ROUNDING)


def _holds_centre(low: Tensor, high: Tensor, cells: Tensor) -> Tensor:
    centres = cells.to(low.dtype) + 0.5
    return (low <= centres) & (centres <= high)


def _cell_of(low: Tensor, high: Tensor, grid_size: int) -> Tensor:
    return ((low + high) / 2).floor().clamp(0, grid_size - 1).long()


def _cross(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, M, G) rows and (B, M, G) columns -> (B, M, G·G) cells."""
    return (rows.unsqueeze(-1) & columns.unsqueeze(-2)).flatten(-2)
