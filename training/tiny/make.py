"""`python -m training tiny`: the built-in demonstration model, trained step by step from random weights.

Every step keeps its checkpoints in a folder of its own and is skipped when it is finished; a step that was interrupted
resumes from its last checkpoint. `python -m export tiny` makes the bundle.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig, Prompts, PromptStyle, VisionConfig
from pydeper.persona.preprocess import persona_pixels
from pydeper.vlm.image_patches import image_patches, resized_shape
from training.config import OptimisationConfig
from training.data.encoded import encode_dataset
from training.errors import TrainingError
from training.loop.checkpoints import is_finished, load_state
from training.loop.train import Task, train
from training.network.adapter import Adapter
from training.network.image_encoder import ImageEncoder
from training.network.persona_encoder import PersonaEncoder
from training.network.text_table import TextTable
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task
from training.tiny.config import Pretraining, TinyConfig
from training.tiny.pretraining.dense_targets import TARGETS, THINGS
from training.tiny.pretraining.initialisation import initialise_linear_layers
from training.tiny.pretraining.language import LanguageTask, see_scenes
from training.tiny.pretraining.vision import (
    DrawnScenes,
    Level,
    Preprocess,
    VisionTask,
    encoder_tokens,
    initialise_tower,
    tower_tokens,
)
from training.tiny.tokenizer import build_tokenizer
from training.tiny.world.people import People, simulate_people
from training.tiny.world.rendering import render
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import said_words
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config

NAME = "tiny"
# The folders of the steps, in their order.
VISION, LANGUAGE, IMAGE_ENCODER, STAGE1, STAGE2 = "1-vision", "2-language", "3-image-encoder", "4-stage-1", "5-stage-2"
PROMPTS = Prompts(
    system="You describe drawings.",
    styles={
        "description": PromptStyle(
            with_persona="Write a description of this photo in the style of <subj>",
            without_persona="Write a description of this photo",
        )
    },
)
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as DINOv3


class Seeds:
    """Offsets that keep the random streams of the steps apart."""

    VISION_SCENES, LANGUAGE_SCENES, ENCODER_SCENES, VIEWERS, SAMPLES, TEST_SCENES, SUPPORT = range(1, 8)
    VISION, LANGUAGE, ENCODER, STAGE1, STAGE2 = range(11, 16)


def seed_of(config: TinyConfig, offset: int) -> int:
    """The seed of one random stream."""
    return config.seed * 1000 + offset


# --- the VLM


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
                "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
                "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
                "tie_word_embeddings": True,
            },
            vision_config={
                "depth": sizes.vision_depth,
                "embed_dim": sizes.vision_width,
                "num_heads": sizes.vision_heads,
                "hidden_size": sizes.hidden_size,
                "patch_size": sizes.patch_size,
            },
            image_token_id=tokenizer.token_to_id("<|image_pad|>"),
            vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
            vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
            tie_word_embeddings=True,
        )
    )
    initialise_tower(model.model.visual)
    language = model.model.language_model
    initialise_linear_layers(language, sizes.layers, ("o_proj", "down_proj"))
    # Attention in plain products: backwards, PyTorch's fused kernel takes about three times as long on a CPU.
    language.set_attn_implementation("eager")
    image = attrs.evolve(
        vision_config(model.config, None),
        # The shape of a picture is kept; a little room above the area lets a square have its whole side.
        min_pixels=sizes.image_side**2 * 3 // 4,
        max_pixels=(sizes.image_side + 2) ** 2,
    )
    described = vlm_config(model.config, tokenizer, image, base_model=f"{NAME} (drawn scenes only)")
    return SteeredVLM(model, tokenizer, described, PROMPTS)


def pretrain_vlm(config: TinyConfig, folder: Path) -> SteeredVLM:
    """Steps 1 and 2: the vision tower, then the language side. Returns the frozen VLM, its weights exact in float16."""
    vlm = build_vlm(config)
    tower = vlm.model.model.visual.requires_grad_(True)
    # The layers that begin locally find the objects; that leaves the others to compare them.
    levels = (
        Level(config.vlm.hidden_size, tuple(TARGETS)),
        Level(config.vlm.vision_width, ("colour", "centre"), finer=vlm.config.vision.merge_size),
    )
    _pretrain(
        config.vision,
        folder / VISION,
        seed_of(config, Seeds.VISION),
        tower,
        "encoder",
        lambda: VisionTask(
            name="vision tower",
            encoder=tower,
            features=tower_tokens,
            scenes=DrawnScenes(
                preprocess=_patches_of(vlm.config.vision, config.vlm.close_up_side),
                levels=levels,
                batch_size=config.vision.batch_size,
                close_ups=config.vision.close_ups,
                seed=seed_of(config, Seeds.VISION_SCENES),
            ),
            learning_rate=config.vision.learning_rate,
            bfloat16=config.vision.bfloat16,
        ),
    )
    tower.requires_grad_(False)
    language = vlm.model.model.language_model
    _pretrain(
        config.language,
        folder / LANGUAGE,
        seed_of(config, Seeds.LANGUAGE),
        language,
        "language",
        lambda: LanguageTask(
            vlm=vlm,
            seen=see_scenes(vlm, config.language.scenes, seed_of(config, Seeds.LANGUAGE_SCENES)),
            batch_size=config.language.batch_size,
            learning_rate=config.language.learning_rate,
            seed=seed_of(config, Seeds.LANGUAGE),
            bfloat16=config.language.bfloat16,
        ),
    )
    round_to_half(vlm.model)
    vlm.model.requires_grad_(False)
    return vlm


def _patches_of(config: VisionConfig, close_up_side: int) -> Preprocess:
    """Scenes as patches: close-ups at a size of their own, others at that to which the VLM scales such pictures."""

    def preprocess(scenes: Sequence[Scene], canvas: tuple[float, float], close: bool) -> tuple[Tensor, tuple[int, int]]:
        width, height = canvas
        # One size for all: drawn scenes of one shape may differ by a pixel.
        size = (close_up_side,) * 2 if close else resized_shape(round(1000 * height), round(1000 * width), config)
        fixed = attrs.evolve(config, image_size=size)
        token = config.patch_size * config.merge_size
        return _stack(image_patches(render(scene), fixed)[0] for scene in scenes), (size[0] // token, size[1] // token)

    return preprocess


def build_image_encoder(config: TinyConfig) -> DINOv3ConvNextModel:
    """The tiny image encoder with random weights."""
    sizes = config.image_encoder
    torch.manual_seed(seed_of(config, Seeds.ENCODER))
    return DINOv3ConvNextModel(
        DINOv3ConvNextConfig(
            hidden_sizes=list(sizes.hidden_sizes),
            depths=list(sizes.depths),
            layer_scale_init_value=1.0,
            image_size=sizes.image_size,
        )
    )


def pretrain_image_encoder(config: TinyConfig, folder: Path) -> DINOv3ConvNextModel:
    """Step 3: the persona encoder's frozen image encoder. Returns it with weights exact in float16."""
    sizes, encoder = config.image_encoder, build_image_encoder(config)
    side = sizes.image_size // 32

    def pixels(scenes: Sequence[Scene], _canvas: tuple[float, float], _close: bool) -> tuple[Tensor, tuple[int, int]]:
        return _stack(persona_pixels(render(scene), persona_config(config)) for scene in scenes), (side, side)

    _pretrain(
        config.encoder,
        folder / IMAGE_ENCODER,
        seed_of(config, Seeds.ENCODER),
        encoder,
        "encoder",
        lambda: VisionTask(
            name="image encoder",
            encoder=encoder,
            features=encoder_tokens,
            scenes=DrawnScenes(
                preprocess=pixels,
                levels=(Level(sizes.hidden_sizes[-1], tuple(THINGS)),),
                batch_size=config.encoder.batch_size,
                close_ups=config.encoder.close_ups,
                seed=seed_of(config, Seeds.ENCODER_SCENES),
            ),
            learning_rate=config.encoder.learning_rate,
            bfloat16=config.encoder.bfloat16,
        ),
    )
    round_to_half(encoder)
    return encoder.eval().requires_grad_(False)


