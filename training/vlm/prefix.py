"""L_des without work done twice: all that stands before `<subj>` is computed once per image, and without gradients.

The image comes before the persona in the prompt and attention is causal, so the keys and values of the system turn,
the image and the prompt up to `<subj>` depend on nothing that is trained. Only the rest (`<subj>`, the end of the
prompt, the description) runs through the frozen VLM with gradients, and attends to them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from pydeper.vlm.prompt import rotary_positions
from training.data.feature_cache import MemoryStore
from training.distributed.sharding import uneven_passes
from training.vlm.steered_vlm import IGNORED, SteeredVLM

_PREFIXES_AT_A_TIME = 16
_LOGITS_AT_A_TIME = 512


class DescriptionLoss:
    """L_des: (images, soft tokens, descriptions) in, loss out.

    Args:
        vlm: The frozen VLM.
        features: Image numbers -> (rows, columns, hidden) image tokens of each; see `SteeredVLM.image_maps`.
        style: The prompt's style.
        bf16: Run the VLM under bfloat16 autocast.
        cache_bytes: The most memory of the keys and values that are kept between calls. One image takes
            layers · 2 · KV heads · head size · prefix length numbers: 8 MB for Qwen2-VL-2B at 448×448 in bfloat16.
        checkpointing: Keep no activations but the layers' inputs, and compute them again in the backward pass.
        compile: Run the VLM's layers through `torch.compile`.
    """

    def __init__(
        self,
        vlm: SteeredVLM,
        features: Callable[[Sequence[int]], Sequence[Tensor]],
        style: str = "description",
        *,
        bf16: bool = False,
        cache_bytes: int = 2**30,
        checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        self.vlm, self.features, self.bf16, self.checkpointing = vlm, features, bf16, checkpointing
        self._prompt = vlm.template.with_persona(style)
        self._kept: MemoryStore[_Prefix] = MemoryStore(cache_bytes)
        if (kind := vlm.model.config.text_config._attn_implementation) not in ("sdpa", "eager"):
            raise ValueError(f"attention {kind!r} takes no mask of the shape (B, 1, S, P + S); load with sdpa or eager")
        self._layers: Sequence[Callable[..., Tensor]] = vlm.decoder_layers
        if compile:
            self._layers = [torch.compile(layer, dynamic=True) for layer in self._layers]
        self._prefix_of = lru_cache(maxsize=1024)(self._numbered_prefix)

    def __call__(self, images: Sequence[int], soft_tokens: Tensor, descriptions: Sequence[str]) -> Tensor:
        """Mean next-token cross-entropy of the descriptions (the assistant's turn with its end token).

        Args:
            images: B numbers of images.
            soft_tokens: (B, hidden), the embeddings that take the place of `<subj>`.
            descriptions: B texts.

        Returns:
            A scalar in float32, mean over all description tokens of the batch.
        """
        device = self.vlm.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            prefixes = self._prefixes(images)
            input_ids, targets = (array.to(device) for array in self._suffixes(descriptions))
            table = self.vlm.model.get_input_embeddings()
            words = table(input_ids)
            embeds = torch.cat([soft_tokens[:, None].to(words), words], dim=1)
            hidden = self._decode(embeds, prefixes)
            wanted = targets != IGNORED
            return self._cross_entropy(hidden[wanted], targets[wanted])

    def _suffixes(self, descriptions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Input ids (B, S - 1) that follow `<subj>`, and what each of the S positions is to predict, right-padded."""
        after, end = list(self._prompt.after), self.vlm.config.tokens.end[0]
        answers = [[*self.vlm.text_ids(text), end] for text in descriptions]
        inputs = [torch.tensor([*after, *answer[:-1]]) for answer in answers]
        targets = [torch.tensor([IGNORED] * len(after) + answer) for answer in answers]
        return (
            pad_sequence(inputs, batch_first=True, padding_value=end),
            pad_sequence(targets, batch_first=True, padding_value=IGNORED),
        )

    def _decode(self, embeds: Tensor, prefixes: Sequence["_Prefix"]) -> Tensor:
        """(B, S, hidden) embeddings behind their prefixes -> (B, S, hidden) last hidden states."""
        language = self.vlm.model.model.language_model
        length, device = embeds.shape[1], embeds.device
        starts = torch.tensor([prefix.next_position for prefix in prefixes], device=device)
        positions = (starts[:, None] + torch.arange(length, device=device)).expand(3, -1, -1)
        rotary = language.rotary_emb(embeds, positions)
        sizes = torch.tensor([prefix.keys_and_values.shape[3] for prefix in prefixes], device=device)
        mask = _attention_bias(sizes, length, embeds.dtype)
        hidden = embeds
        for index, layer in enumerate(self._layers):

            def run(hidden: Tensor, layer: Callable[..., Tensor] = layer, index: int = index) -> Tensor:
                # One layer's at a time, and in here: keys and values of all would be held twice.
                past = _stack(prefixes, index)
                return layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=past)

            hidden = self._recomputed(run, hidden)
        last: Tensor = language.norm(hidden)
        return last

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the n next tokens; recomputed piece by piece, n·V logits are never there at once."""

        def total(hidden: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(self.vlm.model.lm_head(hidden).float(), targets, reduction="sum")

        size = _LOGITS_AT_A_TIME if self.checkpointing else len(targets)
        pieces = zip(hidden.split(size), targets.split(size), strict=True)
        return torch.stack([self._recomputed(total, *piece) for piece in pieces]).sum() / len(targets)

    def _recomputed(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return function(*arguments)
        computed: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
        return computed

    # --- what is computed once

    def _prefixes(self, images: Sequence[int]) -> list["_Prefix"]:
        """The prefix of every row; an image that several rows share is computed once, and maybe kept from before."""
        found = {int(image): self._kept.get(str(image)) for image in images}
        missing = [image for image, prefix in found.items() if prefix is None]
        with uneven_passes(self.vlm.decoder_layers):  # every process misses others
            for start in range(0, len(missing), _PREFIXES_AT_A_TIME):
                some = missing[start : start + _PREFIXES_AT_A_TIME]
                for image, prefix in zip(some, self._prefill(self.features(some)), strict=True):
                    self._kept.put(str(image), prefix)
                    found[image] = prefix
        return [prefix for image in images if (prefix := found[int(image)]) is not None]

    @torch.no_grad()
    def _prefill(self, maps: Sequence[Tensor]) -> list["_Prefix"]:
        """Prefixes of images, from (rows, columns, hidden) image tokens of each."""
        language, device = self.vlm.model.model.language_model, self.vlm.model.device
        ids, positions, following = zip(*(self._prefix_of(*image.shape[:2]) for image in maps), strict=True)
        # Padding stands on the right, where causal attention hides it; it is cut off again.
        input_ids = pad_sequence(list(ids), batch_first=True).to(device)
        position_ids = pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1).to(device)
        is_image = pad_sequence([i == self.vlm.config.tokens.image for i in ids], batch_first=True).to(device)
        words = self.vlm.model.get_input_embeddings()(input_ids)
        features = torch.cat([image.flatten(0, 1) for image in maps]).to(words)
        cache = DynamicCache(config=language.config)
        language(
            inputs_embeds=words.masked_scatter(is_image[..., None], features),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]  # each (2, B, heads, P, size)
        return [
            _Prefix(torch.stack([layer[:, row, :, : len(ids[row])] for layer in layers]), following[row])
            for row in range(len(maps))
        ]

    def _numbered_prefix(self, rows: int, columns: int) -> tuple[Tensor, Tensor, int]:
        """Ids (P,), positions (3, P) and the position that comes next, behind an image of so many tokens."""
        vision, image = self.vlm.config.vision, self.vlm.config.tokens.image
        ids = [*self.vlm.template.image_ids(rows * columns), *self._prompt.before]
        grid = np.array([[1, rows * vision.merge_size, columns * vision.merge_size]])
        positions, following = rotary_positions(ids, image, grid, vision.merge_size)
        return torch.tensor(ids), torch.from_numpy(positions), following


@attrs.frozen(eq=False)
class _Prefix:
    """Keys and values (layers, 2, KV heads, prefix length, head size), and the position of the token that follows."""

    keys_and_values: Tensor
    next_position: int

    @property
    def nbytes(self) -> int:
        return self.keys_and_values.nbytes


@attrs.frozen(eq=False)
class _Past:
    """One layer's keys and values, (B, KV heads, P, head size) each, as transformers' attention asks a cache for them.

    It stores nothing, so that a layer may run a second time in the backward pass.
    """

    keys: Tensor
    values: Tensor

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys.to(keys), keys], dim=2), torch.cat([self.values.to(values), values], dim=2)


def _stack(prefixes: Sequence[_Prefix], layer: int) -> _Past:
    """One layer's keys and values of a batch, prefixes padded on the right."""
    rows = [prefix.keys_and_values[layer].permute(2, 0, 1, 3) for prefix in prefixes]
    return _Past(*pad_sequence(rows, batch_first=True).permute(2, 0, 3, 1, 4))


def _attention_bias(sizes: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, S, P + S): 0 where a token may look (its own prefix, and the rest up to itself), -inf elsewhere."""
    longest = int(sizes.max())
    prefix = torch.arange(longest, device=sizes.device) < sizes[:, None]
    rest = torch.ones(length, length, dtype=torch.bool, device=sizes.device).tril()
    allowed = torch.cat([prefix[:, None].expand(-1, length, -1), rest.expand(len(sizes), -1, -1)], dim=-1)
    return torch.zeros(allowed.shape, dtype=dtype, device=sizes.device).masked_fill_(~allowed, -torch.inf)[:, None]
