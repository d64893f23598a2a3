"""Pictures for tests."""

from pathlib import Path

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


def write_images(folder: Path, count: int = 40) -> None:
    """Writes small pictures `0.png`, `1.png`, … into a folder, which is made."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 6)).save(folder / f"{number}.png")
