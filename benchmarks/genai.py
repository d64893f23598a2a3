"""The same decoder in onnxruntime-genai and in pydeper, token by token: `python -m benchmarks.genai`.

onnxruntime-genai is no dependency of pydeper: `pip install --no-deps onnxruntime-genai==0.18.0` brings it. It has no
entry for Qwen2-VL, so the exported int4 decoder is given to it as a text model: the embedding table is put in front of
the very same graph, with the same weight files. The work folder is that of `benchmarks.qwen2_vl_2b`, which makes it.
"""

import argparse
import json
import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.sides import Side
from benchmarks.qwen2_vl_2b import prepare

PROMPT, TOKENS = 290, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/qwen2_vl_2b"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    prepare(options.work, "int4")
    model = text_model(options.work / "int4", options.work / "genai", options.threads)
    rates: dict[str, list[float]] = {}
    tokens = {}
    with Side(GenAI, model) as genai, Side(Ours, options.work, options.threads) as ours:
        for _ in range(options.rounds):
            for name, side in (("pydeper", ours), ("onnxruntime-genai", genai)):
                rate, tokens[name] = side.call("decode")
                rates.setdefault(name, []).append(rate)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:20} {rate:6.1f} tokens/s")
    print(f"pydeper against onnxruntime-genai: {medians['pydeper'] / medians['onnxruntime-genai']:.2f}")
    same = sum(a == b for a, b in zip(tokens["pydeper"], tokens["onnxruntime-genai"], strict=True))
    print(f"equal tokens: {same} of {TOKENS}")


class GenAI:
    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai

        self.package = onnxruntime_genai
        self.model = onnxruntime_genai.Model(str(folder))

    def decode(self) -> tuple[float, list[int]]:
        settings = self.package.GeneratorParams(self.model)
        settings.set_search_options(max_length=PROMPT + TOKENS + 1, do_sample=False)
        generator = self.package.Generator(self.model, settings)
        generator.append_tokens(prompt())
        generator.generate_next_token()
        began = time.perf_counter()
        for _ in range(TOKENS):
            generator.generate_next_token()
        rate = TOKENS / (time.perf_counter() - began)
        return rate, [int(token) for token in generator.get_sequence(0)[PROMPT + 1 :]]


class Ours:
    def __init__(self, work: Path, threads: int) -> None:
        from benchmarks.qwen2_vl_2b import described
        from pydeper.bundle.vlm_files import find_files
        from pydeper.runtime.target import Target
        from pydeper.vlm.local.embeddings import open_embeddings
        from pydeper.vlm.onnx.decoder import Decoder

        config, _, _ = described(work, "int4")
        files = find_files(work / "int4", "int4")
        self.decoder = Decoder(files, config, providers=["CPUExecutionProvider"], threads=threads)
        # The prompt goes through the same weights on both sides.
        self.decoder._layers = None
        self.embed = open_embeddings(files.embeddings, config, Target(threads=threads))

    def decode(self) -> tuple[float, list[int]]:
        cache = self.decoder.start(self.decoder.empty, PROMPT + TOKENS + 1)
        logits = self.decoder.extend(cache, self.embed(prompt())[None])
        began, found = time.perf_counter(), []
        for _ in range(TOKENS):
            assert logits is not None
            logits = self.decoder.extend(cache, self.embed(logits.argmax(axis=-1))[:, None])
            assert logits is not None
            found.append(int(logits.argmax()))
        return TOKENS / (time.perf_counter() - began), found


def prompt() -> list[int]:
    ids: list[int] = np.random.default_rng(0).integers(0, 150_000, PROMPT).tolist()
    return ids


def text_model(source: Path, folder: Path, threads: int) -> Path:
    """Puts the embedding table before the decoder, and writes what onnxruntime-genai reads."""
    import onnx_ir as ir

    folder.mkdir(exist_ok=True)
    name = "decoder_model_merged_q4.onnx"
    for file in (f"{name}_data", "embed_tokens.npy"):
        with suppress(FileExistsError):
            os.link(source / file, folder / file)
    model = ir.load(source / name)
    graph = model.graph
    embeds, positions = (
        next(value for value in graph.inputs if value.name == n) for n in ("inputs_embeds", "position_ids")
    )
    table = np.load(source / "embed_tokens.npy", mmap_mode="r")
    weights = ir.ExternalTensor(
        "embed_tokens.npy",
        offset=table.offset,
        length=table.nbytes,
        dtype=ir.DataType.FLOAT16,
        shape=ir.Shape(table.shape),
        name="table",
        base_dir=folder,
    )
    stored = ir.Value(name="table", const_value=weights, type=ir.TensorType(ir.DataType.FLOAT16), shape=weights.shape)
    axes = ir.Value(name="three", const_value=ir.tensor(np.array([3, 1, 1])))
    for value in (stored, axes):
        graph.register_initializer(value)
    ids = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", "length"]))
    places = ir.Value(name="position_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", "length"]))
    rows = ir.node("Gather", [stored, ids])
    floats = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT})
    thrice = ir.node("Expand", [places, axes])  # (batch, length) -> (3, batch, length)
    positions.name = "position_ids_3d"
    for old, new in ((embeds, floats.outputs[0]), (positions, thrice.outputs[0])):
        ir.convenience.replace_all_uses_with(old, new)
    graph.insert_before(graph[0], [rows, floats, thrice])
    graph.inputs[:] = [ids, *(places if value is positions else value for value in graph.inputs if value is not embeds)]
    ir.save(model, folder / "decoder.onnx")
    (folder / "genai_config.json").write_text(json.dumps(genai_config(source, threads), indent=2))
    return folder


def genai_config(source: Path, threads: int) -> dict[str, Any]:
    vlm = json.loads((source / "vlm.json").read_text(encoding="utf-8"))
    unused = vlm["vocab_size"] - 1
    decoder = {
        "session_options": {"intra_op_num_threads": threads, "provider_options": []},
        "filename": "decoder.onnx",
        "head_size": vlm["head_dim"],
        "hidden_size": vlm["hidden_size"],
        "num_attention_heads": vlm["hidden_size"] // vlm["head_dim"],
        "num_hidden_layers": vlm["num_layers"],
        "num_key_value_heads": vlm["num_key_value_heads"],
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "position_ids": "position_ids",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "qwen2",
        "context_length": vlm["max_positions"],
        "vocab_size": vlm["vocab_size"],
        "bos_token_id": unused,
        "eos_token_id": unused,
        "pad_token_id": unused,
        "decoder": decoder,
    }
    return {"model": model, "search": {"max_length": PROMPT + TOKENS + 1, "past_present_share_buffer": True}}


if __name__ == "__main__":
    main()
