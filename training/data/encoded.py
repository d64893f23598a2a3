"""Samples as the network reads them, with the frozen image features computed once."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from pydeper.bundle.config import PersonaEncoderConfig
from pydeper.bundle.tokenizer import literal_tokenizer
from pydeper.errors import InvalidSampleError, PydeperError
from pydeper.persona.preprocess import EncodedSample, collate, encode_text_and_trajectory, persona_pixels
from pydeper.samples.sample import Sample
from training.data.feature_cache import DiskStore, MemoryStore, open_store
from training.data.image_features import ImageFeatures
from training.data.images import Images, SampleImages, distinct_images
from training.data.sampling import batch_rows
from training.data.shards import ShardImages
from training.distributed.device import device_of
from training.errors import TrainingError
from training.network.image_encoder import ImageEncoder

# Features of images that stream by: enough for those that several samples of a few shards share.
_STREAMED_BYTES = 2**30


class NetworkInputs(NamedTuple):
    """A padded batch, in the order of the arguments of `PersonaEncoder.encode` (token ids still to be looked up)."""

    image_tokens: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    boxes: Tensor
    durations: Tensor
    fixation_mask: Tensor


@attrs.frozen(eq=False)
class EncodedDataset:
    """A data set: texts and trajectories in memory, images opened by need, their features wherever they are kept.

    Attributes:
        samples: n samples as arrays, without pixels: `image_tokens` stands for them.
        origins: The n samples as they were given.
        image_of: (n,) index of each sample's image.
        image_tokens: The distinct images, and (G·G, C) float32 of each from the frozen image encoder.
        descriptions: n texts; None where there is none.
        subject_of: (n,) index of each sample's subject.
        subjects: The subjects' names, sorted.
        shard_of: (n,) the shard of each sample, where images stream by and their features are not kept: batches then
            draw from a few shards at a time. None where any sample can be had at any time.
    """

    samples: Sequence[EncodedSample]
    origins: Sequence[Sample]
    image_of: np.ndarray
    image_tokens: ImageFeatures
    descriptions: Sequence[str | None]
    subject_of: np.ndarray
    subjects: tuple[str, ...]
    shard_of: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def images(self) -> Images:
        """The distinct images."""
        return self.image_tokens.images

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) how many tokens each description has, as far as it is read."""
        return np.array([len(sample.input_ids) for sample in self.samples])

    def batch_rows(self, count: int, batch_size: int, seed: int, batch: int, bucket: int = 1) -> np.ndarray:
        """Rows of the batch with this running number, among the first `count`; see `batch_rows`."""
        shard_of = None if self.shard_of is None else self.shard_of[:count]
        lengths = self.lengths[:count]
        return batch_rows(count, batch_size, seed, batch, lengths=lengths, bucket=bucket, shard_of=shard_of)

    def inputs(
        self,
        rows: Sequence[int] | np.ndarray,
        without: Sequence[str | None] | None = None,
        change: Callable[[int, EncodedSample], EncodedSample] | None = None,
    ) -> NetworkInputs:
        """Collates samples.

        Args:
            rows: Which samples.
            without: For each, the modality to leave out: "text", "trajectory" or None.
            change: What to make of the sample at each place, before anything is left out.
        """
        chosen = [self.samples[row] for row in rows]
        if change is not None:
            chosen = [change(place, sample) for place, sample in enumerate(chosen)]
        if without is not None:
            chosen = [_drop(sample, modality) for sample, modality in zip(chosen, without, strict=True)]
        arrays = collate(chosen)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return NetworkInputs(image_tokens=torch.stack(self.image_tokens.of(self.image_of[rows].tolist())), **tensors)

    def for_workers(self) -> "EncodedDataset":
        """What another process needs for `batch_rows` and `inputs`, to be pickled: no images, no encoder.

        There `inputs` raises FeaturesMissingError where a file of features is missing or damaged.

        Raises:
            TrainingError: Features are kept in memory, where other processes would need a copy.
        """
        features = self.image_tokens
        if not isinstance(features.store, DiskStore):
            raise TrainingError(
                "workers: need a feature_cache: they read the images' features from its files; name a folder, or set "
                "workers = 0"
            )
        images = _FiledImages([self.images.key(number) for number in range(len(self.images))])
        filed = attrs.evolve(features, images=images, encode=_no_encoder)
        return attrs.evolve(self, image_tokens=filed, origins=(), descriptions=())


class FeaturesMissingError(PydeperError):
    """A process that has no image encoder would need it."""


