"""Qwen2-VL-2B at its real size, on ONNX Runtime and in transformers: `python -m benchmarks.qwen2_vl_2b`.

The network has the true configuration and random weights (`benchmarks.standin`), which take as long as real ones. What
is missing in the work folder is made first (a quarter of an hour, 24 GB of disk, 20 GiB of memory); it is kept.
Sides work in turn on the same images, personas and cores; medians are printed.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring.limits import memory_bandwidth
from benchmarks.measuring.sides import SPAWN, Side, peak_gib
from benchmarks.measuring.timing import seconds, timed
from pydeper.files.atomic import atomic_path
from pydeper.speed.compare import LARGE_PAGES

STYLE = "description"
TOKENS = 64
PERSONAS = 8
IMAGES = 3
GREEDY_TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/qwen2_vl_2b"), help="what is made and kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--greedy", action="store_true", help="compare greedy tokens in fp32 (minutes, 20 GiB) instead")
    parser.add_argument("--large-pages", action="store_true", help="give all sides large pages (Linux, glibc 2.35 on)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    if options.large_pages:
        os.environ.update(LARGE_PAGES)  # read by processes when they start, as sides will
    prepare(options.work, "fp32" if options.greedy else "int4")
    figures = greedy(options.work, options.threads) if options.greedy else speed(options)
    for name, value in figures.items():
        print(f"{name:58} {value:.4g}")
    print(f"transformers computed in {'float32' if options.greedy else fastest_dtype()}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


# The comparison


def speed(options: argparse.Namespace) -> dict[str, float]:
    bundle = options.work / "bundle"
    with (
        Side(Transformers, options.work, options.threads, fastest_dtype(), "int4") as theirs,
        Side(Ours, bundle, options.threads) as ours,
    ):
        rounds = []
        for number in range(options.rounds):
            image = photograph(options.work, 100 + number)
            soft = ours.call("soft_token", number)
            rounds.append(
                {f"ours, {name}": value for name, value in ours.call("describe", image, number).items()}
                | {f"transformers, {name}": value for name, value in theirs.call("describe", image, soft).items()}
                | {"bandwidth, GB/s": memory_bandwidth(options.threads)}
            )
        median = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
        eight = [ours.call("eight", photograph(options.work, 200 + number)) for number in range(3)]
        one_s, eight_s = (statistics.median(pair[i] for pair in eight) for i in (0, 1))
        per_token, their_peak = ours.call("bytes_per_token"), theirs.call("peak")
    loads, peaks = zip(*(_in_a_process(_load_and_describe, bundle, options) for _ in range(3)), strict=True)
    roofline = median["bandwidth, GB/s"] * 1e9 / per_token
    return {
        **median,
        "decode against transformers": median["ours, tokens/s"] / median["transformers, tokens/s"],
        "decode against the roofline": median["ours, tokens/s"] / roofline,
        "first token against transformers": median["ours, first token s"] / median["transformers, first token s"],
        "second description's first token against the first's": median["ours, second first token s"]
        / median["ours, first token s"],
        f"{PERSONAS} personas against one, seconds": eight_s / one_s,
        "load s": statistics.median(loads),
        "peak GiB of describing one image": max(peaks),
        "transformers, peak GiB": their_peak,
    }


def greedy(work: Path, threads: int) -> dict[str, float]:
    """Share of greedy tokens in fp32 that are transformers'; one side after the other, for want of memory."""
    rng = np.random.default_rng(0)
    soft = (rng.standard_normal((2, 1536)) * 0.6).astype(np.float32)
    images = [photograph(work, number) for number in range(IMAGES)]
    found = {}
    for load, arguments in ((Float32, (work, threads)), (Transformers, (work, threads, "float32", "fp32"))):
        with Side(load, *arguments) as side:
            found[load] = [side.call("greedy", image, row) for image in images for row in soft]
            print(f"{load.__name__}: {len(found[load])} descriptions", flush=True)
    pairs = list(zip(found[Float32], found[Transformers], strict=True))
    return {
        "descriptions": float(len(pairs)),
        "tokens each": float(GREEDY_TOKENS),
        "descriptions whose every token is transformers'": float(sum(ours == theirs for ours, theirs in pairs)),
    }


# Sides


