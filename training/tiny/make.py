"""`python -m training tiny`: the built-in demonstration model, trained step by step from random weights.

Every step keeps its checkpoints in a folder of its own and is skipped when it is finished; a step that was interrupted
resumes from its last checkpoint. `python -m export tiny` makes the bundle.
"""

from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig
from pydeper.persona.preprocess import persona_pixels
from training.data.encoded import encode_dataset
from training.errors import TrainingError
from training.loop.checkpoints import is_finished, load_state
from training.loop.train import train
from training.network.adapter import Adapter
from training.network.image_encoder import ImageEncoder
from training.network.persona_encoder import PersonaEncoder
from training.network.text_table import TextTable
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task
from training.tiny.config import TinyConfig
from training.tiny.pretraining.dense_targets import THINGS
from training.tiny.pretraining.vision import DrawnScenes, Level, VisionTask, encoder_tokens
from training.tiny.steps import (
    IMAGE_ENCODER,
    LANGUAGE,
    LARGER_LANGUAGE,
    LARGER_VISION,
    SKETCHES,
    STAGE1,
    STAGE2,
    VISION,
    Seeds,
    pretrain,
    round_to_half,
    seed_of,
    stack,
)
from training.tiny.vlm import pretrain_vlm
from training.tiny.world.people import People, simulate_people
from training.tiny.world.rendering import render
from training.tiny.world.scenes import Scene
from training.vlm.steered_vlm import SteeredVLM

COMMAND = ("python", "-m", "training", "tiny")
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as DINOv3


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
    """Step 6: the persona encoder's frozen image encoder. Returns it with weights exact in float16."""
    sizes, encoder = config.image_encoder, build_image_encoder(config)
    side = sizes.image_size // 32

    def pixels(scenes: Sequence[Scene], _canvas: tuple[float, float], _close: bool) -> tuple[Tensor, tuple[int, int]]:
        return stack(persona_pixels(render(scene), persona_config(config)) for scene in scenes), (side, side)

    pretrain(
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
            heads_warmup=config.encoder.heads_warmup,
            bfloat16=config.encoder.bfloat16,
        ),
    )
    round_to_half(encoder)
    frozen: DINOv3ConvNextModel = encoder.eval().requires_grad_(False)
    return frozen


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
        LARGER_VISION: config.larger_vision.steps,
        SKETCHES: config.sketches.steps,
        LARGER_LANGUAGE: config.larger_language.steps,
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