def persona_config(config: TinyConfig, fingerprint: str = "unexported") -> PersonaEncoderConfig:
    """The persona encoder as a bundle's config describes it."""
    return PersonaEncoderConfig(
        fingerprint=fingerprint,
        subject_embedding_size=config.network.subject_embedding_size,
        image_encoder=ImageEncoderInfo(
            name="DINOv3 ConvNeXt architecture, trained from nothing on drawn scenes", licence="Apache-2.0"
        ),
        image_size=config.image_encoder.image_size,
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
        max_fixations=config.network.max_fixations,
        max_description_tokens=256,
        modalities=("text+trajectory", "text", "trajectory"),
    )


# --- DEPER


@attrs.frozen(eq=False)
class TrainedModel:
    """Everything that a bundle is made of, in eval mode, and the people it was trained on."""

    vlm: SteeredVLM
    image_encoder: ImageEncoder
    text_table: TextTable
    persona_encoder: PersonaEncoder
    adapter: Adapter
    people: People


def make(config: TinyConfig, folder: Path) -> None:
    """Runs all steps that `folder` does not hold finished yet."""
    vlm = pretrain_vlm(config, folder)
    image_encoder = ImageEncoder(pretrain_image_encoder(config, folder))
    text_table = text_table_of(vlm)
    people = simulate_people(config.viewers, seed_of(config, Seeds.VIEWERS))
    data = encode_dataset(people.training, vlm.tokenizer, image_encoder, persona_config(config))
    stage1 = Stage1Task(config.network, config.stage1, data, text_table, seed_of(config, Seeds.STAGE1))
    train(stage1, config.stage1, seed_of(config, Seeds.STAGE1), folder / STAGE1)
    stage2 = Stage2Task(stage1.deper, config.stage2, data, text_table, vlm, seed_of(config, Seeds.STAGE2))
    train(stage2, config.stage2, seed_of(config, Seeds.STAGE2), folder / STAGE2)


