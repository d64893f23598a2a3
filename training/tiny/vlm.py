"""The tiny VLM: Qwen2-VL's architecture, some 5 million parameters, taught to see and to describe drawn scenes."""

from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from pydeper.bundle.config import Prompts, PromptStyle, VisionConfig
from pydeper.bundle.tokenizer import token_id
from pydeper.vlm.image_patches import image_patches, resized_shape
from training.tiny.config import LanguagePretraining, TinyConfig, VisionPretraining
from training.tiny.pretraining.dense_targets import TARGETS
from training.tiny.pretraining.initialisation import initialise_linear_layers
from training.tiny.pretraining.language import LanguageTask, see_scenes
from training.tiny.pretraining.sketches import SketchTask
from training.tiny.pretraining.vision import (
    DrawnScenes,
    Level,
    Preprocess,
    VisionTask,
    initialise_tower,
    tower_tokens,
)
from training.tiny.steps import (
    LANGUAGE,
    LARGER_LANGUAGE,
    LARGER_VISION,
    SKETCHES,
    VISION,
    Seeds,
    pretrain,
    round_to_half,
    seed_of,
    stack,
)
from training.tiny.tokenizer import build_tokenizer
from training.tiny.world.rendering import render
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import said_words
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config

NAME = "tiny"
PROMPTS = Prompts(
    system="You describe drawings.",
    styles={
        "description": PromptStyle(
            with_persona="Write a description of this photo in the style of <subj>",
            without_persona="Write a description of this photo",
        )
    },
)


def tokenizer_of(config: TinyConfig) -> Tokenizer:
    """The tiny tokenizer: words of the tiny world and of the prompts are single tokens."""
    style = PROMPTS.styles["description"]
    texts = [*said_words(), f"system\n{PROMPTS.system}", "user\n", "assistant\n", *style.with_persona.split("<subj>")]
    return build_tokenizer(texts * 20, config.vlm.vocab_size)


def build_vlm(config: TinyConfig) -> SteeredVLM:
    """The tiny VLM with random weights."""
    sizes, tokenizer = config.vlm, tokenizer_of(config)
    torch.manual_seed(seed_of(config, Seeds.LANGUAGE))
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={
                "vocab_size": tokenizer.get_vocab_size(),
                "hidden_size": sizes.hidden_size,
                "intermediate_size": sizes.intermediate_size,
                "num_hidden_layers": sizes.layers,
                "num_attention_heads": sizes.heads,
                "num_key_value_heads": sizes.key_value_heads,
                "max_position_embeddings": 1024,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
                "bos_token_id": token_id(tokenizer, "<|endoftext|>"),
                "eos_token_id": token_id(tokenizer, "<|im_end|>"),
                "tie_word_embeddings": True,
            },
            vision_config={
                "depth": sizes.vision_depth,
                "embed_dim": sizes.vision_width,
                "num_heads": sizes.vision_heads,
                "hidden_size": sizes.hidden_size,
                "patch_size": sizes.patch_size,
            },
            image_token_id=token_id(tokenizer, "<|image_pad|>"),
            vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
            vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
            tie_word_embeddings=True,
        )
    )
    initialise_tower(model.model.visual)
    language = model.model.language_model
    initialise_linear_layers(language, sizes.layers, ("o_proj", "down_proj"))
    # Attention in plain products: backwards, PyTorch's fused kernel takes about three times as long on a CPU.
    language.set_attn_implementation("eager")
    image = _scaled_to(vision_config(model.config, None), sizes.image_side)
    described = vlm_config(model.config, tokenizer, image, base_model=f"{NAME} (drawn scenes only)")
    return SteeredVLM(model, tokenizer, described, PROMPTS)


