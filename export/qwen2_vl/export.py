"""Qwen2-VL from transformers to the files of a VLM folder, step by step, each checked against transformers."""

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from export.graphs.int8 import quantize_linear_int8, to_fp16
from export.graphs.nbits import BlockRounding, quantize_nbits, round_weights
from export.graphs.parity import ParityError, relative_error, smallest_cosine, typical_cosine
from export.graphs.trace import save
from export.qwen2_vl.decoder import layer_weights, trace_decoder, trace_streamed_layer
from export.qwen2_vl.parity import (
    LEAST_COSINE,
    DecoderCheck,
    compare_streamed_layers,
    compare_vision_encoder,
    require_parity,
)
from export.qwen2_vl.source import check_architecture, load_model
from export.qwen2_vl.steps import Step, run_steps, source_key, working_folder
from export.qwen2_vl.vision_encoder import trace_vision_encoder
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import DECODER, EMBEDDING_TABLE, PREFILL_LAYERS, VISION_ENCODER
from training.outputs import output_folder

SUFFIXES: dict[Precision, str] = {"fp32": "", "fp16": "_fp16", "int8": "_int8", "int4": "_q4"}

# Largest difference from transformers with the weights as they are stored, of the largest value compared.
_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-2, "int8": 0.25, "int4": 0.25}
# Larger files keep their weights outside the graph, where the runtime maps them instead of copying.
_SINGLE_FILE = 64 << 20


@attrs.frozen
class DecoderRounding:
    """How the weights of a decoder are rounded.

    Attributes:
        layers: Those of its layers.
        output: Those of the output layer, which gives the logits.
    """

    layers: BlockRounding
    output: BlockRounding


ROUNDING: dict[Precision, DecoderRounding] = {
    "int8": DecoderRounding(BlockRounding(8), BlockRounding(8)),
    "int4": DecoderRounding(BlockRounding(4), BlockRounding(8)),
}
"""What the precisions with integers mean, unless an export is told otherwise; `benchmarks.rounding` measures them."""


@attrs.frozen
class VLMExport:
    """What an export did.

    Errors are largest differences from transformers, relative to the largest value, with the decoder's weights as they
    are stored: so they tell of the graph, not of the rounding. The cosines tell of both.

    Attributes:
        vision_error: Of the image features.
        prefill_error: Of the logits after a prompt.
        step_error: Of the logits of the steps that follow.
        rounding: Largest change that fp16 storage made to any one weight.
        vision_cosine: Smallest cosine of an image feature with transformers' own.
        logits_cosine: Smallest cosine of logits with those of transformers with its weights unrounded.
        prefill_cosine: Smallest of a layer of `decoder_layers_int8`; None where that is not exported.
    """

    vision_error: float
    prefill_error: float
    step_error: float
    rounding: float
    vision_cosine: float
    logits_cosine: float
    prefill_cosine: float | None


