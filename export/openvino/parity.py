"""Do the files that Optimum made give what transformers gives, when pydeper runs them?"""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from export.graphs.parity import ParityError, relative_error, smallest_cosine, typical_cosine
from export.qwen2_vl.parity import LEAST_COSINE, DecoderCheck, random_images
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.bundle.vlm_files import VLMFiles, find_files
from pydeper.runtime.target import Target
from pydeper.vlm.local.embeddings import open_embeddings
from pydeper.vlm.openvino.decoder import OpenVINODecoder
from pydeper.vlm.openvino.vision_encoder import OptimumVisionEncoder

# A model with random weights loses more to rounding than a trained one: at the size of Qwen2-VL-2B, 4 bits leave its
# logits a cosine of .4, where files of another model have one of 0.
_LEAST_COSINES: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": LEAST_COSINE, "int4": 0.2}
_LEAST_COSINES_OF_FEATURES = _LEAST_COSINES | {"int4": LEAST_COSINE}  # Optimum leaves the vision encoder 8 bits


@attrs.frozen
class OpenVINOExport:
    """How near exported files are to transformers, with its weights unrounded.

    Attributes:
        embeddings_error: Largest difference of an embedding, relative to the largest value.
        vision_cosine: Smallest cosine of an image feature.
        logits_error: Largest difference of the logits after a prompt and of the steps that follow, relative to the
            largest value.
        logits_cosine: Smallest cosine of logits.
    """

    embeddings_error: float
    vision_cosine: float
    logits_error: float
    logits_cosine: float


@torch.no_grad()
def compare(model: Any, folder: Path, config: VLMConfig, precision: Precision) -> OpenVINOExport:
    """Runs exported files and transformers on the same pixels, tokens, embeddings and positions.

    Args:
        model: transformers' model; float32 on the CPU afterwards.
        folder: What Optimum wrote.
        config: Sizes.
        precision: Of the files.

    Raises:
        ParityError: They differ by more than the precision explains; says in what.
        BundleError: The files are incomplete, or of another precision.
    """
    files, target, model = find_files(folder, precision, "openvino"), Target("openvino"), model.float().cpu().eval()
    ids = np.random.default_rng(0).choice(config.vocab_size, 64)
    table = model.get_input_embeddings().weight
    smallest, typical = _vision_cosines(model, files, config, target)
    found = OpenVINOExport(
        relative_error(open_embeddings(files.embeddings, config, target)(ids), table[torch.from_numpy(ids)]),
        smallest,
        *_logits(model, files, config),
    )
    for name, cosine, least in (
        ("image features", typical, _LEAST_COSINES_OF_FEATURES[precision]),
        ("logits", found.logits_cosine, _LEAST_COSINES[precision]),
    ):
        if not cosine >= least:
            raise ParityError(
                f"{folder}: the {name} have a cosine of only {cosine:.4f} with transformers' (needed: {least}): are "
                "these files of this model?"
            )
    return found


def _vision_cosines(model: Any, files: VLMFiles, config: VLMConfig, target: Target) -> tuple[float, float]:
    """The smallest cosine of an image feature, and the smaller of two images' typical ones."""
    assert files.vision_merger is not None
    encoder = OptimumVisionEncoder(files.vision_encoder, files.vision_merger, config, target)
    visual = model.model.visual
    pairs = [
        (encoder(pixels, grid), visual(torch.from_numpy(pixels), torch.from_numpy(grid)).pooler_output)
        for pixels, grid in random_images(visual.config)
    ]
    return min(smallest_cosine(*pair) for pair in pairs), min(typical_cosine(*pair) for pair in pairs)


def _logits(model: Any, files: VLMFiles, config: VLMConfig) -> tuple[float, float]:
    """The largest error and the smallest cosine of logits: of two rows, each a prompt and some steps."""
    check = DecoderCheck(model)
    decoder = OpenVINODecoder(files, config, device="cpu", threads=None)
    found = []
    for row in range(len(check.embeddings)):
        cache = decoder.start(decoder.empty, 0)
        pieces = []
        for embeddings, positions in check.pieces():
            following = np.full((3, 1), positions.max() + 1)
            pieces.append(decoder.extend(cache, embeddings[row : row + 1], np.concatenate([positions, following], 1)))
        found.append(np.stack(pieces, axis=1))  # (1, steps, V)
    logits, expected = np.concatenate(found), np.concatenate(check.expected, axis=1)
    return relative_error(logits, expected), smallest_cosine(logits, expected)