def _scaled_to(config: VisionConfig, side: int) -> VisionConfig:
    """Pictures keep their shape; a little room above the area lets a square have its whole side."""
    return attrs.evolve(config, min_pixels=side**2 * 3 // 4, max_pixels=(side + 2) ** 2)


def pretrain_vlm(config: TinyConfig, folder: Path) -> SteeredVLM:
    """Steps 1 to 5: the vision tower and the language side, first at a smaller size of pictures, then at the final one.

    The smaller size is where most is learned, at half the cost of a step; the larger one is for small objects (cf.
    Beyer et al. 2024, "PaliGemma"). In between, the finished tower learns to see sketched drawings as it sees others.

    Returns:
        The frozen VLM, its weights exact in float16.
    """
    vlm = build_vlm(config)
    image = _scaled_to(vlm.config.vision, config.vlm.first_image_side)
    first = SteeredVLM(vlm.model, vlm.tokenizer, attrs.evolve(vlm.config, vision=image), PROMPTS)
    _pretrain_tower(config, config.vision, first, folder / VISION, Seeds.VISION, Seeds.VISION_SCENES)
    _pretrain_language(config, config.language, first, folder / LANGUAGE, Seeds.LANGUAGE, Seeds.LANGUAGE_SCENES)
    _pretrain_tower(
        config, config.larger_vision, vlm, folder / LARGER_VISION, Seeds.LARGER_VISION, Seeds.LARGER_VISION_SCENES
    )
    _train_on_sketches(config, vlm, folder / SKETCHES)
    _pretrain_language(
        config,
        config.larger_language,
        vlm,
        folder / LARGER_LANGUAGE,
        Seeds.LARGER_LANGUAGE,
        Seeds.LARGER_LANGUAGE_SCENES,
    )
    round_to_half(vlm.model)
    vlm.model.requires_grad_(False)
    return vlm


def _pretrain_tower(
    config: TinyConfig, own: VisionPretraining, vlm: SteeredVLM, folder: Path, seed: int, scenes_seed: int
) -> None:
    tower = vlm.model.model.visual
    # The layers that begin locally find the objects; that leaves the others to compare them.
    levels = (
        Level(config.vlm.hidden_size, tuple(TARGETS)),
        Level(config.vlm.vision_width, ("colour", "centre"), finer=vlm.config.vision.merge_size),
    )
    pretrain(
        own,
        folder,
        seed_of(config, seed),
        tower.requires_grad_(True),
        "encoder",
        lambda: VisionTask(
            name="vision tower",
            encoder=tower,
            features=tower_tokens,
            scenes=DrawnScenes(
                preprocess=_patches_of(vlm.config.vision, config.vlm.close_up_side),
                levels=levels,
                batch_size=own.batch_size,
                close_ups=own.close_ups,
                seed=seed_of(config, scenes_seed),
            ),
            learning_rate=own.learning_rate,
            heads_warmup=own.heads_warmup,
            bfloat16=own.bfloat16,
        ),
    )
    tower.requires_grad_(False)


def _pretrain_language(
    config: TinyConfig, own: LanguagePretraining, vlm: SteeredVLM, folder: Path, seed: int, scenes_seed: int
) -> None:
    pretrain(
        own,
        folder,
        seed_of(config, seed),
        vlm.model.model.language_model,
        "language",
        lambda: LanguageTask(
            vlm=vlm,
            seen=see_scenes(vlm, own.scenes, seed_of(config, scenes_seed)),
            batch_size=own.batch_size,
            learning_rate=own.learning_rate,
            seed=seed_of(config, seed),
            heads_warmup=own.heads_warmup,
            bfloat16=own.bfloat16,
        ),
    )


def _train_on_sketches(config: TinyConfig, vlm: SteeredVLM, folder: Path) -> None:
    own, tower = config.sketches, vlm.model.model.visual
    pretrain(
        own,
        folder,
        seed_of(config, Seeds.SKETCHES),
        tower.requires_grad_(True),
        "encoder",
        lambda: SketchTask(
            tower=tower,
            preprocess=_patches_of(vlm.config.vision, config.vlm.close_up_side),
            batch_size=own.batch_size,
            seed=seed_of(config, Seeds.SKETCH_SCENES),
            learning_rate=own.learning_rate,
            bfloat16=own.bfloat16,
        ),
    )
    tower.requires_grad_(False)


def _patches_of(config: VisionConfig, close_up_side: int) -> Preprocess:
    """Scenes as patches: close-ups at a size of their own, others at that to which the VLM scales such pictures."""

    def preprocess(scenes: Sequence[Scene], canvas: tuple[float, float], close: bool) -> tuple[Tensor, tuple[int, int]]:
        width, height = canvas
        # One size for all: drawn scenes of one shape may differ by a pixel.
        size = (close_up_side,) * 2 if close else resized_shape(round(1000 * height), round(1000 * width), config)
        fixed = attrs.evolve(config, image_size=size)
        token = config.patch_size * config.merge_size
        return stack(image_patches(render(scene), fixed)[0] for scene in scenes), (size[0] // token, size[1] // token)

    return preprocess
