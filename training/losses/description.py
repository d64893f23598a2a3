"""L_des: how likely the frozen VLM finds a person's descriptions, given the soft token of their persona.

Only `<subj>`, the end of the prompt and the description run through the VLM with gradients; they attend to the cached
keys and values of what stands before them (`training.vlm.prefix_cache`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2VLForConditionalGeneration

from training.precision import bfloat16_autocast
from training.vlm.prefix_cache import LayerCache, Prefix, PrefixCache, attention_bias
from training.vlm.steered_vlm import IGNORE_INDEX, PromptBatch, SteeredVLM

_LOGITS_AT_A_TIME = 512


class DescriptionLoss:
    """L_des: (images, soft tokens, descriptions) in, loss out.

    Args:
        vlm: The frozen VLM.
        features: Image numbers -> (rows, columns, hidden) image tokens of each; see `SteeredVLM.image_maps`.
        style: The prompt's style.
        bf16: Run the VLM under bfloat16 autocast.
        cache_bytes: The most memory of prefixes that are kept between calls; see `PrefixCache`.
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
        self.vlm, self.bf16, self.checkpointing = vlm, bf16, checkpointing
        prompt = vlm.template.with_persona(style)
        self._after = list(prompt.after)
        self._prefixes = PrefixCache(vlm, features, prompt.before, cache_bytes)
        if (kind := vlm.model.config.text_config._attn_implementation) not in ("sdpa", "eager"):
            raise ValueError(f"attention {kind!r} takes no mask of the shape (B, 1, S, P + S); load with sdpa or eager")
        self._layers: Sequence[Callable[..., Tensor]] = vlm.decoder_layers
        if compile:
            self._layers = [torch.compile(layer, dynamic=True) for layer in self._layers]

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
        with bfloat16_autocast(device, wanted=self.bf16):
            prefixes = self._prefixes.of(images)
            input_ids, targets = (array.to(device) for array in self._suffixes(descriptions))
            words = self.vlm.model.get_input_embeddings()(input_ids)
            embeds = torch.cat([soft_tokens[:, None].to(words), words], dim=1)
            hidden = self._decode(embeds, prefixes)
            is_target = targets != IGNORE_INDEX
            return self._cross_entropy(hidden[is_target], targets[is_target])

    def _suffixes(self, descriptions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Input ids (B, S - 1) that follow `<subj>`, and what each of the S positions is to predict, right-padded."""
        end = self.vlm.config.tokens.end[0]
        answers = [[*self.vlm.text_ids(text), end] for text in descriptions]
        inputs = [torch.tensor([*self._after, *answer[:-1]]) for answer in answers]
        targets = [torch.tensor([IGNORE_INDEX] * len(self._after) + answer) for answer in answers]
        return (
            pad_sequence(inputs, batch_first=True, padding_value=end),
            pad_sequence(targets, batch_first=True, padding_value=IGNORE_INDEX),
        )

    def _decode(self, embeds: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
        """(B, S, hidden) embeddings behind their prefixes -> (B, S, hidden) last hidden states."""
        language = self.vlm.model.model.language_model
        length, device = embeds.shape[1], embeds.device
        starts = torch.tensor([prefix.next_position for prefix in prefixes], device=device)
        positions = (starts[:, None] + torch.arange(length, device=device)).expand(3, -1, -1)
        rotary = language.rotary_emb(embeds, positions)
        mask = attention_bias(prefixes, length, embeds.dtype, device)
        hidden = embeds
        for index, layer in enumerate(self._layers):

            def run(hidden: Tensor, layer: Callable[..., Tensor] = layer, index: int = index) -> Tensor:
                # One layer's at a time, and in here: keys and values of all would be held twice.
                past = LayerCache.stack(prefixes, index)
                return layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=past)

            hidden = self._checkpointed(run, hidden)
        last: Tensor = language.norm(hidden)
        return last

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the n next tokens; in chunks, so that n·V logits are never there at once."""

        def total(hidden: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(self.vlm.model.lm_head(hidden).float(), targets, reduction="sum")

        size = _LOGITS_AT_A_TIME if self.checkpointing else len(targets)
        chunks = zip(hidden.split(size), targets.split(size), strict=True)
        return torch.stack([self._checkpointed(total, *chunk) for chunk in chunks]).sum() / len(targets)

    def _checkpointed(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return function(*arguments)
        computed: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
        return computed


def language_loss(model: Qwen2VLForConditionalGeneration, inputs_embeds: Tensor, batch: PromptBatch) -> Tensor:
    """L_des in one forward pass over whole prompts, images included, as a VLM itself is trained.

    Next-token cross-entropy over the labelled positions alone; the LM head runs on no other position. Padding stands on
    the right, where causal attention hides it from every labelled position: no mask is needed.

    Args:
        model: The VLM.
        inputs_embeds: (B, S, hidden), see `SteeredVLM.embed`.
        batch: The prompts with their descriptions.

    Returns:
        A scalar in float32, mean over all labelled positions of the batch.
    """
    hidden = model.model.language_model(
        inputs_embeds=inputs_embeds,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    targets = batch.labels[:, 1:]
    is_target = targets != IGNORE_INDEX
    return F.cross_entropy(model.lm_head(hidden[:, :-1][is_target]).float(), targets[is_target])
