"""One training of DEPER on samples from a file: frozen parts, samples and stages put together from a configuration."""

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from tokenizers import AddedToken, Tokenizer

from pydeper.atomic import atomic_path
from pydeper.bundle.config import SUBJECT_TOKEN, ImageEncoderInfo, PersonaEncoderConfig, Prompts, PromptStyle
from pydeper.samples.overlay import save_picture
from pydeper.samples.sample import Sample
from training.config import ConfigError, OptimisationConfig, TrainingConfig, config_text, structure_config
from training.data.encoded import EncodedDataset, encode_dataset
from training.data.shards import read_samples
from training.distributed.process_group import Share, open_accelerator
from training.distributed.sharding import shard_layers
from training.loop import loop
from training.loop.loop import TrainingError
from training.network.deper import Deper
from training.network.image_encoder import ImageEncoder
from training.network.text_table import TextTable
from training.preparation.splits import TRAIN, VAL
from training.runs import plots as plotting
from training.runs import standins
from training.stages.selection import check_requirements
from training.stages.stage1 import Stage1Task, embed
from training.stages.stage2 import Stage2Task
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config

CONFIG = "config.json"

PROMPTS = Prompts(
    system="You are a helpful assistant.",
    styles={
        "description": PromptStyle(
            with_persona=f"Write a description of this photo in the style of {SUBJECT_TOKEN}",
            without_persona="Write a description of this photo",
        ),
        "caption": PromptStyle(
            with_persona=f"Caption this image in the style of {SUBJECT_TOKEN}",
            without_persona="Caption this image",
        ),
    },
)


def stage1(config: TrainingConfig, folder: Path) -> None:
    """Trains stage 1 on the configuration's samples, or goes on where an interrupted run left off.

    Args:
        config: The training.
        folder: Gets `stage-1/` with checkpoints, logs and the configuration.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        ConfigError: The network's sizes are not those of the frozen parts.
        TrainingError: A frozen part cannot be loaded, or the folder holds another training.
    """
    accelerator = open_accelerator()
    parts = FrozenParts.load(config).to(accelerator.device)
    data, held_out = encode(config, config.stage1, parts, accelerator)
    _tell(accelerator, "stage 1", data, held_out)
    task = Stage1Task(
        config.network,
        config.stage1,
        data,
        parts.text_table,
        config.seed,
        share=Share.here(accelerator),
        held_out=held_out,
    )
    _run(task, config, config.stage1, stage1_folder(folder), accelerator)


def stage2(config: TrainingConfig, folder: Path) -> None:
    """Trains stage 2 on top of the folder's stage 1, or goes on where an interrupted run left off.

    Args:
        config: The training, the same as in stage 1.
        folder: Holds `stage-1/`; gets `stage-2/` likewise.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        ConfigError: There are no settings of stage 2, or sizes that are not those of the frozen parts.
        TrainingError: Stage 1 is missing or unfinished, or a frozen part cannot be loaded, or there is nobody to share
            the VLM with.
        MissingRequirementError: METEOR is to choose the step, and it cannot run here.
    """
    settings = config.stage2
    if settings is None:
        raise ConfigError("stage2: missing; add a table [stage2] with its settings, at least steps")
    if not loop.is_finished(stage1_folder(folder), config.stage1.steps):
        raise TrainingError(
            f"{stage1_folder(folder)}: holds no finished stage 1 of {config.stage1.steps} steps; run "
            "`python -m training stage1` with the same --config and --out first"
        )
    if settings.evaluate_every:
        check_requirements(settings.selection)
    accelerator = open_accelerator()
    parts = FrozenParts.load(config).to(accelerator.device)
    data, held_out = encode(config, settings, parts, accelerator)
    deper = Deper(config.network, len(data.subjects))
    loop.load_state(stage1_folder(folder), deper, "deper")
    vlm = load_vlm(config, parts.tokenizer)
    if settings.shard_vlm:
        shard_layers(vlm.decoder_layers, accelerator.device)
    vlm.to(accelerator.device)
    _tell(accelerator, "stage 2", data, held_out)
    with _in_turn(config, accelerator):
        task = Stage2Task(
            deper.to(accelerator.device),
            settings,
            data,
            parts.text_table,
            vlm,
            config.seed,
            config.feature_cache,
            share=Share.here(accelerator),
            held_out=held_out,
        )
    _run(task, config, settings, stage2_folder(folder), accelerator)