class Ours:
    """A model loaded from its bundle, used through its public face."""

    def __init__(self, bundle: Path, threads: int) -> None:
        from pydeper import DeperModel, Persona

        self.load_seconds, self.model = timed(lambda: DeperModel.from_pretrained(bundle, device="cpu", threads=threads))
        rng = np.random.default_rng(0)
        encoder = self.model.config.persona_encoder
        self.personas = [
            Persona(
                subject_embedding=rng.standard_normal(encoder.subject_embedding_size).astype(np.float32),
                model_id=self.model.model_id,
                encoder_fingerprint=encoder.fingerprint,
                num_samples=5,
            )
            for _ in range(PERSONAS)
        ]

    def soft_token(self, number: int) -> np.ndarray:
        token: np.ndarray = self.model._soft_tokens([self.personas[number % PERSONAS]])[0]
        return token

    def describe(self, image: Path, number: int) -> dict[str, float]:
        """From the file to the first token; again for somebody else; and TOKENS more of that."""
        one, other = self.personas[number % PERSONAS], self.personas[(number + 1) % PERSONAS]
        first = seconds(lambda: self.model.describe(image, one, max_new_tokens=1))
        seen = self.model.encode_image(image)
        second = seconds(lambda: self.model.describe(seen, other, max_new_tokens=1))
        more = seconds(lambda: self.model.describe(seen, other, max_new_tokens=1 + TOKENS))
        vision = seconds(lambda: self.model._vlm.encode_image(Image.open(image).convert("RGB")))
        return {
            "first token s": first,
            "of which vision s": vision,
            "second first token s": second,
            "tokens/s": TOKENS / (more - second),
        }

    def eight(self, image: Path) -> tuple[float, float]:
        """Seconds for one persona, and for PERSONAS; the image is read anew for both."""
        self.model.clear_image_cache()
        one = seconds(lambda: self.model.describe(image, self.personas[0], max_new_tokens=TOKENS))
        self.model.clear_image_cache()
        return one, seconds(lambda: self.model.describe_each(image, self.personas, max_new_tokens=TOKENS))

    def bytes_per_token(self) -> float:
        """What a step reads: the decoder's weights, and keys and values of some 330 tokens."""
        vlm = self.model.config.vlm
        cache = 2 * vlm.num_layers * vlm.num_key_value_heads * vlm.head_dim * 4 * 330
        files = self.model._vlm._files.decoder  # type: ignore[attr-defined]
        return float(cache + sum(file.stat().st_size for file in files.parent.glob(f"{files.name}_data*")))


class Float32:
    """The exported decoder in fp32."""

    def __init__(self, work: Path, threads: int) -> None:
        from pydeper.vlm import open_vlm

        self.vlm = open_vlm(work / "fp32", *described(work, "fp32"), threads=threads, precision="fp32")

    def greedy(self, image: Path, soft: np.ndarray) -> list[int]:
        from pydeper.vlm import DecodingOptions

        encoded = self.vlm.encode_image(Image.open(image).convert("RGB"))
        options = DecodingOptions(max_new_tokens=GREEDY_TOKENS)
        return list(self.vlm.generate(encoded, STYLE, soft[None], options)[0].token_ids)


DTYPES = ("bfloat16", "float32")
"""What transformers can compute in."""


def fastest_dtype() -> str:
    """The one of `DTYPES` in which PyTorch is fastest on this processor."""
    import torch

    from training.precision import multiplies_bfloat16_fast

    return "bfloat16" if multiplies_bfloat16_fast(torch.device("cpu")) else "float32"


class Transformers:
    """transformers with its own cache, one token after the other without anything around it.

    Args:
        work: The work folder.
        threads: CPU threads.
        dtype: One of `DTYPES`.
        precision: That of the export whose tokenizer and prompts are used.
    """

    def __init__(self, work: Path, threads: int, dtype: str, precision: str) -> None:
        import torch
        from transformers import Qwen2VLForConditionalGeneration

        from training.vlm.steered_vlm import SteeredVLM

        torch.set_num_threads(threads)
        self.dtype = getattr(torch, dtype)
        model = Qwen2VLForConditionalGeneration.from_pretrained(work / "standin", dtype=self.dtype)
        config, prompts, tokenizer = described(work, precision)
        self.steered = SteeredVLM(model, tokenizer, config, prompts)
        # Measured with torch 2.13 on AMX: linear layers in bfloat16 are three times as slow on frozen parameters.
        model.requires_grad_(True)

    def describe(self, image: Path, soft: np.ndarray) -> dict[str, float]:
        tokens = self.tokens(image, soft)
        first = seconds(lambda: next(tokens))
        count = TOKENS // 4  # as good a median, in less time
        more = seconds(lambda: [next(tokens) for _ in range(count)])
        picture = Image.open(image).convert("RGB")
        vision = seconds(lambda: self.steered.image_features([picture]))
        return {"first token s": first, "of which vision s": vision, "tokens/s": count / more}

    def peak(self) -> float:
        return peak_gib()

    def greedy(self, image: Path, soft: np.ndarray) -> list[int]:
        tokens = self.tokens(image, soft)
        return [next(tokens) for _ in range(GREEDY_TOKENS)]

    def tokens(self, image: Path, soft: np.ndarray) -> Any:
        """Greedy tokens without end."""
        import torch

        from pydeper.vlm.prompt import rotary_positions

        steered, model = self.steered, self.steered.model
        with torch.inference_mode():
            picture = Image.open(image).convert("RGB")
            features = steered.image_features([picture])
            tokens = steered.config.tokens
            ids = [*steered.template.image_ids(len(features[0])), *steered.steered_prompt(STYLE)]
            places, following = rotary_positions(
                ids, tokens.image, steered.grids([picture]), steered.config.vision.merge_size
            )
            fed = steered.embed(features, torch.from_numpy(soft)[None], torch.tensor([ids]))
            positions, cache = torch.from_numpy(places)[:, None], None
            length = len(ids)
            while True:
                output = model(
                    inputs_embeds=fed,
                    position_ids=positions,
                    past_key_values=cache,
                    attention_mask=torch.ones(1, length, dtype=torch.int64),
                    use_cache=True,
                    logits_to_keep=1,
                )
                scores = output.logits[0, -1].float()
                scores[list(tokens.suppressed)] = -torch.inf
                chosen = scores.argmax()
                yield int(chosen)
                fed, cache = model.get_input_embeddings()(chosen[None, None]), output.past_key_values
                positions = torch.full((3, 1, 1), following)
                following, length = following + 1, length + 1


