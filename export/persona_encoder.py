"""From the trained persona encoder and its frozen companions to one file, `persona_encoder.onnx`."""

import copy
import os
from pathlib import Path
from typing import Literal, get_args

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.graphs.int8 import linear_layers, quantize_linear_int8, quantize_tables_int8
from export.graphs.parity import TOLERANCE, Inputs, compare
from export.graphs.trace import save, trace
from pydeper.files.atomic import atomic_path
from training.network import ImageEncoder, PersonaEncoder, TextTable

EncoderPrecision = Literal["fp32", "fp16", "int8"]

_ROWS_AT_ONCE = 8192
_PARITY_TOLERANCE: dict[EncoderPrecision, float] = {"fp32": TOLERANCE, "fp16": 1e-2, "int8": 5e-2}


class PersonaEncoderGraph(nn.Module):
    """Pixels, token ids and fixations to z_s: the image encoder inside, the text table folded with its projection.

    Args:
        persona_encoder: Not changed.
        image_encoder: The frozen image encoder it was trained with.
        text_table: The frozen table it was trained with.
    """

    def __init__(self, persona_encoder: PersonaEncoder, image_encoder: ImageEncoder, text_table: TextTable) -> None:
        super().__init__()
        projection = persona_encoder.text_projection
        with torch.no_grad():
            rows = [projection(part.float()) for part in torch.split(text_table.weight, _ROWS_AT_ONCE)]
        self.projected_table = TextTable(torch.cat(rows))
        self.image_encoder = image_encoder
        self.persona_encoder = copy.deepcopy(persona_encoder)
        self.persona_encoder.text_projection = nn.Identity()  # type: ignore[assignment]

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        boxes: Tensor,
        durations: Tensor,
        fixation_mask: Tensor,
    ) -> Tensor:
        """Encodes samples.

        Args:
            pixel_values: (B, 3, H, H) normalised pixels.
            input_ids: (B, L) int64.
            attention_mask: (B, L) int64, 1 for real tokens.
            boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
            durations: (B, M) seconds.
            fixation_mask: (B, M) int64, 1 for real fixations.

        Returns:
            (B, subject_embedding_size) z_s.
        """
        subject_embedding: Tensor = self.persona_encoder(
            self.image_encoder(pixel_values),
            self.projected_table(input_ids),
            attention_mask,
            boxes,
            durations,
            fixation_mask,
        ).subject_embedding
        return subject_embedding


