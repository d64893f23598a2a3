"""Greedy decoding of the frozen VLM in torch: many prompts at once, each token in one step over a KV cache."""

from collections.abc import Sequence

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from pydeper.errors import InvalidArgumentError
from pydeper.vlm.prompt import rotary_positions
from training.vlm.steered_vlm import SteeredVLM


@attrs.frozen(eq=False)
class SeenImage:
    """An image as the VLM sees it.

    Attributes:
        features: (n, hidden), one row an image token.
        grid: (3,) int64: frames, patch rows, patch columns.
    """

    features: Tensor
    grid: np.ndarray


@attrs.frozen(eq=False)
class Prompt:
    """What the VLM is to go on from.

    Attributes:
        ids: Token ids, with `image` tokens in the slots of the images and `subject` in that of the soft token.
        images: The images, in the order of their slots.
        soft_token: (hidden,), or None where the prompt has no `<subj>`.
    """

    ids: Sequence[int]
    images: Sequence[SeenImage]
    soft_token: Tensor | None = None


def see(vlm: SteeredVLM, images: Sequence[Image.Image]) -> list[SeenImage]:
    """Runs the vision encoder over upright RGB images."""
    if not images:
        return []
    return [SeenImage(*seen) for seen in zip(vlm.image_features(images), vlm.grids(images), strict=True)]


def image_ids(vlm: SteeredVLM, image: SeenImage) -> list[int]:
    """Token ids of the system turn and the user turn's begin, up to and with the end of the image."""
    return vlm.template.image_ids(len(image.features))


@torch.no_grad()
def greedy(vlm: SteeredVLM, prompts: Sequence[Prompt], max_new_tokens: int, *, batch_size: int = 16) -> list[list[int]]:
    """The likeliest next token, again and again, until an end token or `max_new_tokens`.

    The tokens are those of `SteeredVLM.greedy`, one whole forward pass a token, but for logits that tie to the last
    digits: sums over a batch are taken in another order.

    Args:
        vlm: The frozen VLM.
        prompts: n prompts of any lengths; those of like length share a batch.
        max_new_tokens: The most tokens to generate for one prompt, at least 1.
        batch_size: The most prompts at a time.

    Returns:
        n lists of generated ids, without the end token.

    Raises:
        InvalidArgumentError: A prompt with its new tokens is longer than the VLM's context, or has a soft token without
            a slot or a slot without a soft token.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise InvalidArgumentError(f"max_new_tokens is {max_new_tokens}, batch_size {batch_size}; each is at least 1")
    for number, prompt in enumerate(prompts):
        _check(vlm, prompt, max_new_tokens, f"prompts[{number}]")
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    generated: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), batch_size):
        rows = by_length[start : start + batch_size]
        for row, ids in zip(rows, _greedy_batch(vlm, [prompts[row] for row in rows], max_new_tokens), strict=True):
            generated[row] = ids
    return generated


def _greedy_batch(vlm: SteeredVLM, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
    model, tokens, device = vlm.model, vlm.config.tokens, vlm.model.device
    language, table = model.model.language_model, model.get_input_embeddings()
    suppressed = torch.tensor(tokens.suppressed, device=device, dtype=torch.long)
    ends = torch.tensor(tokens.end, device=device)
    embeds, positions, mask = _left_padded(vlm, prompts)
    position = positions.amax((0, 2)) + 1  # (B,) where each row goes on, on all three axes
    cache = DynamicCache(config=model.config.text_config)
    rows = torch.arange(len(prompts), device=device)
    generated: list[list[int]] = [[] for _ in prompts]
    for count in range(1, max_new_tokens + 1):
        hidden = language(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits = model.lm_head(hidden[:, -1])
        logits[:, suppressed] = -torch.inf
        chosen = logits.argmax(-1)
        goes_on = ~torch.isin(chosen, ends)
        if not goes_on.all():
            cache.batch_select_indices(goes_on.nonzero().squeeze(-1))
            rows, chosen, mask, position = rows[goes_on], chosen[goes_on], mask[goes_on], position[goes_on]
        for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
            generated[row].append(token)
        if not len(rows) or count == max_new_tokens:
            break
        embeds = table(chosen)[:, None]
        positions = position[None, :, None].expand(3, -1, 1)
        position = position + 1
        mask = torch.cat((mask, mask.new_ones(len(rows), 1)), dim=1)
    return generated


def _left_padded(vlm: SteeredVLM, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, S, hidden), positions (3, B, S) and attention mask (B, S), real tokens at the right end."""
    tokens, merge, device = vlm.config.tokens, vlm.config.vision.merge_size, vlm.model.device
    length = max(len(prompt.ids) for prompt in prompts)
    ids = np.full((len(prompts), length), tokens.end[0], np.int64)
    positions = np.zeros((3, len(prompts), length), np.int64)
    mask = np.zeros((len(prompts), length), np.int64)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.ids)
        grids = np.stack([image.grid for image in prompt.images]) if prompt.images else np.zeros((0, 3), np.int64)
        ids[row, start:] = prompt.ids
        positions[:, row, start:] = rotary_positions(prompt.ids, tokens.image, grids, merge)[0]
        mask[row, start:] = 1
    features = [image.features for prompt in prompts for image in prompt.images]
    nothing = torch.zeros(vlm.config.hidden_size, device=device)
    soft_tokens = torch.stack(
        [nothing if prompt.soft_token is None else prompt.soft_token.to(nothing) for prompt in prompts]
    )
    input_ids = torch.from_numpy(ids).to(device)
    embeds = vlm.embed(features or [nothing[:0].reshape(0, len(nothing))], soft_tokens, input_ids)
    return embeds, torch.from_numpy(positions).to(device), torch.from_numpy(mask).to(device)


def _check(vlm: SteeredVLM, prompt: Prompt, max_new_tokens: int, where: str) -> None:
    if (needed := len(prompt.ids) + max_new_tokens) > vlm.config.max_positions:
        raise InvalidArgumentError(
            f"{where}: {len(prompt.ids)} tokens and {max_new_tokens} new ones are {needed}, and the VLM's context "
            f"holds {vlm.config.max_positions}; shorten the prompt or lower max_new_tokens"
        )
    slots = list(prompt.ids).count(vlm.config.tokens.subject)
    if slots != (prompt.soft_token is not None):
        raise InvalidArgumentError(
            f"{where}: {slots} slots for a soft token, and {'none' if prompt.soft_token is None else 'one'} is given"
        )
