"""MITR's network for joint generation: an image encoder, and a caption and a trace branch that meet once."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.baselines.mitr.attention import Attention, FeedForward, KeyValueCache
from training.config import MITRConfig
from training.network.positions import sinusoid


class MITROutput(NamedTuple):
    """What is predicted at each position.

    Attributes:
        word_logits: (B, T, V)
        boxes: (B, T, 4) corners x1, y1, x2, y2 in [0, 1].
    """

    word_logits: Tensor
    boxes: Tensor


def with_area(corners: Tensor) -> Tensor:
    """Boxes as the network reads them: (..., 4) corners -> (..., 5) corners and area; 0 where they are swapped."""
    width, height = (corners[..., 2:] - corners[..., :2]).clamp(min=0).unbind(-1)
    return torch.cat((corners, (width * height).unsqueeze(-1)), dim=-1)


class MITR(nn.Module):
    """Predicts the next word and where its speaker looks, from the image and all earlier words and boxes.

    Args:
        config: Sizes.
        vocabulary_size: V.
        image_channels: C, numbers in an image token.
    """

    def __init__(self, config: MITRConfig, vocabulary_size: int, image_channels: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.image_encoder = ImageEncoder(config, image_channels)
        self.words = nn.Embedding(vocabulary_size, size)
        self.boxes = nn.Sequential(nn.Linear(5, size), nn.LayerNorm(size), nn.ReLU(), nn.Dropout(config.input_dropout))
        self.box_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.caption, self.trace = Branch(config), Branch(config)
        self.caption_end, self.trace_end = BranchEnd(config), BranchEnd(config)
        self.word_head = nn.Linear(size, vocabulary_size)
        # Theirs predicts the area as a fifth number, which no loss reads; here it is computed (`with_area`).
        self.box_head = nn.Linear(size, 4)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, memory: Tensor, words: Tensor, boxes: Tensor, *, start: int = 0, cache: KeyValueCache | None = None
    ) -> MITROutput:
        """Predicts what follows at every position, or after the newest one where there is a cache.

        Both branches are causal, so the prediction at position i depends on words and boxes up to i alone, and padding
        behind a text changes nothing before it.

        Args:
            memory: (B, K, d) of `image_encoder`.
            words: (B, T) word numbers, a start token and the words so far.
            boxes: (B, T, 5) a box of zeros and the boxes of the words so far.
            start: Position of the first of them in the text.
            cache: Of a text that is being decoded: T is then 1, and earlier positions are remembered in it.
        """
        size = memory.shape[-1]
        x = self.words(words) * size**0.5
        order = sinusoid(torch.arange(start, start + words.shape[1], device=x.device, dtype=x.dtype), size)
        x = self.caption(self.dropout(x + order), memory, cache)
        y = self.trace(self.box_norm(self.boxes(boxes) + order), memory, cache)
        caption, trace = self.caption_end(x, y, cache), self.trace_end(y, x, cache)
        return MITROutput(self.word_head(caption), self.box_head(trace).sigmoid())


class ImageEncoder(nn.Module):
    """Image tokens and the boxes of their cells, through a small pre-norm transformer encoder."""

    def __init__(self, config: MITRConfig, image_channels: int) -> None:
        super().__init__()
        self.features, self.cells = _projection(config, image_channels), _projection(config, 5)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.layers = nn.Sequential(*(_EncoderLayer(config) for _ in range(config.num_layers)))
        self.output_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, image_tokens: Tensor) -> Tensor:
        """(B, G·G, C) tokens of a grid, row by row -> (B, G·G, d).

        Theirs reads the regions that an object detector proposes. The regions here are the cells of the grid of the
        frozen image encoder that DEPER reads.
        """
        cells = grid_boxes(round(image_tokens.shape[1] ** 0.5)).to(image_tokens)
        x = self.norm(self.features(image_tokens) + self.cells(cells))
        memory: Tensor = self.output_norm(self.layers(x))
        return memory


class Branch(nn.Module):
    """N layers of causal self-attention, then attention to the image; without feed-forward."""

    def __init__(self, config: MITRConfig) -> None:
        super().__init__()
        count = config.num_layers
        self.to_itself = nn.ModuleList(_attention(config, causal=True) for _ in range(count))
        self.to_image = nn.ModuleList(_attention(config, causal=False) for _ in range(count))

    def forward(self, x: Tensor, memory: Tensor, cache: KeyValueCache | None) -> Tensor:
        """(B, T, d) tokens, (B, K, d) image -> (B, T, d)."""
        for to_itself, to_image in zip(self.to_itself, self.to_image, strict=True):
            x = to_image(to_itself(x, None, cache), memory, cache)
        return x


class BranchEnd(nn.Module):
    """Where a branch meets the other one: causal attention to it, a feed-forward, LayerNorm."""

    def __init__(self, config: MITRConfig) -> None:
        super().__init__()
        self.to_other = _attention(config, causal=True)
        self.feed_forward = FeedForward(config.hidden_size, config.feedforward_size, config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, own: Tensor, other: Tensor, cache: KeyValueCache | None) -> Tensor:
        """(B, T, d) of this branch, (B, T, d) of the other, both from before they meet -> (B, T, d)."""
        output: Tensor = self.norm(self.feed_forward(self.to_other(own, other, cache)))
        return output


class _EncoderLayer(nn.Module):
    def __init__(self, config: MITRConfig) -> None:
        super().__init__()
        self.attention = _attention(config, causal=False)
        self.feed_forward = FeedForward(config.hidden_size, config.feedforward_size, config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.feed_forward(self.attention(tokens))
        return mixed


def grid_boxes(grid_size: int) -> Tensor:
    """(G·G, 5) corners and area of the cells of a G × G grid, row by row."""
    row, column = torch.meshgrid(torch.arange(grid_size), torch.arange(grid_size), indexing="ij")
    corners = torch.stack((column, row, column + 1, row + 1), dim=-1).flatten(0, 1)
    return with_area(corners / grid_size)


def _attention(config: MITRConfig, *, causal: bool) -> Attention:
    return Attention(config.hidden_size, config.num_heads, config.dropout, causal=causal)


def _projection(config: MITRConfig, channels: int) -> nn.Module:
    size = config.hidden_size
    return nn.Sequential(nn.Linear(channels, size), nn.ReLU(), nn.Dropout(config.input_dropout), nn.LayerNorm(size))