def export_vlm(
    source: Qwen2VLForConditionalGeneration | str | Path,
    out_dir: str | Path,
    precision: Precision = "fp32",
    *,
    rounding: DecoderRounding | None = None,
    store_fp16: bool = False,
    rounding_tolerance: float = 0.0,
    parity_tolerance: float | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> VLMExport:
    """Exports a Qwen2-VL and checks the files against transformers.

    The files (see `pydeper.bundle.vlm_files` for their names) appear in `out_dir` all at once, after the last check.
    Steps that are finished stay in a hidden folder inside it until then: called again after an interruption with the
    same source and settings, the export goes on with the next one. After a failed check nothing stays, and a model in
    memory is always exported from the start.

    Args:
        source: A model in memory (not changed), a folder in the Hub's layout, or a Hub id.
        out_dir: The folder; several precisions may share one, and the embedding table is then that of the last.
        precision: "fp32"; "fp16" (weights, computation and cache in half precision, for GPUs); "int8" or "int4": the
            decoder with 8- or 4-bit weights in blocks, and 8 bits for its output layer in both, the vision encoder in
            8-bit integers (4 bits lose too much), and the decoder's layers once more in 8-bit integers for long
            prompts.
        rounding: With "int8" and "int4" only: how the decoder's weights are rounded; None is `ROUNDING`'s.
        store_fp16: With fp32 only: store weights as float16 and compute in float32.
        rounding_tolerance: Of `store_fp16`: largest change of any one weight that is accepted. The default accepts
            none.
        parity_tolerance: Largest accepted error (see `VLMExport`); None is the precision's own.
        revision: Of a Hub id.
        progress: Is called with the number and the name of each step before it begins.

    Raises:
        ValueError: The architecture has a feature this export does not state, the settings contradict each other, or a
            weight would be rounded by more than allowed.
        ParityError: A file gives other numbers than transformers; says which.
    """
    if precision not in SUFFIXES:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(map(repr, SUFFIXES))}")
    if store_fp16 and precision != "fp32":
        raise ValueError(f"store_fp16 goes with precision 'fp32' only, got {precision!r}")
    if rounding is not None and precision not in ROUNDING:
        raise ValueError(f"rounding goes with precisions 'int8' and 'int4' only, got {precision!r}")
    tolerance = _TOLERANCE[precision] if parity_tolerance is None else parity_tolerance
    rounding = rounding or ROUNDING.get(precision)
    exporter = _Exporter(source, revision, precision, rounding, store_fp16, rounding_tolerance, tolerance)
    out_dir = Path(out_dir)
    with output_folder(out_dir), torch.no_grad(), working_folder(out_dir, exporter.key()) as work:
        figures = run_steps(work, exporter.steps(), progress)
        largest = max(figures.pop(f"{name}_rounding") for name in ("vision", "decoder", "table"))
        for file in sorted(work.glob("*/*")):
            file.replace(out_dir / file.name)
    return VLMExport(rounding=largest, prefill_cosine=figures.pop("prefill_cosine", None), **figures)


