"""Which file of a folder is which part of the VLM, in which precision.

File names are those of published ONNX repositories (`onnx-community/Qwen2-VL-2B-Instruct` and its like, made for
transformers.js): three graphs, each in several precisions told apart by a suffix, in the folder itself or in its
subfolder `onnx`. Weights outside a graph stand beside it and begin with its name: `.onnx_data`, `.onnx_data_1`, ...,
or `.onnx.data`. A bundle may hold more: the embedding table as an array instead of a graph, and the decoder's layers
once more for the computation of long prompts, as a graph and an array.

ONNX Runtime and OpenVINO both read these. OpenVINO reads the files that Optimum writes for it as well, and takes them
where a folder has both: `pydeper.bundle.openvino_files` says what they are called and where they lie.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import attrs

from pydeper.bundle.config import Precision
from pydeper.bundle.openvino_files import (
    FOLDERS,
    GRAPHS,
    LANGUAGE_MODEL,
    TEXT_EMBEDDINGS,
    VISION_EMBEDDINGS,
    VISION_MERGER,
    named_precisions,
    place_of,
    weights_of,
)
from pydeper.errors import BundleError, InvalidArgumentError
from pydeper.runtime.target import Runtime

VISION_ENCODER, EMBEDDINGS, DECODER = "vision_encoder", "embed_tokens", "decoder_model_merged"
EMBEDDING_TABLE = "embed_tokens.npy"
PREFILL_LAYERS = "decoder_layers_int8.onnx"
_PREFILL_WEIGHTS = ".npy"  # in place of the graph's suffix

# Best first. Of the 8-bit forms "quantized" is what the repository's maker took for the default; of the 4-bit forms
# "q4" computes in float32, which is what processors have.
_SUFFIXES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("",),
    "fp16": ("_fp16",),
    "int8": ("_quantized", "_int8", "_uint8"),
    "int4": ("_q4", "_q4f16", "_bnb4"),
}
# 4-bit weights cost the vision encoder too much (its features' cosine to the exact ones falls to .95, with 8-bit
# weights to .9996), so they come last even beside a 4-bit decoder.
_VISION: dict[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32", "fp16", "int8", "int4"),
    "fp16": ("fp16", "fp32", "int8", "int4"),
    "int8": ("int8", "fp16", "fp32", "int4"),
    "int4": ("int8", "fp16", "fp32", "int4"),
}
_EMBEDDINGS = _VISION | {"int4": ("int4", "int8", "fp16", "fp32")}
_PLACES = ("", "onnx/")
_ALL_PLACES = (*_PLACES, *(f"{folder}/" for folder in FOLDERS))


@attrs.frozen
class VLMFiles:
    """The files of a VLM in one precision.

    Attributes:
        vision_encoder: The graph that turns patches into image features; of Optimum's two the first.
        embeddings: The table as a numpy array file, or the graph that looks tokens up.
        decoder: The graph with the key/value cache.
        precision: Of the decoder's weights.
        prefill: One decoder layer as a graph, which computes a long prompt with 8-bit weights from the array beside it
            faster than the decoder does with 4- or 8-bit blocks; only with such a decoder, and only where the folder
            has it.
        vision_merger: The second of Optimum's two graphs of the vision encoder; None for ONNX files.
    """

    vision_encoder: Path
    embeddings: Path
    decoder: Path
    precision: Precision
    prefill: Path | None = None
    vision_merger: Path | None = None

    def patterns(self) -> list[str]:
        """Returns patterns (as of `fnmatch`) for the paths of all files needed: graphs, and the weights beside them."""
        files = [self.vision_encoder, self.embeddings, self.decoder]
        if self.vision_merger:
            files.append(self.vision_merger)
        if self.prefill:
            files += [self.prefill, self.prefill.with_suffix(_PREFILL_WEIGHTS)]
        return [pattern for file in files for pattern in _patterns(file.as_posix())]


def find_files(folder: Path, precision: Precision | None = None, runtime: Runtime = "onnxruntime") -> VLMFiles:
    """Finds the VLM's files of one precision in a folder and its subfolders.

    Args:
        folder: Laid out as a bundle's VLM folder, as a published repository, or as Optimum writes it.
        precision: Of the decoder; None takes the only one there is. The other parts come in the nearest precision
            there is, but a 4-bit vision encoder comes last.
        runtime: What will open them.

    Returns:
        Paths of existing files. Whether weights that stand beside a graph are there shows when it is opened.

    Raises:
        BundleError: A part is missing, the precision is not there, or there are several and none was asked for; lists
            those that are there. Or the files are not for this runtime.
        InvalidArgumentError: There is no such precision.
    """
    names: list[str] = []
    for place in _ALL_PLACES:
        with suppress(FileNotFoundError, NotADirectoryError):
            names += [place + file.name for file in (folder / place).iterdir() if file.is_file()]
    chosen = choose_files(names, precision, str(folder), runtime)
    return VLMFiles(
        folder / chosen.vision_encoder,
        folder / chosen.embeddings,
        folder / chosen.decoder,
        chosen.precision,
        folder / chosen.prefill if chosen.prefill else None,
        folder / chosen.vision_merger if chosen.vision_merger else None,
    )


def choose_files(
    names: Iterable[str], precision: Precision | None, where: str, runtime: Runtime = "onnxruntime"
) -> VLMFiles:
    """Chooses the VLM's files of one precision from a listing, as `find_files` does from a folder.

    Args:
        names: Paths inside a folder or repository, with forward slashes.
        precision: See `find_files`.
        where: What was listed, for messages.
        runtime: See `find_files`.

    Returns:
        Paths out of `names`.

    Raises:
        BundleError, InvalidArgumentError: See `find_files`.
    """
    check_precision(precision)
    names = list(names)
    there = precisions_of(names, runtime)
    for_openvino = runtimes_for(names) == ["openvino"]
    if for_openvino and runtime != "openvino":
        raise BundleError(
            f"{where}: holds the VLM for OpenVINO alone: use runtime='openvino' (pip install \"pydeper[openvino]\"), "
            "or export it for ONNX Runtime with `python -m export vlm`"
        )
    if not there and not for_openvino:
        raise BundleError(
            f"{where}: holds no VLM: {DECODER}*.onnx is neither there nor in its subfolder onnx, nor is there "
            f"{LANGUAGE_MODEL} of OpenVINO"
        )
    if precision is None:
        if len(there) != 1:
            listed = f"several precisions ({', '.join(there)})" if there else "a precision that its names do not tell"
            raise BundleError(f"{where}: holds the VLM in {listed}; say which")
        precision = there[0]
    if runtime == "openvino" and (place := place_of(names, precision)) is not None:
        return _openvino_files(names, place, precision, where)
    if precision not in there:
        raise BundleError(f"{where}: does not hold the VLM in {precision}, only in {', '.join(there)}")
    return _onnx_files(names, precision, where)


def runtimes_for(names: Iterable[str], precision: Precision | None = None) -> list[Runtime]:
    """Returns the runtimes that can open a VLM in a precision, or in any, by a listing of its folder."""
    names = list(names)
    onnx = _precisions(_home(names)[1])
    if onnx and precision in (None, *onnx):
        return list(get_args(Runtime))
    optimum = named_precisions(names)
    return ["openvino"] if LANGUAGE_MODEL in names or (optimum and precision in (None, *optimum)) else []


def precisions_of(names: Iterable[str], runtime: Runtime = "onnxruntime") -> list[Precision]:
    """Returns the precisions that a listing of a folder names a decoder of a runtime in, the widest first."""
    names = list(names)
    there = {*_precisions(_home(names)[1]), *(named_precisions(names) if runtime == "openvino" else ())}
    return [precision for precision in get_args(Precision) if precision in there]


def unneeded_files(names: Iterable[str], chosen: VLMFiles) -> list[str]:
    """Returns those of the names that belong to the VLM, but only to other variants than the chosen one."""
    parts = (VISION_ENCODER, EMBEDDINGS, DECODER)
    suffixes = [suffix for group in _SUFFIXES.values() for suffix in group]
    files = [f"{part}{suffix}.onnx" for part in parts for suffix in suffixes]
    files += [EMBEDDING_TABLE, PREFILL_LAYERS, str(Path(PREFILL_LAYERS).with_suffix(_PREFILL_WEIGHTS))]
    known = [pattern for place in _PLACES for file in files for pattern in _patterns(place + file)]
    known += ["openvino_*.xml", weights_of("openvino_*.xml"), *(f"{folder}/*" for folder in FOLDERS)]
    needed = chosen.patterns()
    return [name for name in names if _matches(name, known) and not _matches(name, needed)]


def check_precision(precision: Precision | None) -> None:
    """Refuses what is neither a precision nor None.

    Raises:
        InvalidArgumentError: There is no such precision.
    """
    if precision is not None and precision not in get_args(Precision):
        raise InvalidArgumentError(
            f"precision: must be one of {', '.join(map(repr, get_args(Precision)))} or None, got {precision!r}"
        )


def _home(names: Iterable[str]) -> tuple[str, set[str]]:
    """Returns where the parts lie and what else is there: the top of the folder if it has a decoder, else `onnx`."""
    names = list(names)
    places = {place: {name.removeprefix(place) for name in names if name.startswith(place)} for place in _PLACES}
    home = next((place for place, present in places.items() if _precisions(present)), "")
    return home, places[home]


def _precisions(present: set[str]) -> list[Precision]:
    return [p for p, suffixes in _SUFFIXES.items() if any(f"{DECODER}{suffix}.onnx" in present for suffix in suffixes)]


def _onnx_files(names: Sequence[str], precision: Precision, where: str) -> VLMFiles:
    home, present = _home(names)
    has_table = EMBEDDING_TABLE in present
    table = EMBEDDING_TABLE if has_table else _best(present, EMBEDDINGS, _EMBEDDINGS[precision], where)
    return VLMFiles(
        vision_encoder=Path(home, _best(present, VISION_ENCODER, _VISION[precision], where)),
        embeddings=Path(home, table),
        decoder=Path(home, _best(present, DECODER, (precision,), where)),
        precision=precision,
        prefill=Path(home, PREFILL_LAYERS) if precision in ("int8", "int4") and PREFILL_LAYERS in present else None,
    )


def _openvino_files(names: Sequence[str], place: str, precision: Precision, where: str) -> VLMFiles:
    for graph in GRAPHS:
        for file in (place + graph, place + weights_of(graph)):
            if file not in names:
                raise BundleError(
                    f"{where}: holds {place}{LANGUAGE_MODEL}, but not {file}; fetch the VLM again, or export it with "
                    "--task image-text-to-text"
                )
    return VLMFiles(
        vision_encoder=Path(place, VISION_EMBEDDINGS),
        embeddings=Path(place, TEXT_EMBEDDINGS),
        decoder=Path(place, LANGUAGE_MODEL),
        precision=precision,
        vision_merger=Path(place, VISION_MERGER),
    )


def _best(present: set[str], part: str, preference: Sequence[Precision], where: str) -> str:
    candidates = (f"{part}{suffix}.onnx" for precision in preference for suffix in _SUFFIXES[precision])
    best = next((name for name in candidates if name in present), None)
    if best is None:
        raise BundleError(f"{where}: holds a decoder, but no {part}*.onnx beside it; fetch or export the VLM again")
    return best


def _patterns(file: str) -> list[str]:
    if file.endswith(".xml"):
        return [file, weights_of(file)]
    return [file, f"{file}_data*", f"{file}.data*"]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
