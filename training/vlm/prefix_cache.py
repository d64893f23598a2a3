"""Keys and values of all that stands before `<subj>` in the prompt, computed once per image and without gradients.

The image comes before the persona in the prompt and attention is causal, so the keys and values of the system turn,
the image and the prompt up to `<subj>` depend on nothing that is trained.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from pydeper.vlm.prompt import rotary_positions
from training.data.feature_cache import MemoryStore
from training.distributed.sharding import join_uneven_inputs
from training.vlm.steered_vlm import SteeredVLM

_PREFIXES_AT_A_TIME = 16


@attrs.frozen(eq=False)
class Prefix:
    """The KV cache of one image's prefix.

    Attributes:
        keys_and_values: (layers, 2, KV heads, P, head size), P the tokens of the prefix.
        next_position: The rotary position of the token that follows.
    """

    keys_and_values: Tensor
    next_position: int

    def __len__(self) -> int:
        return self.keys_and_values.shape[3]

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.keys_and_values.nbytes


class PrefixCache:
    """Prefixes of images, by the images' numbers.

    Args:
        vlm: The frozen VLM.
        features: Image numbers -> (rows, columns, hidden) image tokens of each; see `SteeredVLM.image_maps`.
        before: Token ids between the image and `<subj>`.
        max_bytes: The most memory that is kept between calls. One image takes layers · 2 · KV heads · head size · P
            numbers: 8 MB for Qwen2-VL-2B at 448×448 in bfloat16.
    """

    def __init__(
        self,
        vlm: SteeredVLM,
        features: Callable[[Sequence[int]], Sequence[Tensor]],
        before: Sequence[int],
        max_bytes: int,
    ) -> None:
        self.vlm, self.features, self.before = vlm, features, before
        self._kept: MemoryStore[Prefix] = MemoryStore(max_bytes)
        self._prompt_of = lru_cache(maxsize=1024)(self._prompt)

    def of(self, images: Sequence[int]) -> list[Prefix]:
        """The prefix of every image; one that occurs twice is computed once, or kept from an earlier call."""
        found: dict[int, Prefix | None] = {int(image): self._kept.get(str(image)) for image in images}
        missing = [image for image, prefix in found.items() if prefix is None]
        with join_uneven_inputs(self.vlm.decoder_layers):  # every rank misses others
            for start in range(0, len(missing), _PREFIXES_AT_A_TIME):
                some = missing[start : start + _PREFIXES_AT_A_TIME]
                for image, prefix in zip(some, self._prefill(self.features(some)), strict=True):
                    self._kept.put(str(image), prefix)
                    found[image] = prefix
        return [kept for image in images if (kept := found[int(image)]) is not None]

    @torch.no_grad()
    def _prefill(self, maps: Sequence[Tensor]) -> list[Prefix]:
        """Prefixes of images, from (rows, columns, hidden) image tokens of each."""
        language, device = self.vlm.model.model.language_model, self.vlm.model.device
        ids, positions, following = zip(*(self._prompt_of(*image.shape[:2]) for image in maps), strict=True)
        # Padding stands on the right, where causal attention hides it; it is cut off again.
        input_ids = pad_sequence(list(ids), batch_first=True).to(device)
        position_ids = pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1).to(device)
        is_image = pad_sequence([i == self.vlm.config.tokens.image for i in ids], batch_first=True).to(device)
        words = self.vlm.model.get_input_embeddings()(input_ids)
        features = torch.cat([image.flatten(0, 1) for image in maps]).to(words)
        cache: Any = DynamicCache(config=language.config)
        language(
            inputs_embeds=words.masked_scatter(is_image[..., None], features),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]  # each (2, B, heads, P, size)
        return [
            Prefix(torch.stack([layer[:, row, :, : len(ids[row])] for layer in layers]), following[row])
            for row in range(len(maps))
        ]

    def _prompt(self, rows: int, columns: int) -> tuple[Tensor, Tensor, int]:
        """Ids (P,), positions (3, P) and the position that comes next, for an image of so many tokens."""
        vision, image = self.vlm.config.vision, self.vlm.config.tokens.image
        ids = [*self.vlm.template.image_ids(rows * columns), *self.before]
        grid = np.array([[1, rows * vision.merge_size, columns * vision.merge_size]])
        positions, following = rotary_positions(ids, image, grid, vision.merge_size)
        return torch.tensor(ids), torch.from_numpy(positions), following


@attrs.frozen(eq=False)
class LayerCache:
    """One layer's keys and values, (B, KV heads, P, head size) each, as transformers' attention reads a KV cache.

    It stores nothing, so that a layer may run a second time in the backward pass.
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def stack(cls, prefixes: Sequence[Prefix], layer: int) -> "LayerCache":
        """That of a batch, prefixes padded on the right."""
        rows = [prefix.keys_and_values[layer].permute(2, 0, 1, 3) for prefix in prefixes]
        return cls(*pad_sequence(rows, batch_first=True).permute(2, 0, 3, 1, 4))

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """The keys and values to attend to: those of the prefix, and the new ones behind them."""
        return torch.cat([self.keys.to(keys), keys], dim=2), torch.cat([self.values.to(values), values], dim=2)


def attention_bias(prefixes: Sequence[Prefix], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, 1, S, P + S): 0 where a token may look (its own prefix, and the S tokens up to itself), -inf elsewhere."""
    sizes = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    is_prefix = torch.arange(int(sizes.max()), device=device) < sizes[:, None]
    is_past = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    allowed = torch.cat([is_prefix[:, None].expand(-1, length, -1), is_past.expand(len(sizes), -1, -1)], dim=-1)
    return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)[:, None]
