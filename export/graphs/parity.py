"""Does an exported file give what torch gives? ONNX Runtime against the modules it was made from."""

import os
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from training.network import Adapter, ImageEncoder, PersonaEncoder, TextTable

TOLERANCE = 1e-4  # of the largest absolute value compared

Array = npt.NDArray[np.floating]
Inputs = Mapping[str, Tensor]


class ParityError(ValueError):
    """An exported file gives other numbers than the module it was made from."""


def compare(
    path: str | os.PathLike[str],
    reference: Callable[..., Tensor],
    cases: Mapping[str, Inputs],
    tolerance: float = TOLERANCE,
    min_cosine: float = -1.0,
) -> dict[str, float]:
    """Runs a file with one output on the CPU and a torch function on the same inputs.

    Args:
        path: The ONNX file.
        reference: Takes a case's inputs by name.
        cases: Inputs by the name of the case.
        tolerance: Largest accepted difference, relative to the case's largest absolute value in torch.
        min_cosine: Smallest accepted cosine between a row of the output and the same row in torch.

    Returns:
        The largest difference of every case, relative in the same way.

    Raises:
        ParityError: A shape differs, a number is not finite, a difference is above the tolerance or a cosine too small.
    """
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    differences = {}
    for name, inputs in cases.items():
        with torch.no_grad():
            expected = reference(**inputs).numpy()
        (actual,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        if actual.shape != expected.shape:
            raise ParityError(f"{path}, case {name!r}: shape {actual.shape} where torch gives {expected.shape}")
        difference = float(np.abs(actual - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
        if not difference <= tolerance:  # also where it is NaN
            raise ParityError(
                f"{path}, case {name!r}: differs from torch by {difference:.3g} of the largest value, more than the "
                f"tolerance {tolerance:.3g}; export in fp32, or allow more"
            )
        cosine = float(cosines(actual, expected).min(initial=1.0))
        if not cosine >= min_cosine:
            raise ParityError(
                f"{path}, case {name!r}: a vector's cosine with torch's is {cosine:.5f}, less than {min_cosine:.5f}; "
                "export in fp16 or fp32, or allow less"
            )
        differences[name] = difference
    return differences


def cosines(found: Array, expected: Array) -> Array:
    """The cosine between each vector of (..., n) and the same of another array; two vectors of zeros have 1."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    zeros = ~found.any(-1) & ~expected.any(-1)
    products = np.sum(found * expected, axis=-1)
    return np.where(zeros, 1.0, products / np.maximum(lengths, np.finfo(np.float32).tiny))


def check_persona_encoder(
    path: str | os.PathLike[str],
    persona_encoder: PersonaEncoder,
    image_encoder: ImageEncoder,
    text_table: TextTable,
    *,
    image_size: int,
    tolerance: float = TOLERANCE,
    min_cosine: float = -1.0,
) -> dict[str, float]:
    """Compares `persona_encoder.onnx` with the modules, whose text table is not folded, on samples of every kind.

    The cases: one sample; several of different lengths; one word and one fixation; descriptions missing; trajectories
    missing; the most fixations; and images that are smooth, as photographs are, where all others are noise. The modules
    must be in eval mode, in float32 and on the CPU.

    Returns:
        The largest difference of every case, as `compare` gives it.

    Raises:
        ParityError: As in `compare`.
    """
    generator = torch.Generator().manual_seed(0)

    def case(words: list[int], fixations: list[int]) -> Inputs:
        return random_inputs(words, fixations, image_size, len(text_table.weight), generator)

    def reference(pixel_values: Tensor, input_ids: Tensor, **rest: Tensor) -> Tensor:
        vectors: Tensor = persona_encoder(image_encoder(pixel_values), text_table(input_ids), **rest).subject_embedding
        return vectors

    most = persona_encoder.config.max_fixations
    cases = {
        "one sample": case([7], [5]),
        "different lengths": case([7, 1, 40], [2, most, 1]),
        "one word, one fixation": case([1], [1]),
        "no descriptions": case([0, 0], [5, 2]),
        "no trajectories": case([7, 3], [0, 0]),
        "some modalities missing": case([7, 0, 3], [0, 3, 2]),
        "most fixations": case([2], [most]),
        "smooth images": {**case([12, 5], [4, 3]), "pixel_values": smooth_images(2, image_size, generator)},
    }
    return compare(path, reference, cases, tolerance, min_cosine)


def check_adapter(path: str | os.PathLike[str], adapter: Adapter, tolerance: float = TOLERANCE) -> dict[str, float]:
    """Compares `adapter.onnx` with the module, for one vector and for several."""
    size = adapter.projection.in_features
    generator = torch.Generator().manual_seed(0)
    cases = {
        name: {"subject_embedding": torch.randn(count, size, generator=generator)}
        for name, count in (("one vector", 1), ("several vectors", 5))
    }
    return compare(path, adapter, cases, tolerance)


def random_inputs(
    words: list[int], fixations: list[int], image_size: int, vocab_size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draws the six inputs of a persona encoder, padded to the longest sample.

    Args:
        words: Tokens in each sample's description; 0 where it is missing.
        fixations: Fixations in each sample's trajectory; 0 where it is missing.
        image_size: Side of the image in pixels.
        vocab_size: Token ids are below this.
        generator: Of the random numbers.
    """
    batch, length, count = len(words), max(1, *words), max(1, *fixations)
    corners = torch.rand(batch, count, 2, 2, generator=generator)
    return {
        "pixel_values": torch.randn(batch, 3, image_size, image_size, generator=generator),
        "input_ids": torch.randint(vocab_size, (batch, length), generator=generator),
        "attention_mask": (torch.arange(length) < torch.tensor(words)[:, None]).long(),
        "boxes": torch.cat((corners.amin(2), corners.amax(2)), dim=-1),
        "durations": torch.rand(batch, count, generator=generator) * 2,
        "fixation_mask": (torch.arange(count) < torch.tensor(fixations)[:, None]).long(),
    }


def smooth_images(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draws (count, 3, size, size) normalised pixels in which, as in photographs, broad shapes weigh most."""
    waves = torch.zeros(count, 3, size, size)
    for cells in (2, 4, 8, 16, 32):
        coarse = torch.randn(count, 3, cells, cells, generator=generator) * 2 / cells**0.5
        waves += torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return waves.clamp(-2.5, 2.5)  # where normalised pixels end
