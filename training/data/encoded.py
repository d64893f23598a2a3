"""Samples as the network reads them, with the frozen image features computed once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from pydeper.config import PersonaEncoderConfig
from pydeper.errors import InvalidSampleError
from pydeper.preprocess import EncodedSample, collate, encode_sample
from pydeper.samples import Sample
from training.loop import step_generator
from training.network.image_encoder import ImageEncoder


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
    """A data set in memory.

    Attributes:
        samples: n samples as arrays; their pixels are dropped, `image_tokens` stands for them.
        image_of: (n,) index of each sample's image.
        images: The distinct images, for the VLM of stage 2.
        image_tokens: (images, G·G, C) float32 from the frozen image encoder.
        descriptions: n texts; None where there is none.
        subject_of: (n,) index of each sample's subject.
        subjects: The subjects' names, sorted.
    """

    samples: Sequence[EncodedSample]
    image_of: np.ndarray
    images: Sequence[Image.Image]
    image_tokens: Tensor
    descriptions: Sequence[str | None]
    subject_of: np.ndarray
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def inputs(self, rows: Sequence[int] | np.ndarray, without: Sequence[str | None] | None = None) -> NetworkInputs:
        """Collates samples.

        Args:
            rows: Which samples.
            without: For each, the modality to leave out: "text", "trajectory" or None.
        """
        chosen = [self.samples[row] for row in rows]
        if without is not None:
            chosen = [_drop(sample, modality) for sample, modality in zip(chosen, without, strict=True)]
        arrays = collate(chosen)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return NetworkInputs(image_tokens=self.image_tokens[self.image_of[rows]], **tensors)


def encode_dataset(
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    image_encoder: ImageEncoder,
    config: PersonaEncoderConfig,
    batch_size: int = 64,
) -> EncodedDataset:
    """Encodes samples; an image that several samples share is opened and encoded once.

    Raises:
        InvalidSampleError: A sample names no subject, or its image cannot be used.
    """
    for number, sample in enumerate(samples, 1):
        if sample.subject is None:
            raise InvalidSampleError(
                f"{sample.source or f'sample {number}'}: subject: missing; training needs to know who it is"
            )
    index: dict[object, int] = {}
    encoded, image_of, images, tokens, pending = [], [], [], [], []
    for sample in tqdm(samples, desc="image features", mininterval=1.0):
        key = str(Path(sample.image)) if isinstance(sample.image, str | Path) else id(sample.image)
        is_new = key not in index
        if is_new:
            index[key] = len(index)
            images.append(sample.open_image())
        arrays = encode_sample(attrs.evolve(sample, image=images[index[key]]), tokenizer, config)
        if is_new:
            pending.append(arrays.pixel_values)
        image_of.append(index[key])
        encoded.append(attrs.evolve(arrays, pixel_values=None))
        if len(pending) == batch_size:
            tokens.append(image_encoder(torch.from_numpy(np.stack(pending))))
            pending.clear()
    if pending:
        tokens.append(image_encoder(torch.from_numpy(np.stack(pending))))
    subjects = tuple(sorted({str(sample.subject) for sample in samples}))
    return EncodedDataset(
        samples=encoded,
        image_of=np.array(image_of),
        images=images,
        image_tokens=torch.cat(tokens),
        descriptions=[sample.description for sample in samples],
        subject_of=np.array([subjects.index(str(sample.subject)) for sample in samples]),
        subjects=subjects,
    )


def batch_rows(count: int, batch_size: int, seed: int, batch: int) -> np.ndarray:
    """Rows of the batch with this running number, in an endless walk through `count` rows, shuffled every epoch."""
    positions = np.arange(batch * batch_size, (batch + 1) * batch_size)
    epochs, places = np.divmod(positions, count)
    orders = {int(epoch): step_generator(seed, int(epoch)).permutation(count) for epoch in np.unique(epochs)}
    return np.array([orders[int(epoch)][place] for epoch, place in zip(epochs, places, strict=True)])


def dropped_modalities(samples: Sequence[EncodedSample], chance: float, rng: np.random.Generator) -> list[str | None]:
    """Modality dropout: which of its two modalities each sample loses, if any; what is alone stays."""
    draws = rng.random(len(samples))
    dropped: list[str | None] = []
    for sample, draw in zip(samples, draws, strict=True):
        complete = len(sample.input_ids) > 0 and len(sample.durations) > 0
        modality = "trajectory" if draw < chance else "text" if draw > 1 - chance else None
        dropped.append(modality if complete else None)
    return dropped


def _drop(sample: EncodedSample, modality: str | None) -> EncodedSample:
    if modality == "text":
        return attrs.evolve(sample, input_ids=sample.input_ids[:0])
    if modality == "trajectory":
        return attrs.evolve(sample, boxes=sample.boxes[:0], durations=sample.durations[:0])
    return sample
