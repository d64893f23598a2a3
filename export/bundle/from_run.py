"""A finished training run to a bundle: `python -m export bundle`."""

from pathlib import Path
from typing import Any

import attrs
from tokenizers import Tokenizer

from export.bundle.build import TrainedModules, build_bundle
from export.persona_encoder import EncoderPrecision
from export.qwen2_vl.folder import read_vlm_folder
from pydeper.bundle.config import BundleConfig, ImageEncoderInfo, Modality, VLMConfig
from pydeper.bundle.layout import TOKENIZER
from pydeper.errors import BundleError
from pydeper.publish import IMAGE_ENCODER_LICENCE
from training.config import ConfigError, TrainingConfig
from training.errors import TrainingError
from training.loop.checkpoints import is_finished, load_state
from training.network import Adapter, PersonaEncoder
from training.outputs import exists
from training.runs.folders import stage1_folder, stage2_folder
from training.runs.frozen_parts import FrozenParts
from training.runs.prompts import prompts_of


def export_run(
    config: TrainingConfig,
    run: Path,
    vlm: Path,
    target: Path,
    *,
    image_encoder: ImageEncoderInfo,
    licence: str,
    description: str | None = None,
    precision: EncoderPrecision = "fp16",
    image_encoder_licence: Path | None = None,
) -> dict[str, float]:
    """Exports what a run trained, checks it against torch, and puts it together with an exported VLM.

    Args:
        config: The training's configuration.
        run: Its folder, with both stages finished; their best step is taken where they chose one.
        vlm: What `python -m export vlm` made of the VLM that the run was trained with.
        target: The bundle's folder; it must not exist.
        image_encoder: Name of the frozen image encoder, and the licence of its weights, which the bundle holds.
        licence: Of the bundle as a whole.
        description: What the model is, for its card; None says what it was trained on.
        precision: Of the persona encoder.
        image_encoder_licence: That licence's text, to go along.

    Returns:
        The largest differences from torch, each relative to the largest value compared, by name.

    Raises:
        BundleError: `target` exists, or the VLM's folder holds none, or another than the run was trained with.
        ConfigError: The configuration has no stage 2.
        TrainingError: A stage is missing, unfinished, or of another configuration; or a frozen part cannot be loaded.
    """
    if config.stage2 is None:
        raise ConfigError("stage2: missing; a bundle needs the adapter, which stage 2 trains")
    if exists(target):
        raise BundleError(f"{target}: exists already; remove it, or choose another --out")
    for folder, steps in (
        (stage1_folder(run), config.stage1.steps),
        (stage2_folder(run), config.stage2.steps),
    ):
        if not is_finished(folder, steps):
            raise TrainingError(f"{folder}: not finished; run `python -m training {folder.name.replace('-', '')}`")
    described, tokenizer = read_vlm_folder(vlm)
    parts = FrozenParts.load(config)
    _check_vlm(vlm, described, tokenizer, config, parts)
    persona_encoder = PersonaEncoder(config.network)
    adapter = Adapter(config.network.subject_embedding_size, described.hidden_size)
    load_state(stage2_folder(run), persona_encoder, "encoder")
    load_state(stage2_folder(run), adapter, "adapter")
    differences = build_bundle(
        target,
        BundleConfig(
            name=config.name,
            description=description or f"DEPER on {Path(config.samples).name}, steering {described.base_model}.",
            licence=licence,
            persona_encoder=attrs.evolve(
                parts.preprocessing, image_encoder=image_encoder, modalities=accepted_modalities(config)
            ),
            vlm=described,
            prompts=prompts_of(config),
            training=_facts(config),
        ),
        TrainedModules(persona_encoder, parts.image_encoder, parts.text_table, adapter),
        vlm=vlm,
        tokenizer=vlm / TOKENIZER,
        encoder_precision=precision,
        adapter_precision="fp32",
        extras={IMAGE_ENCODER_LICENCE: image_encoder_licence} if image_encoder_licence else None,
    )
    return {"z_s": differences.subject_embedding, "soft token": differences.soft_token}


def _check_vlm(
    folder: Path, described: VLMConfig, tokenizer: Tokenizer, config: TrainingConfig, parts: FrozenParts
) -> None:
    """The soft token is for one VLM, and for images of the size that it was trained with."""
    side = (config.image_size, config.image_size)
    wrong = {
        "width of its embeddings": (described.hidden_size, parts.text_table.channels),
        "size of its images": (described.vision.image_size, side),
        "vocabulary": (tokenizer.get_vocab(), parts.tokenizer.get_vocab()),
    }
    for what, (found, trained) in wrong.items():
        if found != trained:
            shown = "differs" if isinstance(found, dict) else f"is {found}, and was {trained}"
            raise BundleError(
                f"{folder}: is not the VLM that the run was trained with, {config.vlm}: the {what} {shown}; export "
                f"that one: `python -m export vlm {config.vlm} --image-size {config.image_size} --out FOLDER`"
            )


def accepted_modalities(config: TrainingConfig) -> tuple[Modality, ...]:
    """Returns the kinds of sample that a training makes its encoder accept: incomplete ones with modality dropout."""
    return ("text+trajectory", "text", "trajectory") if config.stage1.modality_dropout > 0 else ("text+trajectory",)


def _facts(config: TrainingConfig) -> dict[str, Any]:
    assert config.stage2 is not None
    facts: dict[str, Any] = {"data": Path(config.samples).name, "seed": config.seed}
    for name, stage in (("stage 1", config.stage1), ("stage 2", config.stage2)):
        facts[name] = f"{stage.steps} steps of {stage.batch_size * stage.accumulation} samples"
    return facts