def plots(folder: Path, projection: plotting.Projection = "pca", pictures: int = 6) -> list[Path]:
    """Draws a run's losses, its people's subject embeddings, and real beside reconstructed trajectories.

    The pictures of people are of the split "val", or of the training samples where there is none.

    Args:
        folder: Where `stage1`, and maybe `stage2`, trained.
        projection: How subject embeddings become points.
        pictures: How many trajectories are drawn.

    Returns:
        The files, in `folder/plots`.

    Raises:
        TrainingError: There is no run in the folder.
    """
    first = stage1_folder(folder)
    if not (first / CONFIG).exists():
        raise TrainingError(f"{folder}: holds no run; train with `python -m training stage1 --out {folder}` first")
    config = structure_config(
        TrainingConfig, json.loads((first / CONFIG).read_text(encoding="utf-8")), str(first / CONFIG)
    )
    out = folder / "plots"
    files = []
    for stage in (first, stage2_folder(folder)):
        if (stage / loop.LOG).exists():
            files.append(out / f"{stage.name}-losses.png")
            plotting.plot_losses(stage, files[-1])
    parts = FrozenParts.load(config)
    training = training_samples(config.samples)
    people = {sample.subject for sample in training}
    shown = [sample for sample in read_samples(config.samples) if sample.split == VAL] or training
    deper = Deper(config.network, len(people))
    loop.load_state(first, deper, "deper")
    data = parts.encode(shown)
    names = [data.subjects[subject] for subject in data.subject_of]
    files.append(out / f"subject-embeddings-{projection}.png")
    plotting.plot_embeddings(embed(deper, parts.text_table, data), names, files[-1], projection, config.seed)
    looked = [row for row, sample in enumerate(data.origins) if sample.trajectory is not None][:pictures]
    boxes = plotting.predicted_trajectories(deper, parts.text_table, data, looked) if looked else []
    for row, predicted in zip(looked, boxes, strict=True):
        files.append(out / f"trajectory-{row}.png")
        image, real = data.images.open(int(data.image_of[row])), data.origins[row].trajectory
        assert real is not None
        save_picture(plotting.trajectory_picture(image, real, predicted), files[-1])
    return files


def stage1_folder(folder: Path) -> Path:
    """Where stage 1 keeps its checkpoint and log."""
    return folder / "stage-1"


def stage2_folder(folder: Path) -> Path:
    """Where stage 2 keeps its checkpoint and log."""
    return folder / "stage-2"


def _run(
    task: Stage1Task | Stage2Task,
    config: TrainingConfig,
    settings: OptimisationConfig,
    folder: Path,
    accelerator: Accelerator,
) -> None:
    # A run that goes on keeps what it says of itself: a configuration that does not fit is about to be refused.
    if accelerator.is_main_process and not (folder / loop.CHECKPOINT).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / CONFIG) as temporary:
            temporary.write_text(config_text(config) + "\n", encoding="utf-8")

    def samples_of(step: int) -> list[dict[str, Any]]:
        origins = [task.data.origins[row] for row in task.rows(step)]
        return [
            {
                "source": sample.source,
                "subject": sample.subject,
                "image": str(sample.image) if isinstance(sample.image, str | Path) else None,
            }
            for sample in origins
        ]

    loop.run(
        task, settings, config.seed, folder, accelerator=accelerator, evaluate=task.evaluate, samples_of=samples_of
    )


def _in_turn(config: TrainingConfig, accelerator: Accelerator) -> AbstractContextManager[None]:
    """Lets the first process fill the folder of features for all; without a folder, each computes its own at once."""
    return accelerator.main_process_first() if config.feature_cache else nullcontext()


def _tell(accelerator: Accelerator, stage: str, data: EncodedDataset, held_out: int) -> None:
    accelerator.print(
        f"{stage}: {len(data) - held_out} samples of {len(data.images)} images by {len(data.subjects)} people"
        + (f"; {held_out} for validation" if held_out else "")
    )


# --- samples


