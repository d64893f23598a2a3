"""Qwen2-VL from transformers to the files of a VLM folder, step by step, each checked against transformers."""

import copy
import gc
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx_ir as ir
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from export.graphs.agreement import cpu_session, relative_error, smallest_cosine
from export.graphs.int8 import quantize_linear_int8, to_fp16
from export.graphs.nbits import quantize_nbits, round_weights
from export.graphs.parity import ParityError
from export.graphs.trace import save, trace
from export.qwen2_vl.decoder import Decoder, StreamedLayer, layer_weights
from export.qwen2_vl.vision_encoder import VisionEncoder
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import DECODER, EMBEDDING_TABLE, PREFILL_LAYERS, VISION_ENCODER
from pydeper.vlm.decoder import IN_PLACE, KV_CACHE
from pydeper.vlm.prompt import rotary_positions

SUFFIXES: dict[Precision, str] = {"fp32": "", "fp16": "_fp16", "int8": "_int8", "int4": "_q4"}

# Largest difference from transformers with the weights as they are stored, of the largest value compared.
_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-2, "int8": 0.25, "int4": 0.25}
# Where activations are rounded to 8 bits the largest difference says little; the direction says more.
_LEAST_COSINE = 0.98
# Larger files keep their weights outside the graph, where the runtime maps them instead of copying.
_SINGLE_FILE = 64 << 20


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
            decoder with 8- or 4-bit weights in blocks, the vision encoder in 8-bit integers (4 bits lose too much),
            and the decoder's layers once more in 8-bit integers for long prompts.
        store_fp16: With fp32 only: store weights as float16 and compute in float32.
        rounding_tolerance: Of `store_fp16`: largest change of any one weight that is accepted. The default accepts
            none.
        parity_tolerance: Largest accepted error (see `VLMExport`); None is the precision's own.
        revision: Of a Hub id.
        progress: Is told of each step as it begins.

    Raises:
        ValueError: The architecture has a feature this export does not state, the settings contradict each other, or a
            weight would be rounded by more than allowed.
        ParityError: A check fails; names the part.
    """
    if precision not in SUFFIXES:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(map(repr, SUFFIXES))}")
    if store_fp16 and precision != "fp32":
        raise ValueError(f"store_fp16 goes with precision 'fp32' only, got {precision!r}")
    tolerance = _TOLERANCE[precision] if parity_tolerance is None else parity_tolerance
    export = _Export(source, revision, precision, store_fp16, rounding_tolerance, tolerance, progress)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), export.workplace(out_dir) as work:
        facts = {key: value for step in export.steps for key, value in export.done(work, step).items()}
        rounding = max(facts.pop("vision_rounding"), facts.pop("decoder_rounding"), facts.pop("table_rounding"))
        for file in sorted(work.glob("*/*")):
            file.replace(out_dir / file.name)
    return VLMExport(rounding=rounding, **{"prefill_cosine": None} | facts)


class _Export:
    """One export: what it is made of, and its steps."""

    def __init__(
        self,
        source: Qwen2VLForConditionalGeneration | str | Path,
        revision: str | None,
        precision: Precision,
        store_fp16: bool,
        rounding_tolerance: float,
        tolerance: float,
        progress: Callable[[str], None],
    ) -> None:
        self.source, self.revision = source, revision
        self.precision, self.half_storage, self.rounding_tolerance = precision, store_fp16, rounding_tolerance
        self.tolerance, self.progress = tolerance, progress
        self._model: Any = None if isinstance(source, str | Path) else source
        self.steps: dict[str, Callable[[Path], dict[str, float]]] = {
            "vision encoder": self.vision_encoder,
            "embedding table": self.embedding_table,
        }
        # Before the decoder, which rounds the weights.
        if precision in ("int8", "int4"):
            self.steps["layers for long prompts"] = self.prefill_layers
        self.steps["decoder"] = self.decoder
        if self._model is not None:
            check_architecture(self._model.config)

    # Steps

    def vision_encoder(self, folder: Path) -> dict[str, float]:
        visual = self.part("visual")
        config = visual.config
        model = trace_vision_encoder(visual.half() if self.precision == "fp16" else visual)
        suffix = SUFFIXES[self.precision]
        if self.precision in ("int8", "int4"):
            quantize_linear_int8(model)
            suffix = SUFFIXES["int8"]
        path = folder / f"{VISION_ENCODER}{suffix}.onnx"
        rounding = self.save(model, path)
        del model
        merge = config.spatial_merge_size
        grids = np.array([[1, 2 * merge, 6 * merge], [1, 4 * merge, 3 * merge]])
        patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
        pixels = np.random.default_rng(0).standard_normal((int(grids.prod(axis=1).sum()), patch), dtype=np.float32)
        (features,) = cpu_session(path).run(None, {"pixel_values": pixels, "image_grid_thw": grids})
        expected = visual.float()(torch.from_numpy(pixels), torch.from_numpy(grids)).pooler_output
        error, cosine = relative_error(features, expected), smallest_cosine(features, expected)
        self.gate("vision encoder", error, cosine)
        return {"vision_error": error, "vision_cosine": cosine, "vision_rounding": rounding}

    def embedding_table(self, folder: Path) -> dict[str, float]:
        table = self.model().get_input_embeddings().weight.to("cpu", torch.float32).numpy()
        change = 0.0
        if self.precision != "fp32" or self.half_storage:
            allowed = self.rounding_tolerance if self.half_storage else np.inf
            table, change = to_fp16(table, EMBEDDING_TABLE, allowed)
        np.save(folder / EMBEDDING_TABLE, table)
        return {"table_rounding": change if self.half_storage else 0.0}

    def prefill_layers(self, folder: Path) -> dict[str, float]:
        text = self.part("text")
        weights = [layer_weights(layer) for layer in text.model.language_model.layers]
        record = np.dtype([(name, array.dtype, array.shape) for name, array in weights[0].items()])
        path = folder / PREFILL_LAYERS
        layers = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", record, (len(weights),))
        for row, layer in zip(layers, weights, strict=True):
            for name, array in layer.items():
                row[name] = array
        layers.flush()
        self.save(trace_streamed_layer(text, weights[0]), path)
        cosine = check_streamed_layers(text, path)
        if not cosine >= _LEAST_COSINE:
            raise ParityError(
                f"layers for long prompts: a layer's cosine with transformers is only {cosine:.4f} "
                f"(needed: {_LEAST_COSINE})"
            )
        return {"prefill_cosine": cosine}

    def decoder(self, folder: Path) -> dict[str, float]:
        text = self.part("text")
        check = _DecoderCheck(text)
        exact = check.expected
        bits = {"int8": 8, "int4": 4}.get(self.precision)
        if bits is not None:
            round_weights(text.model.language_model.layers, bits)
            # Tied to the embedding table, which stays as it is.
            text.lm_head = copy.deepcopy(text.lm_head)
            round_weights(nn.ModuleList([text.lm_head]), bits)
            check.expect()
        model = trace_decoder(copy.deepcopy(text).half() if self.precision == "fp16" else text)
        if bits is not None:
            quantize_nbits(model, bits)
        path = folder / f"{DECODER}{SUFFIXES[self.precision]}.onnx"
        rounding = self.save(model, path)
        del model
        found = check.run(path)
        errors = [relative_error(*pair) for pair in zip(found, check.expected, strict=True)]
        near = min(smallest_cosine(*pair) for pair in zip(found, check.expected, strict=True))
        self.gate("decoder", max(errors), near)
        return {
            "prefill_error": errors[0],
            "step_error": max(errors[1:]),
            "logits_cosine": min(smallest_cosine(*pair) for pair in zip(found, exact, strict=True)),
            "decoder_rounding": rounding,
        }

    def gate(self, part: str, error: float, cosine: float) -> None:
        """Refuses a part that is too far from transformers."""
        if not error <= self.tolerance or not cosine >= _LEAST_COSINE:
            raise ParityError(
                f"{part}: the exported files differ from transformers by {error:.3g} of the largest value (allowed: "
                f"{self.tolerance:.3g}), at a cosine of {cosine:.4f} (needed: {_LEAST_COSINE})"
            )

    # What they share

    def save(self, model: ir.Model, path: Path) -> float:
        storage = "fp16" if self.half_storage else "fp32"
        return save(model, path, storage, self.rounding_tolerance, _SINGLE_FILE)

    def model(self) -> Any:
        """The model in its own precision, loaded when first asked for."""
        if self._model is None:
            self._model = load(self.source, self.revision)
        return self._model

    def part(self, name: str) -> Any:
        """A copy of the model's vision tower, or of all but that, in float32 on the CPU."""
        model = self.model()
        gc.collect()
        if name == "visual":
            return copy.deepcopy(model.model.visual).to("cpu", torch.float32).eval()
        memo = {id(model.model.visual): None}
        return copy.deepcopy(model, memo).to("cpu", torch.float32).eval()

    @contextmanager
    def workplace(self, out_dir: Path) -> Iterator[Path]:
        """The folder of finished steps: after a failure it stays, where the source can be known again."""
        if not isinstance(self.source, str | Path):
            with tempfile.TemporaryDirectory(dir=out_dir, prefix=".export-") as folder:
                yield Path(folder)
            return
        kept = out_dir / f".export-{self.digest()[:16]}"
        kept.mkdir(exist_ok=True)
        try:
            yield kept
        except ParityError:
            # The same steps would fail in the same way: there is nothing to go on with.
            shutil.rmtree(kept)
            raise
        except BaseException:
            if not any(kept.glob("*.json")):
                shutil.rmtree(kept)
            raise
        shutil.rmtree(kept)

    def digest(self) -> str:
        """A hash of the source and of all settings that make the files."""
        folder = Path(self.source)
        files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"] if folder.is_dir() else []
        known = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        settings = [self.revision, self.precision, self.half_storage, self.rounding_tolerance, self.tolerance]
        return hashlib.sha256(json.dumps([str(self.source), known, settings]).encode()).hexdigest()

    def done(self, home: Path, step: str) -> dict[str, float]:
        """Does a step, or reads what it reported where it was done before."""
        report = home / f"{step}.json"
        number = f"{list(self.steps).index(step) + 1}/{len(self.steps)}"
        if report.is_file():
            self.progress(f"{number} {step}: done before")
            return json.loads(report.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        self.progress(f"{number} {step}")
        folder = home / step
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            facts = self.steps[step](folder)
        except BaseException:
            shutil.rmtree(folder)  # half-written files may be what fills the disk
            raise
        unfinished = report.with_suffix(".part")
        unfinished.write_text(json.dumps(facts), encoding="utf-8")
        unfinished.replace(report)
        return facts


def load(source: str | Path, revision: str | None) -> Any:
    """Loads a Qwen2-VL in the precision that it is stored in.

    Raises:
        ValueError: The weights are damaged or not those of `config.json`, or see `check_architecture`.
        OSError: A file is missing, or the Hub cannot be reached.
    """
    try:
        model, found = Qwen2VLForConditionalGeneration.from_pretrained(
            source, revision=revision, dtype="auto", output_loading_info=True
        )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{source}: its weights cannot be read: {error}") from error
    # transformers draws missing weights at random, and drops those that are left over.
    for problem in ("missing", "unexpected"):
        if keys := sorted(found[f"{problem}_keys"]):
            raise ValueError(
                f"{source}: its weights are not those of its config.json: {problem} is {keys[0]} ({len(keys)} in all)"
            )
    check_architecture(model.config)
    return model


# Graphs


def trace_vision_encoder(visual: Any) -> ir.Model:
    """Traces transformers' vision tower, stated again; inputs in float32 whatever its own precision."""
    config = visual.config
    merge = config.spatial_merge_size
    grid = torch.tensor([[1, 2 * merge, 3 * merge], [1, 3 * merge, 2 * merge]])
    pixels = torch.zeros(12 * merge**2, config.in_channels * config.temporal_patch_size * config.patch_size**2)
    return trace(
        VisionEncoder(visual),
        {"pixel_values": pixels, "image_grid_thw": grid},
        {"pixel_values": {0: "patches"}, "image_grid_thw": {0: "images"}},
        ["image_features"],
    )


def trace_decoder(model: Any) -> ir.Model:
    """Traces transformers' language model, stated again; embeddings and logits in float32, the cache in its own."""
    text = model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    batch, length, past = 2, 5, 3  # sizes 0 and 1 would be baked in
    same = torch.export.Dim.DYNAMIC
    names = [f"{i}.{kind}" for i in range(text.num_hidden_layers) for kind in ("key", "value")]
    cache = [torch.zeros(batch, text.num_key_value_heads, past, head_dim, dtype=model.dtype) for _ in names]
    graph = trace(
        Decoder(model),
        {
            "inputs_embeds": torch.zeros(batch, length, text.hidden_size),
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "position_ids": torch.zeros(3, batch, length, dtype=torch.int64),
            "past_key_values": cache,
        },
        {
            # Where the exporter finds out by itself that two axes are one, it wants one name for both.
            "inputs_embeds": {0: "batch", 1: "length"},
            "attention_mask": {0: same, 1: "total"},
            "position_ids": {1: same, 2: same},
            "past_key_values": [{0: same, 2: "past"} for _ in names],
        },
        ["logits", *(f"present.{name}" for name in names)],
        ["inputs_embeds", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
    )
    graph.metadata_props[KV_CACHE] = IN_PLACE
    return graph


def trace_streamed_layer(model: Any, weights: dict[str, np.ndarray]) -> ir.Model:
    """Traces one decoder layer whose weights are inputs."""
    text = model.config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    length, past = 5, 3
    inputs = {
        "hidden": torch.zeros(1, length, text.hidden_size),
        "attention_mask": torch.ones(1, past + length, dtype=torch.int64),
        "position_ids": torch.zeros(3, 1, length, dtype=torch.int64),
        "past_key": torch.zeros(1, text.num_key_value_heads, past, head_dim),
        "past_value": torch.zeros(1, text.num_key_value_heads, past, head_dim),
    }
    same = torch.export.Dim.DYNAMIC
    axes: dict[str, Any] = {
        "hidden": {1: "length"},
        "attention_mask": {1: "total"},
        "position_ids": {2: same},
        "past_key": {2: "past"},
        "past_value": {2: same},
    }
    return trace(
        StreamedLayer(model),
        inputs | {name: torch.from_numpy(array) for name, array in weights.items()},
        axes | {name: {} for name in weights},
        ["hidden_out", "key", "value"],
    )


# Checks


def check_architecture(config: Any) -> None:
    """Refuses what the statements in `export.qwen2_vl.decoder` and `export.qwen2_vl.vision_encoder` do not cover.

    Raises:
        ValueError: Names the key, what it says, and what is covered.
    """
    text, vision = config.text_config, config.vision_config
    for name, found, stated in (
        ("text_config.rope_parameters.rope_type", text.rope_parameters["rope_type"], "default"),
        ("text_config.layer_types", set(text.layer_types), {"full_attention"}),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("vision_config.rope_parameters.rope_type", vision.rope_parameters["rope_type"], "axial"),
    ):
        if found != stated:
            raise ValueError(f"this export states {name} = {stated}, but the model has {found}")


class _DecoderCheck:
    """A prompt with two images, in two rows that differ in one embedding as two personas do, and three steps."""

    def __init__(self, model: Any) -> None:
        self.model = model
        rng = np.random.default_rng(0)
        sizes, merge = model.config.text_config, model.config.vision_config.spatial_merge_size
        self.image = model.config.image_token_id
        grids = np.array([[1, 2 * merge, 5 * merge], [1, 3 * merge, merge]])
        table = model.get_input_embeddings().weight
        text = rng.choice(np.setdiff1d(np.arange(len(table)), self.image), 7)
        first, second = ([self.image] * int(grid.prod() // merge**2) for grid in grids)
        ids = np.concatenate([text, first, text[:3], second, text])
        self.positions, self.next_position = rotary_positions(ids, self.image, grids, merge)
        embeddings = np.repeat(table[torch.from_numpy(ids)].numpy()[None], 2, axis=0)
        spread = float(table.std())
        for place in (*np.flatnonzero(ids == self.image), -3):
            embeddings[:, place] = rng.standard_normal(embeddings[:, place].shape) * spread
        self.embeddings = embeddings.astype(np.float32)
        self.followers = (rng.standard_normal((3, 2, 1, sizes.hidden_size)) * spread).astype(np.float32)
        self.expected: list[np.ndarray] = []
        self.expect()

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Embeddings and positions: of the prompt, then of each step."""
        yield self.embeddings, self.positions
        for step, embedding in enumerate(self.followers):
            yield embedding, np.full((3, 1), self.next_position + step)

    def expect(self) -> None:
        """Computes what transformers gives with the weights as they are now."""
        fed, placed = (np.concatenate([piece[i] for piece in self.pieces()], axis=1) for i in (0, 1))
        rows = torch.from_numpy(np.repeat(placed[:, None], 2, axis=1))
        hidden = self.model.model.language_model(
            inputs_embeds=torch.from_numpy(fed),
            position_ids=rows,
            attention_mask=torch.ones(2, fed.shape[1], dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        steps = len(self.followers) + 1
        logits = self.model.lm_head(hidden[:, -steps:]).numpy()
        self.expected = [logits[:, i : i + 1] for i in range(steps)]

    def run(self, path: Path) -> list[np.ndarray]:
        """Runs a decoder file; its rows one by one in the prompt, both at once in the steps."""
        session = cpu_session(path)
        names = [value.name for value in session.get_inputs()]
        dtype = np.float16 if "float16" in session.get_inputs()[-1].type else np.float32
        sizes = self.model.config.text_config
        head_dim = sizes.hidden_size // sizes.num_attention_heads
        empty = np.zeros((2, sizes.num_key_value_heads, 0, head_dim), dtype)
        cache, found, length = [empty] * (len(names) - 3), [], 0
        for embeddings, positions in self.pieces():
            length += embeddings.shape[1]
            numbers = np.repeat(positions[:, None], 2, axis=1)
            fed = [embeddings, np.ones((2, length), np.int64), numbers, *cache]
            logits, *cache = session.run(None, dict(zip(names, fed, strict=True)))
            found.append(logits)
        return found


def check_streamed_layers(model: Any, path: Path) -> float:
    """Runs each layer of `decoder_layers_int8` on what transformers feeds it with a random prompt.

    Returns:
        The smallest cosine with transformers of a token's keys, values, or change of the hidden state.
    """
    text = model.model.language_model
    rng = np.random.default_rng(0)
    length = 48
    embeddings = rng.standard_normal((1, length, text.config.hidden_size), dtype=np.float32)
    embeddings *= float(model.get_input_embeddings().weight.std())
    positions = np.ascontiguousarray(np.broadcast_to(np.arange(length), (3, 1, length)))
    session = cpu_session(path)
    head_dim = text.config.hidden_size // text.config.num_attention_heads
    empty = np.zeros((1, text.config.num_key_value_heads, 0, head_dim), np.float32)
    fixed = {
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": positions,
        "past_key": empty,
        "past_value": empty,
    }
    layers = np.load(path.with_suffix(".npy"), mmap_mode="r")
    cosines = []

    def compare(layer: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
        i = layer.self_attn.layer_idx
        before, after = inputs[0].numpy(), (output[0] if isinstance(output, tuple) else output).numpy()
        weights = {name: np.asarray(layers[name][i]) for name in layers.dtype.names}
        hidden, key, value = session.run(None, {"hidden": before, **fixed, **weights})
        cached = options["past_key_values"].layers[i]
        pairs = ((hidden - before, after - before), (key, cached.keys), (value, cached.values))
        cosines.extend(smallest_cosine(*pair) for pair in pairs)

    hooks = [layer.register_forward_hook(compare, with_kwargs=True) for layer in text.layers]
    try:
        text(inputs_embeds=torch.from_numpy(embeddings), position_ids=torch.from_numpy(positions), use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    return min(cosines)
