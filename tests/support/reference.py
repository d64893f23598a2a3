"""Decoding as plainly as it can be said: transformers, the whole sequence again at every step, no cache."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pydeper.bundle.config import Prompts, VLMConfig


def image_inputs(image: Image.Image, config: VLMConfig) -> tuple[torch.Tensor, torch.Tensor]:
    vision = config.vision
    processor = Qwen2VLImageProcessorPil(
        min_pixels=vision.min_pixels,
        max_pixels=vision.max_pixels,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.merge_size,
        image_mean=list(vision.image_mean),
        image_std=list(vision.image_std),
    )
    batch = processor(images=[image], return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]


def prompt_ids(tokenizer: Tokenizer, prompts: Prompts, style: str, image_tokens: int, with_persona: bool) -> list[int]:
    text = prompts.styles[style].with_persona if with_persona else prompts.styles[style].without_persona
    chat = (
        f"<|im_start|>system\n{prompts.system}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        f"{'<|image_pad|>' * image_tokens}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
    )
    return tokenizer.encode(chat, add_special_tokens=False).ids


@torch.no_grad()
def step_logits(
    model: Qwen2VLForConditionalGeneration,
    config: VLMConfig,
    ids: Sequence[int],
    pixel_values: torch.Tensor,
    grid: torch.Tensor,
    soft_token: np.ndarray | None,
) -> np.ndarray:
    """Logits (V,) after `ids`, with the image's features and the soft token in their places."""
    input_ids = torch.tensor([list(ids)])
    embeds = model.get_input_embeddings()(input_ids).clone()
    is_image = input_ids == config.tokens.image
    embeds[is_image] = model.model.visual(pixel_values, grid).pooler_output
    if soft_token is not None:
        embeds[input_ids == config.tokens.subject] = torch.from_numpy(soft_token)
    positions, _ = model.model.get_rope_index(input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grid)
    output = model(inputs_embeds=embeds, position_ids=positions, use_cache=False)
    return output.logits[0, -1].numpy().astype(np.float64)


def greedy(
    model: Qwen2VLForConditionalGeneration,
    config: VLMConfig,
    tokenizer: Tokenizer,
    prompts: Prompts,
    style: str,
    image: Image.Image,
    soft_token: np.ndarray | None,
    max_new_tokens: int,
    strength: float = 1.0,
) -> list[int]:
    """The greedy description's tokens, the end token left out."""
    pixel_values, grid = image_inputs(image, config)
    tokens = int(grid.prod()) // config.vision.merge_size**2
    persona = prompt_ids(tokenizer, prompts, style, tokens, with_persona=True)
    plain = prompt_ids(tokenizer, prompts, style, tokens, with_persona=False)
    generated: list[int] = []
    while len(generated) < max_new_tokens:
        scores = np.zeros(config.vocab_size)
        if soft_token is None or strength != 1:
            without = step_logits(model, config, plain + generated, pixel_values, grid, None)
            scores += (1.0 if soft_token is None else 1 - strength) * log_softmax(without)
        if soft_token is not None and strength != 0:
            with_one = step_logits(model, config, persona + generated, pixel_values, grid, soft_token)
            scores += strength * log_softmax(with_one)
        scores[list(config.tokens.suppressed)] = -np.inf
        best = int(scores.argmax())
        if best in config.tokens.end:
            break
        generated.append(best)
    return generated


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
