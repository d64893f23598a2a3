"""The frozen Qwen2-VL as training sees it: image features, and a prompt with a soft token.

The soft token enters through `inputs_embeds`; the embedding table, to which the LM head is tied, is never touched.
"""

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from pydeper.bundle.config import SUBJECT_TOKEN, Precision, Prompts, SpecialTokens, VisionConfig, VLMConfig
from pydeper.bundle.tokenizer import literal_tokenizer, token_id
from pydeper.vlm.image_patches import image_patches, resized_shape
from pydeper.vlm.prompt import PromptTemplate, rotary_positions

IGNORE_INDEX = -100


@attrs.frozen(eq=False)
class PromptBatch:
    """Prompts with their descriptions, right-padded to one length S.

    Attributes:
        input_ids: (B, S) int64.
        position_ids: (3, B, S) int64, the rotary positions over time, height and width.
        labels: (B, S) int64, the description and its end token; `IGNORE_INDEX` elsewhere.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor


class SteeredVLM(nn.Module):
    """A frozen Qwen2-VL that is steered by one soft token.

    Args:
        model: transformers' model; its parameters are frozen here.
        tokenizer: Its tokenizer, `<subj>` included.
        config: Sizes, image preprocessing and special tokens.
        prompts: System turn and styles.
    """

    def __init__(
        self, model: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer, config: VLMConfig, prompts: Prompts
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = literal_tokenizer(tokenizer)
        self.config = config
        self.template = PromptTemplate(prompts, config, tokenizer)

    def sharing_weights(self) -> "SteeredVLM":
        """The same VLM in modules of its own over the same weights.

        What is put between or around its modules, such as LoRA layers, is not in this one, and takes only its own
        memory.
        """
        shared = [self.tokenizer, self.template, self.config, *self.parameters(), *self.buffers()]
        return copy.deepcopy(self, {id(item): item for item in shared})

    @property
    def decoder_layers(self) -> list[nn.Module]:
        """The layers of the language model: most of the parameters."""
        return list(self.model.model.language_model.layers)

    @torch.no_grad()
    def image_maps(self, images: Sequence[Image.Image], batch_size: int = 64) -> list[Tensor]:
        """Vision features of images as maps: (rows, columns, hidden) of each, in the dtype of the vision encoder."""
        maps: list[Tensor] = []
        device, merge = self.model.device, self.config.vision.merge_size
        for start in range(0, len(images), batch_size):
            batch = [image_patches(image, self.config.vision) for image in images[start : start + batch_size]]
            patches, grids = (np.concatenate(arrays) for arrays in zip(*batch, strict=True))
            merged = self.model.model.visual(
                torch.from_numpy(patches).to(device), grid_thw=torch.from_numpy(grids).to(device)
            ).pooler_output
            shapes = [(int(rows) // merge, int(columns) // merge) for _, rows, columns in grids]
            split = merged.split([rows * columns for rows, columns in shapes])
            maps += [tokens.unflatten(0, shape) for tokens, shape in zip(split, shapes, strict=True)]
        return maps

    def image_features(self, images: Sequence[Image.Image], batch_size: int = 64) -> list[Tensor]:
        """Vision features of images: a list of (n, hidden) float32 tensors, n tokens an image."""
        return [image.flatten(0, 1).float() for image in self.image_maps(images, batch_size)]

    def grids(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, 3) int64: frames, patch rows and patch columns of each image."""
        patch = self.config.vision.patch_size
        shapes = [resized_shape(image.height, image.width, self.config.vision) for image in images]
        return np.array([(1, height // patch, width // patch) for height, width in shapes], np.int64)

    def embed(self, image_features: Sequence[Tensor], soft_tokens: Tensor | None, input_ids: Tensor) -> Tensor:
        """Input embeddings (B, S, hidden): the table's rows, image features and soft tokens in their slots."""
        embeds: Tensor = self.model.get_input_embeddings()(input_ids)
        image_slots = (input_ids == self.config.tokens.image)[..., None]
        embeds = embeds.masked_scatter(image_slots, torch.cat(list(image_features)).to(embeds))
        if soft_tokens is None:
            return embeds
        subject_slots = (input_ids == self.config.tokens.subject)[..., None]
        return torch.where(subject_slots, soft_tokens[:, None].to(embeds), embeds)

    def steered_prompt(self, style: str) -> list[int]:
        """Token ids of a style's prompt behind the image, with `<subj>` in the persona's slot."""
        prompt = self.template.with_persona(style)
        return [*prompt.before, self.config.tokens.subject, *prompt.after]

    def prompt_batch(
        self, prompts: Sequence[Sequence[int]], descriptions: Sequence[str], grids: np.ndarray
    ) -> PromptBatch:
        """Puts images, prompts and descriptions together.

        Args:
            prompts: B sequences of token ids that follow the image.
            descriptions: The assistant's turns.
            grids: (B, 3) frames, patch rows and patch columns of the images.
        """
        tokens, merge = self.config.tokens, self.config.vision.merge_size
        rows = []
        for prompt, description, grid in zip(prompts, descriptions, grids, strict=True):
            question = [*self.template.image_ids(int(np.prod(grid)) // merge**2), *prompt]
            answer = [*self.text_ids(description), tokens.end[0]]
            positions, _ = rotary_positions([*question, *answer], tokens.image, grid[None], merge)
            rows.append((question, answer, positions))
        length = max(positions.shape[1] for _, _, positions in rows)
        input_ids = np.full((len(rows), length), tokens.end[0], np.int64)
        labels = np.full((len(rows), length), IGNORE_INDEX, np.int64)
        positions_3d = np.zeros((3, len(rows), length), np.int64)
        for i, (question, answer, positions) in enumerate(rows):
            end = positions.shape[1]
            input_ids[i, :end] = [*question, *answer]
            labels[i, len(question) : end] = answer
            positions_3d[:, i, :end] = positions
        return PromptBatch(
            *(torch.from_numpy(array).to(self.model.device) for array in (input_ids, positions_3d, labels))
        )

    @torch.no_grad()
    def greedy(self, image: Image.Image, soft_token: Tensor | None, style: str, max_new_tokens: int) -> list[int]:
        """Greedy decoding the plain way, one whole forward pass a token: what the ONNX runtime is held against.

        Args:
            image: An upright RGB image.
            soft_token: (hidden,), or None for the prompt without a persona.
            style: The prompt's style.
            max_new_tokens: The most tokens to generate.

        Returns:
            The generated ids, without the end token.
        """
        tokens, merge = self.config.tokens, self.config.vision.merge_size
        features, grid = self.image_features([image]), self.grids([image])
        prompt = self.template.without_persona(style) if soft_token is None else self.steered_prompt(style)
        ids = [*self.template.image_ids(len(features[0])), *prompt]
        start = len(ids)
        while len(ids) < start + max_new_tokens:
            positions, _ = rotary_positions(ids, tokens.image, grid, merge)
            input_ids = torch.tensor([ids], device=self.model.device)
            embeds = self.embed(features, None if soft_token is None else soft_token[None], input_ids)
            hidden = self.model.model.language_model(
                inputs_embeds=embeds,
                position_ids=torch.from_numpy(positions)[:, None].to(self.model.device),
                use_cache=False,
            ).last_hidden_state
            logits = self.model.lm_head(hidden[0, -1])
            logits[list(tokens.suppressed)] = -torch.inf
            chosen = int(logits.argmax())
            if chosen in tokens.end:
                break
            ids.append(chosen)
        return ids[start:]

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a plain text; it never becomes special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def vision_config(config: Qwen2VLConfig, image_size: tuple[int, int] | None) -> VisionConfig:
    """States how a model takes images, with Qwen2-VL's own normalisation.

    Args:
        config: The transformers model's.
        image_size: Fixed (height, width) of images in pixels (the paper: 448×448), or None for Qwen's smart resize.
    """
    vision: Any = config.vision_config
    area = (vision.patch_size * vision.spatial_merge_size) ** 2
    return VisionConfig(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        image_mean=OPENAI_CLIP_MEAN,
        image_std=OPENAI_CLIP_STD,
        image_size=image_size,
        # From 4 to 16384 tokens an image, the limits of Qwen2-VL's own preprocessor.
        min_pixels=4 * area,
        max_pixels=16384 * area,
    )


def vlm_config(
    config: Qwen2VLConfig,
    tokenizer: Tokenizer,
    vision: VisionConfig,
    *,
    base_model: str,
    base_revision: str | None = None,
    source: str = "vlm",
    source_revision: str | None = None,
    precision: Precision = "fp32",
    end: Sequence[str] = ("<|im_end|>", "<|endoftext|>"),
) -> VLMConfig:
    """States a model's sizes and special tokens for `config.json`.

    Every special token but those of `end`, and every row that no token uses, is suppressed: none of them can stand in
    a description.

    Args:
        config: The transformers model's.
        tokenizer: The VLM's, `<subj>` included.
        vision: Image preprocessing.
        base_model: Hub id or name of the model.
        base_revision: Its revision.
        source: Folder of the exported files in the bundle, or the Hub id of a repository that holds them.
        source_revision: Commit of a Hub id.
        precision: Which variant of the files is opened by default.
        end: Tokens that end a description.

    Raises:
        ValueError: The tokenizer lacks a token, or its special tokens are not the model's.
    """
    text: Any = config.text_config
    image = token_id(tokenizer, "<|image_pad|>")
    if image != config.image_token_id:
        raise ValueError(f"<|image_pad|> is {image} in the tokenizer, {config.image_token_id} in the model")
    ends = tuple(token_id(tokenizer, name) for name in end)
    special = {i for i, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    unused = set(range(text.vocab_size)) - set(tokenizer.get_vocab().values())
    return VLMConfig(
        base_model=base_model,
        base_revision=base_revision,
        source=source,
        source_revision=source_revision,
        precision=precision,
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_key_value_heads=text.num_key_value_heads,
        head_dim=text.hidden_size // text.num_attention_heads,
        vocab_size=text.vocab_size,
        max_positions=text.max_position_embeddings,
        vision=vision,
        tokens=SpecialTokens(
            subject=token_id(tokenizer, SUBJECT_TOKEN),
            image=image,
            vision_start=token_id(tokenizer, "<|vision_start|>"),
            vision_end=token_id(tokenizer, "<|vision_end|>"),
            end=ends,
            suppressed=tuple(sorted((special | unused) - set(ends))),
        ),
    )
