"""What a fixation saw: the image tokens under its box."""

import torch
from torch import Tensor


def pool_boxes(image_tokens: Tensor, boxes: Tensor, grid_size: int) -> Tensor:
    """Means of the image tokens whose cell centres a box covers; the cell nearest to its centre where it covers none.

    A centre on the box's edge counts as covered.

    Args:
        image_tokens: (B, G·G, C), row by row from the top left.
        boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
        grid_size: G.

    Returns:
        (B, M, C)
    """
    cells = torch.arange(grid_size, device=boxes.device)
    centres = (cells.to(boxes.dtype) + 0.5) / grid_size  # (G,)
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(-2)  # (B, M, 1) each
    covered = _cross((y1 <= centres) & (centres <= y2), (x1 <= centres) & (centres <= x2))
    nearest = _cross(_cell_of(y1, y2, grid_size) == cells, _cell_of(x1, x2, grid_size) == cells)
    chosen = (covered | (nearest & ~covered.any(-1, keepdim=True))).to(image_tokens.dtype)
    return (chosen / chosen.sum(-1, keepdim=True)) @ image_tokens


def _cell_of(low: Tensor, high: Tensor, grid_size: int) -> Tensor:
    return ((low + high) / 2 * grid_size).floor().clamp(0, grid_size - 1).long()


def _cross(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, M, G) rows and (B, M, G) columns -> (B, M, G·G) cells."""
    return (rows.unsqueeze(-1) & columns.unsqueeze(-2)).flatten(-2)
