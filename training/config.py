"""Configurations: attrs classes, read from TOML, changed by `--set key=value`; an unknown key is an error."""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from pydeper.errors import PydeperError
from training.network.config import NetworkConfig

T = TypeVar("T")


class ConfigError(PydeperError, ValueError):
    """A configuration that cannot be used; the message names the key."""


def positive(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is > 0."""
    if not value > 0:
        raise ConfigError(f"{attribute.name}: must be > 0, got {value!r}")


def fraction(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is in [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"{attribute.name}: must be in [0, 1), got {value!r}")


def below_half(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Validates that the value is in [0, 0.5)."""
    if not 0 <= value < 0.5:
        raise ConfigError(f"{attribute.name}: must be in [0, 0.5), got {value!r}")


def known_figures(*known: str) -> Callable[[Any, "attrs.Attribute[Any]", dict[str, float]], None]:
    """Attrs validator: a table of weights, at least one, whose keys are all among `known`."""

    def validate(_: Any, attribute: "attrs.Attribute[Any]", value: dict[str, float]) -> None:
        unknown = sorted(set(value) - set(known))
        if unknown or not value:
            found = f"unknown figure {', '.join(unknown)}" if unknown else "needs at least one figure"
            raise ConfigError(f"{attribute.name}: {found} (known: {', '.join(known)})")

    return validate


def not_negative(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is >= 0."""
    if not value >= 0:
        raise ConfigError(f"{attribute.name}: must be >= 0, got {value!r}")


METEOR = "meteor"
CAPTION_METRICS = ("bleu1", "bleu4", "cider", "rouge_l", METEOR)
# Settings that do not shape the loss curve: a run may resume with others.
MAY_CHANGE = {"may_change": True}


@attrs.frozen(kw_only=True)
class OptimisationConfig:
    """What all trainings have in common: AdamW with warm-up and cosine decay, accumulation, logs, checkpoints.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples in one micro-batch: one forward pass of one process.
        accumulation: Micro-batches in one optimiser step of one process.
        learning_rate: Peak learning rate (paper: 5e-4).
        weight_decay: Of AdamW.
        warmup: Fraction of the steps in which the learning rate climbs to its peak; a cosine then takes it down to
            `final_rate`.
        final_rate: Learning rate of the last step, as a fraction of the peak.
        clip: Largest gradient norm (paper: 1.0).
        contrastive_weight: λ of the losses (paper: 0.1).
        temperature: Of the contrastive loss (paper: 0.07).
        bank_size: Vectors in the contrastive memory bank's queue (paper: 4096).
        modality_dropout: Chance, below 0.5, that a training sample loses its trajectory, and the same chance that it
            loses its description; never both. It makes a persona from text alone or gaze alone useful.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the newest checkpoints stay; the best one stays beside them.
        log_every: Steps between lines of the JSONL log.
        evaluate_every: Steps between evaluations on the split "val", and one after the last step; 0: none.
        tensorboard: Also log for TensorBoard, into the stage's folder.
        bucket: So many consecutive batches sort their samples by length among themselves, so that little is padding;
            1: none do.
        compile: Run what is computed in every step through `torch.compile`: minutes at first, faster after.
        workers: Processes beside each training process that make the batches of both stages ahead; they read
            `feature_cache`. 0: each batch is made when its step needs it.
        prefetch: Batches that each worker makes ahead.
    """

    steps: int = attrs.field(validator=positive)
    batch_size: int = attrs.field(default=64, validator=positive)
    accumulation: int = attrs.field(default=1, validator=positive)
    learning_rate: float = attrs.field(default=5e-4, validator=positive)
    weight_decay: float = attrs.field(default=0.01, validator=not_negative)
    warmup: float = attrs.field(default=0.05, validator=fraction)
    final_rate: float = attrs.field(default=0.05, validator=not_negative)
    clip: float = attrs.field(default=1.0, validator=positive)
    contrastive_weight: float = attrs.field(default=0.1, validator=not_negative)
    temperature: float = attrs.field(default=0.07, validator=positive)
    bank_size: int = attrs.field(default=4096, validator=positive)
    modality_dropout: float = attrs.field(default=0.0, validator=below_half)
    checkpoint_every: int = attrs.field(default=100, validator=positive, metadata=MAY_CHANGE)
    keep_checkpoints: int = attrs.field(default=1, validator=positive, metadata=MAY_CHANGE)
    log_every: int = attrs.field(default=10, validator=positive, metadata=MAY_CHANGE)
    evaluate_every: int = attrs.field(default=0, validator=not_negative, metadata=MAY_CHANGE)
    tensorboard: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    bucket: int = attrs.field(default=1, validator=positive)
    compile: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    workers: int = attrs.field(default=0, validator=not_negative, metadata=MAY_CHANGE)
    prefetch: int = attrs.field(default=2, validator=positive, metadata=MAY_CHANGE)


@attrs.frozen(kw_only=True)
class NoiseConfig:
    """Noise on training samples, drawn anew whenever one is shown, so that few of them are not learned by heart.

    Attributes:
        words: Chance of each of a description's tokens to be left out; the first stays.
        boxes: Standard deviation by which each fixation box moves, in widths and heights of the image.
        durations: Standard deviation of the logarithm of the factor that each duration is multiplied by.
    """

    words: float = attrs.field(default=0.0, validator=fraction)
    boxes: float = attrs.field(default=0.0, validator=not_negative)
    durations: float = attrs.field(default=0.0, validator=not_negative)


@attrs.frozen(kw_only=True)
class VirtualPeopleConfig:
    """Virtual people: a person's trajectories, all changed alike, are somebody else's, to be told apart by gaze alone.

    Attributes:
        weight: Of the supervised contrastive loss between their samples in a forward pass; 0: there are none.
        people: In a forward pass.
        samples: Of each.
        strength: How far they are from those whose trajectories are changed; 1: about as far as real people are apart.
    """

    weight: float = attrs.field(default=0.0, validator=not_negative)
    people: int = attrs.field(default=32, validator=positive)
    samples: int = attrs.field(default=8, validator=positive)
    strength: float = attrs.field(default=1.0, validator=positive)


@attrs.frozen(kw_only=True)
class Stage1Config(OptimisationConfig):
    """Stage 1: L = λ·L_con + L_traj + L_cls over the whole of DEPER.

    Attributes:
        trajectory_weight: Weight of L_traj (paper: 1).
        subject_weight: Weight of L_cls (paper: 1).
        every_view: Show each sample of a batch three times: whole, without its trajectory, and without its description,
            instead of dropping modalities at random.
        noise: Noise on the samples.
        virtual_people: People made of the training samples' trajectories, for gaze alone.
        selection: What an evaluation is worth: the weighted sum of these of its figures; the best step's weights are
            kept. Losses want negative weights.
    """

    trajectory_weight: float = attrs.field(default=1.0, validator=not_negative)
    subject_weight: float = attrs.field(default=1.0, validator=not_negative)
    every_view: bool = False
    noise: NoiseConfig = attrs.Factory(NoiseConfig)
    virtual_people: VirtualPeopleConfig = attrs.Factory(VirtualPeopleConfig)
    selection: dict[str, float] = attrs.field(
        factory=lambda: {"accuracy": 1.0},
        validator=known_figures("accuracy", "loss", "contrast", "trajectory", "subject"),
        metadata=MAY_CHANGE,
    )

    def __attrs_post_init__(self) -> None:
        if self.every_view and self.modality_dropout:
            raise ConfigError("every_view: shows what modality_dropout would drop; set modality_dropout = 0")


@attrs.frozen(kw_only=True)
class Stage2Config(OptimisationConfig):
    """Stage 2: L = L_des + λ·L_con + L_cls over the extractor, its subject head and the adapter.

    Attributes:
        adapter_learning_rate: Peak learning rate of the adapter; `learning_rate` is the extractor's.
        subject_weight: Weight of L_cls (paper: 1).
        bf16: Run the frozen VLM under bfloat16 autocast.
        style: The prompt's style: "description", or "caption" for short texts such as those of Kollenda and He.
        prefix_cache_gib: The most memory, in GiB, of prefixes (keys and values of image and prompt) that are kept from
            step to step; an image's are 8 MB with Qwen2-VL-2B.
        checkpointing: Compute the VLM's activations again in the backward pass instead of holding them.
        shard_vlm: Shard the layers of a VLM that fits no single device over all processes (FSDP2); each layer is
            gathered while it runs. Its image encoder and its tables stay whole in every process.
        caption_samples: In an evaluation, how many samples of "val" are described, greedily, and scored; 0: none.
        caption_tokens: The most tokens of such a description.
        selection: What an evaluation is worth: the weighted sum of these of its figures; the best step's weights are
            kept. The paper selects by a weighted sum of caption metrics, METEOR among them, which needs Java here;
            losses want negative weights.
    """

    adapter_learning_rate: float = attrs.field(default=5e-4, validator=positive)
    subject_weight: float = attrs.field(default=1.0, validator=not_negative)
    bf16: bool = True
    style: str = "description"
    prefix_cache_gib: float = attrs.field(default=1.0, validator=not_negative, metadata=MAY_CHANGE)
    checkpointing: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    shard_vlm: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    caption_samples: int = attrs.field(default=64, validator=not_negative, metadata=MAY_CHANGE)
    caption_tokens: int = attrs.field(default=128, validator=positive, metadata=MAY_CHANGE)
    selection: dict[str, float] = attrs.field(
        factory=lambda: dict.fromkeys(("bleu4", "cider", "rouge_l"), 1.0),
        validator=known_figures(*CAPTION_METRICS, "accuracy", "loss", "contrast", "description", "subject"),
        metadata=MAY_CHANGE,
    )

    def __attrs_post_init__(self) -> None:
        captions = sorted(set(self.selection) & set(CAPTION_METRICS))
        if self.evaluate_every and captions and not self.caption_samples:
            raise ConfigError(
                f"selection: {', '.join(captions)} needs caption_samples > 0; or select by losses, "
                "as in selection = {description = -1.0}"
            )
        if self.shard_vlm and self.compile:
            raise ConfigError("shard_vlm: sharded layers are not compiled; set compile = false")


@attrs.frozen(kw_only=True)
class PromptTuningConfig(OptimisationConfig):
    """The baseline that learns one soft token a person through the frozen VLM.

    Attributes:
        unseen_steps: Steps for unseen people, whose few support samples are learned from by themselves; `steps` are for
            the training samples of seen people.
    """

    unseen_steps: int = attrs.field(default=100, validator=positive)


@attrs.frozen(kw_only=True)
class TrainingConfig:
    """One training: where the frozen parts and the samples are, the network's sizes, the stages.

    Attributes:
        name: Name of the run and of the model.
        seed: Seed of weights, batches and dropout.
        samples: JSON Lines file of samples (see `pydeper.read_samples`), or a folder or an address of shards, as
            `python -m training shard` writes them.
        check_durations: Refuse samples whose median fixation lasts less than 0.01 s or more than 10 s, which are in
            another unit; false where they are meant, as in a folder that was made with `prepare --no-check-durations`.
        image_encoder: Frozen image encoder: name or folder that transformers' AutoModel loads.
        image_size: Side of the square images for the image encoder, in pixels.
        vlm: Frozen VLM: name or folder. Stage 1 reads only its tokenizer and input-embedding table.
        max_description_tokens: Longer descriptions are cut.
        feature_cache: Folder that keeps the frozen encoders' image features for all epochs, people and runs: 0.6 MB an
            image in stage 1, 0.8 MB in stage 2. Without one they are computed in every run and kept in memory.
        skip_broken_images: So many images may be unreadable; their samples are left out, and warnings name them.
        network: Sizes of DEPER.
        stage1: Settings of stage 1.
        stage2: Settings of stage 2.
        prompt_tuning: Settings of that baseline.
    """

    name: str
    seed: int = 0
    samples: str
    check_durations: bool = attrs.field(default=True, metadata=MAY_CHANGE)
    image_encoder: str = "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"
    image_size: int = attrs.field(default=448, validator=positive)
    vlm: str = "Qwen/Qwen2-VL-2B-Instruct"
    max_description_tokens: int = attrs.field(default=256, validator=positive)
    feature_cache: str | None = None
    skip_broken_images: int = attrs.field(default=0, validator=not_negative)
    network: NetworkConfig = attrs.Factory(NetworkConfig)
    stage1: Stage1Config
    stage2: Stage2Config | None = None
    prompt_tuning: PromptTuningConfig | None = None

    def __attrs_post_init__(self) -> None:
        stages = {"stage1": self.stage1, "stage2": self.stage2}
        working = [name for name, stage in stages.items() if stage is not None and stage.workers]
        if working and self.feature_cache is None:
            raise ConfigError(f"{working[0]}.workers: need a feature_cache, which they read; name a folder")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)

    def exact(kind: type, accepted: tuple[type, ...]) -> None:
        def structure(value: Any, _: type) -> Any:
            if (isinstance(value, bool) and kind is not bool) or not isinstance(value, accepted):
                raise ConfigError(f"expected {kind.__name__}, got {value!r}")
            return kind(value)

        converter.register_structure_hook(kind, structure)

    exact(int, (int,))
    exact(float, (int, float))
    exact(str, (str,))
    exact(bool, (bool,))
    return converter


def load_config(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Reads a TOML file into the attrs class `kind`.

    Args:
        kind: The configuration's class.
        path: The TOML file.
        overrides: Changes as "key.path=value", applied in order; the value is read as TOML, or else taken as a string.

    Raises:
        ConfigError: The file cannot be read, or a key is unknown, missing or of a wrong type or range; all are named.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    for change in overrides:
        _apply(table, change)
    return structure_config(kind, table, str(path))


def structure_config(kind: type[T], table: dict[str, Any], source: str) -> T:
    """Builds the attrs class `kind` from a plain table; errors name `source` and the key."""
    try:
        return _converter().structure(table, kind)
    except (cattrs.BaseValidationError, ConfigError) as error:
        reasons = cattrs.transform_error(error, path=kind.__name__, format_exception=_reason)
        raise ConfigError(f"{source}: " + "; ".join(reasons)) from error


def _reason(error: BaseException, kind: type | None) -> str:
    if isinstance(error, KeyError):
        return f"missing key {error}"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = ", ".join(field.name for field in attrs.fields(error.cl)) if attrs.has(error.cl) else ""
        return f"unknown key {', '.join(sorted(error.extra_fields))} (known: {known})"
    return str(error)


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected key=value, for example --set stage1.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change}: {part} is a value, not a table")
    table[last] = value


def shaping_settings(config: Any) -> dict[str, Any]:
    """The settings that shape the loss curve, as plain values."""
    return attrs.asdict(config, filter=lambda field, _: not field.metadata.get("may_change"))


def config_text(config: Any) -> str:
    """A configuration as JSON, for logs and checkpoints."""
    return json.dumps(_converter().unstructure(config), indent=1)
