"""Pictures for tests."""

import numpy as np
from PIL import Image


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """A coloured scene of a few boxes, so that no two images look alike to the model."""
    rng = np.random.default_rng(seed)
    pixels = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (height, width, 3)).copy()
    for _ in range(4):
        left, top = rng.integers(0, width), rng.integers(0, height)
        pixels[top : top + height // 2 + 1, left : left + width // 2 + 1] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)
