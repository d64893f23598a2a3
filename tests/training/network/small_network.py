"""A small DEPER, and random samples for it."""

import torch
from torch import Tensor

from training.network import NetworkConfig

CONFIG = NetworkConfig(
    hidden_size=16,
    subject_embedding_size=12,
    num_heads=2,
    encoder_layers=2,
    decoder_layers=2,
    max_fixations=5,
    image_channels=6,
    text_channels=10,
    grid_size=3,
)
SWITCHES = ("trajectory", "dynamics", "dual_context", "trajectory_latent", "film")


def draw_boxes(count: int, generator: torch.Generator) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64)
    return torch.cat((corners.amin(1), corners.amax(1)), dim=-1)


def draw_sample(words: int, fixations: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image tokens (N, C), text embeddings (l, E), boxes (m, 4), durations (m,)."""
    return (
        torch.randn(CONFIG.grid_size**2, CONFIG.image_channels, generator=generator, dtype=torch.float64),
        torch.randn(words, CONFIG.text_channels, generator=generator, dtype=torch.float64),
        draw_boxes(fixations, generator),
        torch.rand(fixations, generator=generator, dtype=torch.float64) * 2,
    )


def collate(samples: list[tuple[Tensor, Tensor, Tensor, Tensor]], length: int, count: int) -> tuple[Tensor, ...]:
    """The six inputs, padded to `length` words and `count` fixations with rubbish that must not matter."""
    generator = torch.Generator().manual_seed(99)
    batch = len(samples)
    text = torch.randn(batch, length, CONFIG.text_channels, generator=generator, dtype=torch.float64)
    boxes = draw_boxes(batch * count, generator).view(batch, count, 4)
    durations = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    attention_mask, fixation_mask = torch.zeros(batch, length).long(), torch.zeros(batch, count).long()
    for i, (_, words, sample_boxes, sample_durations) in enumerate(samples):
        text[i, : len(words)], attention_mask[i, : len(words)] = words, 1
        boxes[i, : len(sample_boxes)], durations[i, : len(sample_boxes)] = sample_boxes, sample_durations
        fixation_mask[i, : len(sample_boxes)] = 1
    return torch.stack([sample[0] for sample in samples]), text, attention_mask, boxes, durations, fixation_mask
