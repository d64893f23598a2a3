"""A persona from five samples at the real size, in ONNX Runtime and in torch: `python -m benchmarks.persona_encoder`.

DINOv3 ConvNeXt-Tiny at 448×448 pixels, a text table of Qwen2-VL's 151,936 words and the persona encoder of the paper,
all with random weights. Each side lives in a process of its own and prepares and encodes the same five samples (a
photograph, 40 words, 15 fixations), in turn, so that a slower machine slows all of them; medians are printed.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from pydeper import Sample, read_samples
from pydeper.config import ImageEncoderInfo, PersonaEncoderConfig
from pydeper.persona_encoder import PersonaEncoder
from pydeper.preprocess import collate, encode_sample

VOCABULARY, TABLE_WIDTH = 151_936, 1536
SAMPLES, WORDS, FIXATIONS = 5, 40, 15
CONFIG = PersonaEncoderConfig(
    fingerprint="random weights",
    image_encoder=ImageEncoderInfo("DINOv3 ConvNeXt-Tiny, random weights", "none"),
    image_size=448,
    image_mean=(0.485, 0.456, 0.406),
    image_std=(0.229, 0.224, 0.225),
    max_fixations=30,
    max_description_tokens=256,
    modalities=("text+trajectory",),
)
Figures = dict[str, float]
Work = Callable[[], np.ndarray]
SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16", "int8"], help="of the exported files")
    parser.add_argument("--photograph", nargs=2, type=int, default=(1920, 1440), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    width, height = options.photograph
    with tempfile.TemporaryDirectory(prefix="pydeper-benchmark-") as temporary:
        folder = Path(temporary)
        make_samples(folder, width, height)
        exports = {}
        for precision in options.precision:
            with ProcessPoolExecutor(1, SPAWN) as process:
                exports[precision] = process.submit(export, precision, folder).result()
        show("Export", exports)
        sides = [Side("torch fp32", torch_side, "float32", folder), Side("torch bf16", torch_side, "bfloat16", folder)]
        sides += [Side(f"ONNX {precision}", onnx_side, precision, folder) for precision in options.precision]
        results = measure(sides, options.runs)
        show(f"Persona from {SAMPLES} samples, medians of {options.runs}", results)
        preparing = time_preparing(read_samples(folder / "samples.jsonl"), options.runs)
        show(f"Of these, preparing photographs of {width}×{height} in one thread", {"": preparing})
    if options.json:
        figures = {"photograph": [width, height], "export": exports, "persona": results, "preparing": preparing}
        options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(title: str, rows: dict[str, Figures]) -> None:
    columns = list(dict.fromkeys(column for figures in rows.values() for column in figures))
    print(f"\n{title}\n{'':12}" + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    for name, figures in rows.items():
        cells = (f"{figures[column]:.5g}" if column in figures else "" for column in columns)
        print(f"{name:12}" + "".join(f"{cell:>{len(column) + 3}}" for cell, column in zip(cells, columns, strict=True)))


# What is worked on


def make_samples(folder: Path, width: int, height: int) -> None:
    """Writes five photographs, samples.jsonl and tokenizer.json with as many words as Qwen2-VL has."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(VOCABULARY)]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    lines = []
    for i in range(SAMPLES):
        photograph(width, height, rng).save(folder / f"{i}.jpg", quality=90)
        corners = rng.uniform(0, 0.7, (FIXATIONS, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0.03, 0.3, (FIXATIONS, 2))], axis=1)
        fixations = [
            {"box": box, "duration": seconds}
            for box, seconds in zip(boxes.tolist(), rng.uniform(0.1, 0.6, FIXATIONS).tolist(), strict=True)
        ]
        description = " ".join(rng.choice(words, WORDS))
        sample = {"image": f"{i}.jpg", "description": description, "subject": "ana", "trajectory": fixations}
        lines.append(json.dumps(sample) + "\n")
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def photograph(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Draws noise in which, as in photographs, an octave of finer detail has half the amplitude of the one before."""
    pixels = rng.normal(0, 3, (height, width, 3)).astype(np.float32) + rng.uniform(80, 170, 3).astype(np.float32)
    for octave in range(1, 8):
        coarse = rng.normal(0, 90 / 2**octave, (2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(np.ascontiguousarray(coarse[..., channel]))
            pixels[..., channel] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def random_parts() -> tuple[Any, Any, Any]:
    """The same random persona encoder, image encoder and text table in every process; activations keep their size."""
    import torch
    from torch import nn
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    from training.network import ImageEncoder, NetworkConfig, TextTable
    from training.network import PersonaEncoder as Network

    torch.manual_seed(0)
    backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig())
    for name, parameter in backbone.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.5)  # training begins with 1e-6, through which nothing of a layer is seen
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=float("bias" not in name), std=0.2)
    table = torch.empty(VOCABULARY, TABLE_WIDTH, dtype=torch.bfloat16).normal_(std=0.02)
    return Network(NetworkConfig()).eval(), ImageEncoder(backbone), TextTable(table)


# The sides, each in a process of its own: what it is loaded into, and what it does then


def onnx_side(precision: str, folder: Path) -> tuple[Work, Work]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = PersonaEncoder(encoder_file(folder, precision), CONFIG, tokenizer, providers=["CPUExecutionProvider"])
    samples = read_samples(folder / "samples.jsonl")
    return lambda: encoder.embed(samples), lambda: encoder.embed(samples, batch_size=SAMPLES)


def torch_side(dtype: str, folder: Path) -> tuple[Work, Work]:
    import torch

    network, image_encoder, text_table = random_parts()
    # The layout that is fastest on a CPU. The persona encoder, which takes little time, stays in float32.
    image_encoder = image_encoder.to(dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    samples = read_samples(folder / "samples.jsonl")

    @torch.inference_mode()
    def embed(chosen: list[Sample]) -> np.ndarray:
        batch = collate([encode_sample(sample, tokenizer, CONFIG) for sample in chosen])
        inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
        pixels = inputs.pop("pixel_values").to(getattr(torch, dtype), memory_format=torch.channels_last)
        tokens, words = image_encoder(pixels).float(), text_table(inputs.pop("input_ids"))
        vectors: np.ndarray = network(tokens, words, **inputs).subject_embedding.numpy()
        return vectors

    return lambda: np.concatenate([embed([sample]) for sample in samples]), lambda: embed(samples)


def export(precision: str, folder: Path) -> Figures:
    from export.persona_encoder import export_persona_encoder

    parts = random_parts()
    began = time.perf_counter()
    path = encoder_file(folder, precision)
    differences = export_persona_encoder(path, *parts, image_size=CONFIG.image_size, precision=precision)  # type: ignore[arg-type]
    return {
        "seconds": time.perf_counter() - began,
        "peak MiB": peak(),
        "file MB": path.stat().st_size / 1e6,
        "difference from torch": max(differences.values()),
    }


def encoder_file(folder: Path, precision: str) -> Path:
    return folder / f"persona_encoder_{precision}.onnx"


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Side:
    """A side in its process, which waits until it is asked: it is loaded when it is made."""

    def __init__(self, name: str, load: Callable[[str, Path], tuple[Work, Work]], kind: str, folder: Path) -> None:
        self.name = name
        self._here, there = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(there, load, kind, folder), daemon=True)
        self._process.start()
        there.close()
        self.loaded: Figures = self._here.recv()

    def ask(self, batch: bool) -> tuple[float, np.ndarray, float]:
        """Encodes the samples, one by one or as a batch; returns seconds, vectors and the peak of memory so far."""
        self._here.send(batch)
        seconds, vectors, memory = self._here.recv()
        return seconds, vectors, memory

    def close(self) -> None:
        self._here.send(None)
        self._process.join()


def _serve(connection: Connection, load: Callable[[str, Path], tuple[Work, Work]], kind: str, folder: Path) -> None:
    began = time.perf_counter()
    works = load(kind, folder)
    # Of torch, this is making random weights, which tells nothing.
    connection.send({} if load is torch_side else {"load s": time.perf_counter() - began, "loaded MiB": peak()})
    while (batch := connection.recv()) is not None:
        began = time.perf_counter()
        vectors = works[batch]()
        connection.send((time.perf_counter() - began, vectors, peak()))


# Figures


def measure(sides: list[Side], runs: int) -> dict[str, Figures]:
    times: dict[tuple[str, bool], list[float]] = {(side.name, batch): [] for side in sides for batch in (False, True)}
    peaks: dict[tuple[str, bool], float] = {}
    vectors: dict[str, np.ndarray] = {}
    # All runs one by one come first: the peak of a batch would hide theirs.
    for batch in (False, True):
        for run in range(runs + 1):
            for side in sides:
                seconds, found, peaks[side.name, batch] = side.ask(batch)
                vectors.setdefault(side.name, found)
                if run:  # the first is a warm-up
                    times[side.name, batch].append(seconds)
    for side in sides:
        side.close()
    medians = {key: statistics.median(values) for key, values in times.items()}
    best = {side.name: min(medians[side.name, batch] for batch in (False, True)) for side in sides}
    first = sides[0].name
    return {
        side.name: {
            "one by one s": medians[side.name, False],
            "batch s": medians[side.name, True],
            f"times {first}": best[first] / best[side.name],
            **side.loaded,
            "peak MiB": peaks[side.name, False],
            "batch's peak MiB": peaks[side.name, True],
            **agreement(vectors[side.name], vectors[first]),
        }
        for side in sides
    }


def agreement(found: np.ndarray, exact: np.ndarray) -> Figures:
    """The smallest cosine, and the largest error as a share of the mean distance between two samples' vectors."""
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    distances = np.linalg.norm(exact[:, None] - exact, axis=-1)
    between = distances.sum() / (len(exact) * (len(exact) - 1))
    return {
        "cosine": float(cosines.min()),
        "error / distance of samples": float(np.linalg.norm(found - exact, axis=1).max() / between),
    }


def time_preparing(samples: list[Sample], runs: int) -> Figures:
    pictures = [sample.open_image() for sample in samples]
    size = (CONFIG.image_size, CONFIG.image_size)

    def median(work: Callable[[], object]) -> float:
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return {
        "decode s": median(lambda: [sample.open_image() for sample in samples]),
        "resize s": median(lambda: [picture.resize(size, Image.Resampling.BICUBIC) for picture in pictures]),
    }


if __name__ == "__main__":
    main()