def encode(
    config: TrainingConfig, settings: OptimisationConfig, parts: "FrozenParts", accelerator: Accelerator
) -> tuple[EncodedDataset, int]:
    """Encodes the training samples and, where the stage evaluates, those for validation behind them.

    Returns:
        The data set, and how many samples at its end are for validation.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        TrainingError: The stage is to evaluate, and nothing can be validated on.
    """
    samples = training_samples(config.samples)
    if settings.evaluate_every:
        samples += validation_samples(config.samples, {sample.subject for sample in samples})
    with _in_turn(config, accelerator):
        data = parts.encode(samples)
    held_out = sum(sample.split == VAL for sample in data.origins) if settings.evaluate_every else 0
    return data, held_out


def validation_samples(path: str, subjects: Container[str | None]) -> list[Sample]:
    """Reads a samples file's split "val".

    Args:
        path: The file.
        subjects: The people of the training samples.

    Raises:
        TrainingError: There is none, or one is of somebody else.
    """
    samples = [sample for sample in read_samples(path) if sample.split == VAL]
    if not samples:
        raise TrainingError(
            f"{path}: split: no sample is of {VAL!r}, which evaluate_every needs; mark some, or set evaluate_every = 0"
        )
    if strangers := sorted({str(sample.subject) for sample in samples if sample.subject not in subjects}):
        raise TrainingError(
            f"{path}: split: {VAL!r} has samples of people who are not in {TRAIN!r} ({', '.join(strangers[:5])}); "
            "validation is on seen people"
        )
    return samples


def training_samples(path: str) -> list[Sample]:
    """Reads a samples file: all of it, or, where samples carry splits, those of the split "train" alone.

    Raises:
        InvalidSampleError: The file cannot be read.
        TrainingError: The file has splits, and none of them is "train".
    """
    samples = read_samples(path)
    splits = Counter(sample.split for sample in samples)
    if set(splits) == {None}:
        return samples
    if TRAIN not in splits:
        found = ", ".join(f"{split!r} ({count})" for split, count in splits.items())
        raise TrainingError(f"{path}: split: no sample is of the split {TRAIN!r}; there are {found}")
    return [sample for sample in samples if sample.split == TRAIN]


# --- frozen parts


@attrs.frozen(eq=False)
class FrozenParts:
    """What DEPER reads its samples with, and never trains.

    Attributes:
        image_encoder: Square images to tokens.
        tokenizer: The VLM's, with `<subj>` as a special token.
        text_table: The VLM's input embeddings.
        preprocessing: Image normalisation and the limits on text and trajectories.
        feature_cache: Folder that keeps image features, or None.
        skip_broken_images: How many images may be unreadable.
    """

    image_encoder: ImageEncoder
    tokenizer: Tokenizer
    text_table: TextTable
    preprocessing: PersonaEncoderConfig
    feature_cache: str | None = None
    skip_broken_images: int = 0

    def to(self, device: torch.device) -> "FrozenParts":
        """Moves the weights to a device."""
        self.image_encoder.to(device)
        self.text_table.to(device)
        return self

    @classmethod
    def load(cls, config: TrainingConfig) -> "FrozenParts":
        """Loads what the configuration names; names that begin with "standin:" are those of `training.runs.standins`.

        Raises:
            ConfigError: The network's sizes are not those of the loaded parts.
            TrainingError: A part cannot be loaded.
            StandinError: A stand-in is unknown or not installed.
        """
        with _naming("image_encoder", config.image_encoder):
            image_encoder, mean, std = _load_image_encoder(config.image_encoder)
        with _naming("vlm", config.vlm):
            tokenizer, text_table = _load_text_table(config.vlm)
        _check_sizes(config, image_encoder, tokenizer, text_table)
        preprocessing = PersonaEncoderConfig(
            fingerprint="unexported",
            subject_embedding_size=config.network.subject_embedding_size,
            image_encoder=ImageEncoderInfo(name=config.image_encoder, licence="see its model card"),
            image_size=config.image_size,
            image_mean=mean,
            image_std=std,
            max_fixations=config.network.max_fixations,
            max_description_tokens=config.max_description_tokens,
            modalities=("text+trajectory", "text", "trajectory"),
        )
        return cls(image_encoder, tokenizer, text_table, preprocessing, config.feature_cache, config.skip_broken_images)

    def encode(self, samples: Sequence[Sample]) -> EncodedDataset:
        """Encodes samples; see `training.data.encoded.encode_dataset`."""
        return encode_dataset(
            samples,
            self.tokenizer,
            self.image_encoder,
            self.preprocessing,
            feature_cache=self.feature_cache,
            skip_broken_images=self.skip_broken_images,
        )