def export_persona_encoder(
    path: str | os.PathLike[str],
    persona_encoder: PersonaEncoder,
    image_encoder: ImageEncoder,
    text_table: TextTable,
    *,
    image_size: int,
    precision: EncoderPrecision = "fp32",
    rounding_tolerance: float = 2**-10,
    parity_tolerance: float | None = None,
    min_cosine: float = 0.999,
) -> dict[str, float]:
    """Writes `persona_encoder.onnx` and checks it against torch; batch, words and fixations are dynamic.

    The file appears only once it has passed the check.

    With "fp16" weights are stored in half precision and computed with in float32. With "int8" the text table is stored
    as int8 with one scale a row, and the wide linear layers of the image encoder multiply integers (see
    `export.graphs.int8.quantize_linear_int8`); all else is as with fp16, since the persona encoder proper takes little
    time and would lose most by it. Either way, of the text table only the rows of a description's words become float32.

    A persona is valid only with the very file that made it (its fingerprint): the same weights exported in int8 are
    another encoder than in fp16, and people's personas have to be made again.

    Args:
        path: The file to write.
        persona_encoder: The trained persona encoder; not changed.
        image_encoder: The frozen image encoder it was trained with; not changed.
        text_table: The frozen text table it was trained with; not changed.
        image_size: Side of the images in pixels, such that the image encoder gives G×G tokens.
        precision: "fp32", "fp16" or "int8".
        rounding_tolerance: fp16 and int8: largest change of any one weight, by storing it in half precision, that is
            accepted. The default admits weights below 4.
        parity_tolerance: Largest accepted difference from torch, relative to the largest value; by default 1e-4 for
            fp32, 1e-2 for fp16 and 5e-2 for int8.
        min_cosine: Smallest accepted cosine between a subject embedding and torch's.

    Returns:
        The largest difference from torch of every case compared (see `check_persona_encoder`).

    Raises:
        ValueError: The precision is unknown, the sizes of the parts do not fit each other, or a weight would be rounded
            by more than allowed.
        ParityError: The file gives other numbers than torch.
    """
    if precision not in get_args(EncoderPrecision):
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(get_args(EncoderPrecision))}")
    persona_encoder = copy.deepcopy(persona_encoder).to("cpu", torch.float32).eval()
    image_encoder = copy.deepcopy(image_encoder).to("cpu", torch.float32)
    text_table = TextTable(text_table.weight.cpu())
    _check_sizes(persona_encoder, image_encoder, text_table, image_size)
    model = _trace(PersonaEncoderGraph(persona_encoder, image_encoder, text_table), image_size)
    if precision == "int8":
        quantize_tables_int8(model)
        quantize_linear_int8(model, _image_layers(model))
    with atomic_path(Path(path)) as temporary:
        save(model, temporary, "fp32" if precision == "fp32" else "fp16", rounding_tolerance)
        del model  # before torch and the runtime hold theirs side by side
        return check_persona_encoder(
            temporary,
            persona_encoder,
            image_encoder,
            text_table,
            image_size=image_size,
            tolerance=_PARITY_TOLERANCE[precision] if parity_tolerance is None else parity_tolerance,
            min_cosine=min_cosine,
        )


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


def _trace(graph: PersonaEncoderGraph, image_size: int) -> ir.Model:
    words = len(graph.projected_table.weight)
    inputs = random_inputs([5, 3], [3, 2], image_size, words, torch.Generator().manual_seed(0))
    batch, length, fixations = (torch.export.Dim(name) for name in ("batch", "length", "fixations"))
    axes = {
        "pixel_values": {0: batch},
        "input_ids": {0: batch, 1: length},
        "attention_mask": {0: batch, 1: length},
        "boxes": {0: batch, 1: fixations},
        "durations": {0: batch, 1: fixations},
        "fixation_mask": {0: batch, 1: fixations},
    }
    return trace(graph, inputs, axes, ["subject_embedding"])


def _image_layers(model: ir.Model) -> list[str]:
    """The linear layers that work on the image alone: those of the image encoder, and the image's projection."""
    sources: dict[ir.Value, set[ir.Value]] = {value: {value} for value in model.graph.inputs}
    for node in model.graph:
        found = set().union(*(sources.get(value, set()) for value in node.inputs if value is not None))
        sources.update(dict.fromkeys(node.outputs, set() if node.op_type == "Shape" else found))
    pixels = {value for value in model.graph.inputs if value.name == "pixel_values"}
    return [str(node.name) for node in linear_layers(model) if sources[node.outputs[0]] == pixels]


def _check_sizes(
    persona_encoder: PersonaEncoder, image_encoder: ImageEncoder, text_table: TextTable, image_size: int
) -> None:
    config = persona_encoder.config
    tokens = image_encoder(torch.zeros(1, 3, image_size, image_size))
    if tokens.shape[1:] != (config.grid_size**2, config.image_channels):
        raise ValueError(
            f"the image encoder gives {tuple(tokens.shape[1:])} (tokens, channels) for {image_size}×{image_size} "
            f"pixels, but the persona encoder takes {(config.grid_size**2, config.image_channels)}; check image_size"
        )
    if text_table.channels != config.text_channels:
        raise ValueError(
            f"the text table is {text_table.channels} wide, but the persona encoder takes {config.text_channels}; "
            "use the table that it was trained with"
        )