def _load_and_describe(bundle: Path, threads: int, image: Path) -> tuple[float, float]:
    """Seconds of loading, and the process's peak in GiB after one description."""
    ours = Ours(bundle, threads)
    ours.model.describe(image, ours.personas[0], max_new_tokens=TOKENS)
    return ours.load_seconds, peak_gib()


def _in_a_process(work: Any, bundle: Path, options: argparse.Namespace) -> tuple[float, float]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        figures: tuple[float, float] = pool.submit(
            work, bundle, options.threads, photograph(options.work, 300)
        ).result()
        return figures


# What is measured


def prepare(work: Path, precision: str, *, bundle: bool = True) -> None:
    """Makes what is missing: the stand-in, its export, and for int4 a bundle around it, unless none is wanted."""
    from concurrent.futures import ProcessPoolExecutor

    work.mkdir(parents=True, exist_ok=True)
    steps = [(work / "standin", _make_standin), (work / precision / "vlm.json", _make_vlm)]
    if precision == "int4" and bundle:
        steps.append((work / "bundle", _make_bundle))
    for made, make in steps:
        if not made.exists():
            print(f"making {made}", flush=True)
            with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:  # so that its memory is free again afterwards
                pool.submit(make, work, precision).result()


def _make_standin(work: Path, _: str) -> None:
    from benchmarks.standin import write_standin

    write_standin(work / "standin", "2b")


def _make_vlm(work: Path, precision: Any) -> None:
    from export.qwen2_vl.folder import export_vlm_folder

    export_vlm_folder(work / "standin", work / precision, precision, progress=lambda step: print(" ", step, flush=True))


def _make_bundle(work: Path, precision: str) -> None:
    import torch

    from benchmarks.persona_encoder import CONFIG, random_parts
    from export.bundle.build import TrainedModules, build_bundle
    from pydeper.bundle.config import BundleConfig
    from training.network import Adapter

    config, prompts, _ = described(work, precision)
    torch.manual_seed(0)
    adapter = Adapter(CONFIG.subject_embedding_size, config.hidden_size)
    torch.nn.init.normal_(adapter.projection.weight, std=0.6 * CONFIG.subject_embedding_size**-0.5)
    build_bundle(
        work / "bundle",
        BundleConfig(
            name="qwen2-vl-2b-random",
            description="Random weights, for measurements.",
            licence="Apache-2.0",
            persona_encoder=CONFIG,
            vlm=config,
            prompts=prompts,
            training={},
        ),
        TrainedModules(*random_parts(), adapter),
        vlm=work / precision,
        tokenizer=work / precision / "tokenizer.json",
        encoder_precision="int8",
        adapter_precision="fp32",
    )


def described(work: Path, precision: str) -> tuple[Any, Any, Any]:
    """Config, prompts and tokenizer of an exported VLM."""
    from export.qwen2_vl.folder import read_vlm_folder
    from pydeper.bundle.config import Prompts, PromptStyle

    prompts = Prompts(
        "You are a helpful assistant.",
        {
            STYLE: PromptStyle(
                "Write a description of this photo in the style of <subj>", "Write a description of this photo"
            )
        },
    )
    config, tokenizer = read_vlm_folder(work / precision)
    tokenizer.encode_special_tokens = True
    return config, prompts, tokenizer


def photograph(work: Path, number: int) -> Path:
    """A file of soft noise, no two alike, as large as a camera's small pictures."""
    path = work / f"photograph-{number}.jpg"
    if not path.exists():
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        with atomic_path(path) as temporary:
            small.resize((1024, 768), Image.Resampling.BICUBIC).save(temporary, quality=90)
    return path


if __name__ == "__main__":
    main()