def load_vlm(config: TrainingConfig, tokenizer: Tokenizer) -> SteeredVLM:
    """Loads the frozen VLM: in bfloat16 where stage 2 asks for it, in float32 otherwise; images at a fixed resolution.

    Args:
        config: The training, with settings of stage 2.
        tokenizer: The VLM's, with `<subj>`.

    Raises:
        TrainingError: The VLM cannot be loaded.
    """
    from transformers import Qwen2VLForConditionalGeneration

    if config.vlm.startswith(standins.PREFIX):
        raise ConfigError(f"vlm: {config.vlm!r} is a text table for stage 1 alone; stage 2 needs a Qwen2-VL")
    dtype = torch.bfloat16 if config.stage2 is not None and config.stage2.bf16 else torch.float32
    with _naming("vlm", config.vlm):
        model = Qwen2VLForConditionalGeneration.from_pretrained(config.vlm, dtype=dtype)
        image = vision_config(model.config, (config.image_size, config.image_size))
        sizes = vlm_config(model.config, tokenizer, image, base_model=config.vlm)
    return SteeredVLM(model, tokenizer, sizes, PROMPTS)


_Channels = tuple[float, float, float]


def _load_image_encoder(name: str) -> tuple[ImageEncoder, _Channels, _Channels]:
    """The image encoder, and the mean and standard deviation per channel of the pixels that it expects."""
    if name.startswith(standins.PREFIX):
        return standins.load_image_encoder(name), standins.EFFICIENTNET_MEAN, standins.EFFICIENTNET_STD
    from transformers.image_processing_base import ImageProcessingMixin

    processing: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(name)[0]
    mean, std = (_channels(processing, key) for key in ("image_mean", "image_std"))
    return ImageEncoder.from_pretrained(name), mean, std


def _channels(processing: dict[str, Any], key: str) -> _Channels:
    try:
        red, green, blue = (float(value) for value in processing[key])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"preprocessor_config.json: {key} must be 3 numbers, got {processing.get(key)!r}") from error
    return red, green, blue


def _load_text_table(name: str) -> tuple[Tokenizer, TextTable]:
    if name.startswith(standins.PREFIX):
        tokenizer, table = standins.load_text_table(name)
    else:
        tokenizer, table = Tokenizer.from_file(str(_tokenizer_file(name))), TextTable.from_pretrained(name)
    # Qwen2 leaves rows free behind its last token, so `<subj>` needs no resizing: its row is never read.
    tokenizer.add_special_tokens([AddedToken(SUBJECT_TOKEN, special=True, normalized=False)])
    return tokenizer, table


def _tokenizer_file(name: str) -> Path:
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(f"{folder} holds no tokenizer.json; save the tokenizer beside the model")
        return folder / "tokenizer.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, "tokenizer.json"))


def _check_sizes(config: TrainingConfig, encoder: ImageEncoder, tokenizer: Tokenizer, table: TextTable) -> None:
    # One blank image tells the grid before an hour is spent on the real ones.
    tokens = encoder(torch.zeros(1, 3, config.image_size, config.image_size)).shape[1]
    sizes = {"image_channels": encoder.channels, "text_channels": table.channels, "grid_size": round(tokens**0.5)}
    wrong = [
        f"network.{name} is {getattr(config.network, name)}, and must be {size}"
        for name, size in sizes.items()
        if getattr(config.network, name) != size
    ]
    if wrong:
        raise ConfigError(
            f"{'; '.join(wrong)}, for {config.image_encoder} at {config.image_size} pixels and {config.vlm}"
        )
    if (needed := tokenizer.get_vocab_size()) > len(table.weight) and not config.vlm.startswith(standins.PREFIX):
        raise ConfigError(
            f"vlm: {config.vlm} has {len(table.weight)} embeddings and {needed} tokens with {SUBJECT_TOKEN}; the "
            "soft token needs an id inside the table"
        )


@contextmanager
def _naming(key: str, name: str) -> Iterator[None]:
    """Says which setting's part could not be loaded; libraries speak of their own files and addresses alone."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{key}: {name!r} cannot be loaded ({error}); give a folder, or a model that the Hub or its cache holds"
        ) from error
