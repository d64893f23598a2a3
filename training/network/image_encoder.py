"""The frozen image encoder (DINOv3 ConvNeXt-Tiny in the paper)."""

import os
from typing import Any, Self

import torch
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """A frozen vision backbone as a grid of tokens: never trained, always in eval mode, never with gradients.

    It stands beside the trained network, not inside it, so that neither checkpoints nor optimisers hold its weights.

    Args:
        backbone: A transformers vision model whose `last_hidden_state` is (B, prefix + G·G, C), grid row by row. The
            prefix is the pooled token, and register tokens where the config counts some.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        config: Any = backbone.config
        self.channels: int = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
        self._prefix = 1 + getattr(config, "num_register_tokens", 0)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], revision: str | None = None) -> Self:
        """Loads a backbone in float32 from a folder or a Hub repository."""
        from transformers import AutoModel

        kwargs = {} if revision is None else {"revision": revision}
        return cls(AutoModel.from_pretrained(os.fspath(name_or_folder), dtype=torch.float32, **kwargs))

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever `mode` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encodes square images.

        Args:
            pixel_values: (B, 3, H, H) normalised pixels.

        Returns:
            (B, G·G, C): DINOv3 ConvNeXt has one token for 32×32 pixels, so 448×448 gives 14×14. Its tokens have been
            through the model's final LayerNorm.
        """
        tokens: Tensor = self.backbone(pixel_values=pixel_values).last_hidden_state
        return tokens[:, self._prefix :]