def load_trained(config: TinyConfig, folder: Path) -> TrainedModel:
    """Loads what `make` trained; trains nothing.

    Args:
        config: The settings it was trained with.
        folder: Its checkpoints.

    Returns:
        The modules, with weights rounded to values that float16 holds exactly.

    Raises:
        TrainingError: A step is missing, unfinished or of other sizes; names the command that trains it.
    """
    steps = {
        VISION: config.vision.steps,
        LANGUAGE: config.language.steps,
        IMAGE_ENCODER: config.encoder.steps,
        STAGE1: config.stage1.steps,
        STAGE2: config.stage2.steps,
    }
    for step, count in steps.items():
        if not is_finished(folder / step, count):
            raise TrainingError(
                f"{folder / step}: not finished; run `python -m training tiny --out {folder}` with the same settings"
            )
    vlm = pretrain_vlm(config, folder)
    persona_encoder = PersonaEncoder(config.network)
    adapter = Adapter(config.network.subject_embedding_size, vlm.config.hidden_size)
    for part, module in (("encoder", persona_encoder), ("adapter", adapter)):
        load_state(folder / STAGE2, module, part)
        round_to_half(module)
    return TrainedModel(
        vlm=vlm,
        image_encoder=ImageEncoder(pretrain_image_encoder(config, folder)),
        text_table=text_table_of(vlm),
        persona_encoder=persona_encoder.eval(),
        adapter=adapter.eval(),
        people=simulate_people(config.viewers, seed_of(config, Seeds.VIEWERS)),
    )


def text_table_of(vlm: SteeredVLM) -> TextTable:
    """A copy of the VLM's input embeddings, which the persona encoder reads descriptions with."""
    return TextTable(vlm.model.get_input_embeddings().weight.detach().clone())


# --- shared


def _pretrain(
    config: Pretraining,
    folder: Path,
    seed: int,
    module: torch.nn.Module,
    part: str,
    task: Callable[[], Task],
) -> None:
    """Runs a pre-training; if it is finished, loads `module`, which is this part of its state, and draws nothing."""
    if is_finished(folder, config.steps):
        load_state(folder, module, part)
        return
    optimisation = OptimisationConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
    )
    train(task(), optimisation, seed, folder)


def round_to_half(module: torch.nn.Module) -> None:
    """Rounds all weights to values that float16 holds exactly, so that storing them as float16 loses nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())


def _stack(arrays: Iterable[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(array) for array in arrays])
