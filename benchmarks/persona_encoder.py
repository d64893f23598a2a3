"""A persona from five samples at the real size, in ONNX Runtime and in torch: `python -m benchmarks.persona_encoder`.

DINOv3 ConvNeXt-Tiny at 448×448 pixels, a text table of Qwen2-VL's 151,936 words and the persona encoder of the paper,
all with random weights. Each side lives in a process of its own and prepares and encodes the same five samples (a
photograph, 40 words, 15 fixations), in turn, so that a slower machine slows all of them; medians are printed.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks.measuring.sides import SPAWN, Side, peak_gib
from benchmarks.measuring.timing import seconds, timed
from pydeper import Sample, read_samples
from pydeper.bundle.bundle import EncoderBundle, open_encoder_bundle
from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig
from pydeper.bundle.layout import PERSONA_ENCODER, TOKENIZER
from pydeper.persona.encoder import PersonaEncoder
from pydeper.persona.preprocess import collate, encode_sample

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
        with ExitStack() as stack:
            sides = {
                "torch fp32": stack.enter_context(Side(Torch, "float32", folder)),
                "torch bf16": stack.enter_context(Side(Torch, "bfloat16", folder)),
            }
            for precision in options.precision:
                sides[f"ONNX {precision}"] = stack.enter_context(Side(Onnx, precision, folder))
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
    tokenizer.save(str(folder / TOKENIZER))
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


# The sides


class Onnx:
    """The exported persona encoder, as the SDK runs it."""

    def __init__(self, precision: str, folder: Path) -> None:
        bundle = bundle_of(folder, precision)
        took, self.encoder = timed(lambda: PersonaEncoder(bundle, device="cpu"))
        self.loaded: Figures = {"load s": took, "loaded MiB": peak_mib()}
        self.samples = read_samples(folder / "samples.jsonl")

    def embed(self, batch: bool) -> tuple[float, np.ndarray, float]:
        """Encodes the samples, as a batch or one by one: seconds, vectors, and the peak of memory so far."""
        took, vectors = timed(lambda: self.encoder.embed(self.samples, batch_size=SAMPLES if batch else 1))
        return took, vectors, peak_mib()

    def loading(self) -> Figures:
        return self.loaded


class Torch:
    """The same network in torch, in the layout that is fastest on a CPU; the small persona encoder stays in float32."""

    def __init__(self, dtype: str, folder: Path) -> None:
        import torch

        self.dtype, self.layout = getattr(torch, dtype), torch.channels_last
        self.network, image_encoder, self.text_table = random_parts()
        self.image_encoder = image_encoder.to(dtype=self.dtype, memory_format=self.layout)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.samples = read_samples(folder / "samples.jsonl")

    def embed(self, batch: bool) -> tuple[float, np.ndarray, float]:
        """As `Onnx.embed`."""
        groups = [self.samples] if batch else [[sample] for sample in self.samples]
        took, vectors = timed(lambda: np.concatenate([self.vectors(group) for group in groups]))
        return took, vectors, peak_mib()

    def vectors(self, samples: list[Sample]) -> np.ndarray:
        import torch

        batch = collate([encode_sample(sample, self.tokenizer, CONFIG) for sample in samples])
        inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
        pixels = inputs.pop("pixel_values").to(self.dtype, memory_format=self.layout)
        with torch.inference_mode():
            tokens, words = self.image_encoder(pixels).float(), self.text_table(inputs.pop("input_ids"))
            vectors: np.ndarray = self.network(tokens, words, **inputs).subject_embedding.numpy()
        return vectors

    def loading(self) -> Figures:
        return {}  # it makes random weights, which takes time of its own


def peak_mib() -> float:
    return 1024 * peak_gib()


def export(precision: str, folder: Path) -> Figures:
    from export.persona_encoder import export_persona_encoder

    parts = random_parts()
    path = bundle_of(folder, precision).folder / PERSONA_ENCODER
    path.parent.mkdir()
    shutil.copyfile(folder / TOKENIZER, path.parent / TOKENIZER)
    took, differences = timed(
        lambda: export_persona_encoder(path, *parts, image_size=CONFIG.image_size, precision=precision)  # type: ignore[arg-type]
    )
    return {
        "seconds": took,
        "peak MiB": peak_mib(),
        "file MB": path.stat().st_size / 1e6,
        "difference from torch": max(differences.values()),
    }


def bundle_of(folder: Path, precision: str) -> EncoderBundle:
    """A bundle of which only the persona encoder's files are there."""
    tiny = open_encoder_bundle("tiny")
    return attrs.evolve(tiny, folder=folder / precision, config=attrs.evolve(tiny.config, persona_encoder=CONFIG))


# Figures


def measure(sides: dict[str, Side], runs: int) -> dict[str, Figures]:
    times: dict[tuple[str, bool], list[float]] = {(name, batch): [] for name in sides for batch in (False, True)}
    peaks: dict[tuple[str, bool], float] = {}
    vectors: dict[str, np.ndarray] = {}
    # All runs one by one come first: the peak of a batch would hide theirs.
    for batch in (False, True):
        for run in range(runs + 1):
            for name, side in sides.items():
                took, found, peaks[name, batch] = side.call("embed", batch)
                vectors.setdefault(name, found)
                if run:  # the first is a warm-up
                    times[name, batch].append(took)
    medians = {key: statistics.median(values) for key, values in times.items()}
    best = {name: min(medians[name, batch] for batch in (False, True)) for name in sides}
    first = next(iter(sides))
    return {
        name: {
            "one by one s": medians[name, False],
            "batch s": medians[name, True],
            f"times {first}": best[first] / best[name],
            **side.call("loading"),
            "peak MiB": peaks[name, False],
            "batch's peak MiB": peaks[name, True],
            **agreement(vectors[name], vectors[first]),
        }
        for name, side in sides.items()
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
        return statistics.median(seconds(work) for _ in range(runs))

    return {
        "decode s": median(lambda: [sample.open_image() for sample in samples]),
        "resize s": median(lambda: [picture.resize(size, Image.Resampling.BICUBIC) for picture in pictures]),
    }


if __name__ == "__main__":
    main()
