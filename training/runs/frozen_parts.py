"""The frozen parts of DEPER, loaded as a configuration names them: image encoder, text table, VLM."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from tokenizers import AddedToken, Tokenizer

from pydeper.bundle.config import SUBJECT_TOKEN, ImageEncoderInfo, PersonaEncoderConfig
from pydeper.samples.sample import Sample
from training.config import ConfigError, TrainingConfig
from training.data.encoded import EncodedDataset, encode_dataset, image_tokens
from training.data.image_features import ImageFeatures
from training.data.images import Images
from training.errors import TrainingError
from training.network.image_encoder import ImageEncoder
from training.network.text_table import TextTable
from training.precision import multiplies_bfloat16_fast
from training.runs import standins
from training.runs.prompts import prompts_of
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config


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
            tokenizer, text_table = load_text_table(config.vlm)
        _check_sizes(config, image_encoder, tokenizer, text_table)
        preprocessing = _preprocessing(config, mean, std)
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


def load_image_features(config: TrainingConfig, images: Images, device: torch.device) -> ImageFeatures:
    """The image tokens that the persona encoder reads, without the other frozen parts.

    Args:
        config: Names the image encoder, and the folder that keeps its features.
        images: Any images.
        device: Where features that are not kept yet are computed.

    Raises:
        TrainingError: The image encoder cannot be loaded.
        StandinError: It is a stand-in that is unknown or not installed.
    """
    with _naming("image_encoder", config.image_encoder):
        image_encoder, mean, std = _load_image_encoder(config.image_encoder)
    preprocessing = _preprocessing(config, mean, std)
    return image_tokens(images, image_encoder.to(device), preprocessing, config.feature_cache)


def load_vlm(config: TrainingConfig, tokenizer: Tokenizer, device: torch.device) -> SteeredVLM:
    """Loads the frozen VLM, in bfloat16 if stage 2 is to use it and the device is fast at it; images at a fixed size.

    Args:
        config: The training, with settings of stage 2.
        tokenizer: The VLM's, with `<subj>`.
        device: Where the VLM is going to run; it is not moved there.

    Raises:
        TrainingError: The VLM cannot be loaded.
    """
    from transformers import Qwen2VLForConditionalGeneration

    if config.vlm.startswith(standins.PREFIX):
        raise ConfigError(f"vlm: {config.vlm!r} is a text table for stage 1 alone; stage 2 needs a Qwen2-VL")
    rounded = config.stage2 is not None and config.stage2.bf16 and multiplies_bfloat16_fast(device)
    dtype = torch.bfloat16 if rounded else torch.float32
    with _naming("vlm", config.vlm):
        model = Qwen2VLForConditionalGeneration.from_pretrained(config.vlm, dtype=dtype)
        image = vision_config(model.config, (config.image_size, config.image_size))
        sizes = vlm_config(model.config, tokenizer, image, base_model=config.vlm)
    return SteeredVLM(model, tokenizer, sizes, prompts_of(config))


_Channels = tuple[float, float, float]


def _preprocessing(config: TrainingConfig, mean: _Channels, std: _Channels) -> PersonaEncoderConfig:
    return PersonaEncoderConfig(
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


def load_text_table(name: str) -> tuple[Tokenizer, TextTable]:
    """Loads a VLM's tokenizer, with `<subj>` as a special token, and its table of input embeddings."""
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
    # One blank image shows the grid before an hour is spent on the real ones.
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