@attrs.frozen(eq=False)
class _FiledImages:
    """Images of which only the features are there; see `training.data.images.Images`."""

    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, number: int) -> str:
        return self.keys[number]

    def open(self, number: int) -> Image.Image:
        raise FeaturesMissingError(f"{self.keys[number]}: no features in the files")


def _no_encoder(_: Sequence[Image.Image]) -> Sequence[Tensor]:
    raise FeaturesMissingError("there is no image encoder in this process")


def encode_dataset(
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    image_encoder: ImageEncoder,
    config: PersonaEncoderConfig,
    *,
    feature_cache: str | Path | None = None,
    skip_broken_images: int = 0,
    batch_size: int = 64,
) -> EncodedDataset:
    """Encodes samples; an image that several samples share is opened and encoded once.

    Args:
        samples: The samples.
        tokenizer: The VLM's.
        image_encoder: The frozen image encoder.
        config: Image normalisation and the limits on text and trajectories.
        feature_cache: Folder that keeps image features for all runs; None keeps them in memory.
        skip_broken_images: So many images may be unreadable; their samples are left out, and warnings name them.
        batch_size: Images that are encoded at a time.

    Raises:
        InvalidSampleError: A sample names no subject.
        InvalidImageError: More images are unreadable.
        FeatureCacheError: The folder cannot be written.
    """
    for number, sample in enumerate(samples, 1):
        if sample.subject is None:
            raise InvalidSampleError(
                f"{sample.source or f'sample {number}'}: subject: missing; training needs to know who it is"
            )
    numbers, firsts = distinct_images(samples)
    image_of = np.array(numbers)
    images = open_images(firsts)
    features = image_tokens(images, image_encoder, config, feature_cache, batch_size)
    shard_of = None
    if isinstance(images, ShardImages) and feature_cache is None:
        shards = [images.shard(number) for number in range(len(images))]
        shard_of = np.unique(shards, return_inverse=True)[1][image_of]
    elif broken := features.fill(skip_broken_images):
        whole = [sample for number, sample in enumerate(firsts) if number not in broken]
        features = attrs.evolve(features, images=open_images(whole))
        kept = np.flatnonzero(~np.isin(image_of, broken)).tolist()
        samples, image_of = [samples[row] for row in kept], np.unique(image_of[kept], return_inverse=True)[1]
    subjects = tuple(sorted({str(sample.subject) for sample in samples}))
    literal = literal_tokenizer(tokenizer)
    return EncodedDataset(
        samples=[encode_text_and_trajectory(sample, literal, config) for sample in samples],
        origins=samples,
        image_of=image_of,
        image_tokens=features,
        descriptions=[sample.description for sample in samples],
        subject_of=np.array([subjects.index(str(sample.subject)) for sample in samples]),
        subjects=subjects,
        shard_of=shard_of,
    )


def open_images(samples: Sequence[Sample]) -> Images:
    """The images of these samples, one of each image: in shards, or wherever the samples have them."""
    return ShardImages(samples) if ShardImages.holds(samples) else SampleImages(samples)


def image_tokens(
    images: Images,
    image_encoder: ImageEncoder,
    config: PersonaEncoderConfig,
    feature_cache: str | Path | None = None,
    batch_size: int = 64,
) -> ImageFeatures:
    """The persona encoder's image tokens of images, (G·G, C) float32 each.

    They are kept in the folder, or in memory where there is none: all of them, or, of images in shards, those that were
    used last.
    """

    def encode(pictures: Sequence[Image.Image]) -> list[Tensor]:
        pixels = torch.from_numpy(np.stack([persona_pixels(picture, config) for picture in pictures]))
        return list(image_encoder(pixels.to(device_of(image_encoder))).cpu())

    preprocessing = {"size": config.image_size, "mean": config.image_mean, "std": config.image_std}
    if feature_cache is None and isinstance(images, ShardImages):
        return ImageFeatures(images, encode, MemoryStore(_STREAMED_BYTES), batch_size)
    return ImageFeatures(images, encode, open_store(feature_cache, image_encoder.backbone, preprocessing), batch_size)


def _drop(sample: EncodedSample, modality: str | None) -> EncodedSample:
    if modality == "text":
        return attrs.evolve(sample, input_ids=sample.input_ids[:0])
    if modality == "trajectory":
        return attrs.evolve(sample, boxes=sample.boxes[:0], durations=sample.durations[:0])
    return sample