class _Exporter:
    """The steps of one export, and what they share: the source and the settings."""

    def __init__(
        self,
        source: Qwen2VLForConditionalGeneration | str | Path,
        revision: str | None,
        precision: Precision,
        rounding: DecoderRounding | None,
        store_fp16: bool,
        rounding_tolerance: float,
        tolerance: float,
    ) -> None:
        self.source, self.revision = source, revision
        self.precision, self.rounding = precision, rounding
        self.store_fp16, self.rounding_tolerance, self.tolerance = store_fp16, rounding_tolerance, tolerance
        self._model: Any = None if isinstance(source, str | Path) else source
        if self._model is not None:
            check_architecture(self._model.config)

    def steps(self) -> dict[str, Step]:
        """Returns the steps by name, in the order in which they run."""
        steps: dict[str, Step] = {"vision encoder": self.vision_encoder, "embedding table": self.embedding_table}
        if self.rounding is not None:
            steps["layers for long prompts"] = self.prefill_layers
        return steps | {"decoder": self.decoder}

    def vision_encoder(self, folder: Path) -> dict[str, float]:
        visual = self._vision_tower()
        model = trace_vision_encoder(visual.half() if self.precision == "fp16" else visual)
        suffix = SUFFIXES[self.precision]
        if self.rounding is not None:
            quantize_linear_int8(model)
            suffix = SUFFIXES["int8"]
        path = folder / f"{VISION_ENCODER}{suffix}.onnx"
        rounding = self._save(model, path)
        del model
        error, cosine, typical = compare_vision_encoder(visual, path)
        require_parity("vision encoder", error, typical, self.tolerance)
        return {"vision_error": error, "vision_cosine": cosine, "vision_rounding": rounding}

    def embedding_table(self, folder: Path) -> dict[str, float]:
        table = self._loaded().get_input_embeddings().weight.to("cpu", torch.float32).numpy()
        change = 0.0
        if self.precision != "fp32" or self.store_fp16:
            allowed = self.rounding_tolerance if self.store_fp16 else np.inf
            table, change = to_fp16(table, EMBEDDING_TABLE, allowed)
        np.save(folder / EMBEDDING_TABLE, table)
        return {"table_rounding": change if self.store_fp16 else 0.0}

    def prefill_layers(self, folder: Path) -> dict[str, float]:
        text = self._language_model()
        weights = [layer_weights(layer) for layer in text.model.language_model.layers]
        record = np.dtype([(name, array.dtype, array.shape) for name, array in weights[0].items()])
        path = folder / PREFILL_LAYERS
        layers = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", record, (len(weights),))
        for row, layer in zip(layers, weights, strict=True):
            for name, array in layer.items():
                row[name] = array
        layers.flush()
        self._save(trace_streamed_layer(text, weights[0]), path)
        cosine, typical = compare_streamed_layers(text, path)
        if not typical >= LEAST_COSINE:
            raise ParityError(
                f"layers for long prompts: a layer's typical cosine with transformers is only {typical:.4f} "
                f"(needed: {LEAST_COSINE})"
            )
        return {"prefill_cosine": cosine}

    def decoder(self, folder: Path) -> dict[str, float]:
        text = self._language_model()
        check = DecoderCheck(text)
        exact = check.expected
        if self.rounding is not None:
            round_weights(text.model.language_model.layers, self.rounding.layers)
            # Tied to the embedding table, which stays as it is.
            text.lm_head = copy.deepcopy(text.lm_head)
            round_weights(nn.ModuleList([text.lm_head]), self.rounding.output)
            check.expect()
        model = trace_decoder(copy.deepcopy(text).half() if self.precision == "fp16" else text)
        if self.rounding is not None:
            quantize_nbits(model, self.rounding.layers, self.rounding.output)
        path = folder / f"{DECODER}{SUFFIXES[self.precision]}.onnx"
        rounding = self._save(model, path)
        del model
        found = check.run(path)
        errors = [relative_error(*pair) for pair in zip(found, check.expected, strict=True)]
        most = typical_cosine(np.concatenate(found, axis=1), np.concatenate(check.expected, axis=1))
        require_parity("decoder", max(errors), most, self.tolerance)
        return {
            "prefill_error": errors[0],
            "step_error": max(errors[1:]),
            "logits_cosine": min(smallest_cosine(*pair) for pair in zip(found, exact, strict=True)),
            "decoder_rounding": rounding,
        }

    def key(self) -> str | None:
        """Returns a hash of the source's files and of all settings; None for a model in memory, which has no files."""
        if not isinstance(self.source, str | Path):
            return None
        settings: list[Any] = [self.revision, self.precision, self.store_fp16, self.rounding_tolerance, self.tolerance]
        settings.append(None if self.rounding is None else attrs.asdict(self.rounding))
        return source_key(self.source, settings)

    def _save(self, model: ir.Model, path: Path) -> float:
        return save(model, path, "fp16" if self.store_fp16 else "fp32", self.rounding_tolerance, _SINGLE_FILE)

    def _loaded(self) -> Any:
        """The model in its own precision, loaded when a step first needs it."""
        if self._model is None and isinstance(self.source, str | Path):
            self._model = load_model(self.source, self.revision)
        return self._model

    def _vision_tower(self) -> Any:
        """A copy of the vision tower, in float32 on the CPU."""
        model = self._loaded()
        gc.collect()
        return copy.deepcopy(model.model.visual).to("cpu", torch.float32).eval()

    def _language_model(self) -> Any:
        """A copy of the model without its vision tower, in float32 on the CPU."""
        model = self._loaded()
        gc.collect()
        memo = {id(model.model.visual): None}
        return copy.deepcopy(model, memo).to("cpu", torch.float32).eval()
