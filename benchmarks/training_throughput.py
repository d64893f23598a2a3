"""Training steps beside the plain way: `python -m benchmarks.training_throughput [--tiny | --real --vlm FOLDER]`.

The plain way is how the released code trains: it runs the frozen encoders on every image at every step, clones the
whole embedding table to place one row, and takes everything before `<subj>` through forward and backward pass as well.
Here image features come from a cache on disk, and prefixes are computed without gradients, or kept from earlier steps.

All sides take the same step (forward and backward pass, no optimiser) on the same samples, with the same weights and in
turn, so that a slower machine slows all of them; medians are printed. That their losses agree is checked.

With `--real`, the captioners CSMN and MITR are measured as well, at their authors' sizes. They have no plain way.

Networks and batches are on the device that Accelerate chooses: a GPU if there is one, unless
ACCELERATE_USE_CPU is true.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from benchmarks.measuring.command import report_command
from benchmarks.persona_encoder import photograph
from pydeper import Sample, Trajectory
from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig
from pydeper.console import write_any_text
from training.baselines.csmn import training as csmn_training
from training.baselines.csmn.network import CSMN
from training.baselines.mitr import examples as mitr_examples
from training.baselines.mitr import training as mitr_training
from training.baselines.mitr.alignment import WHOLE_IMAGE
from training.baselines.mitr.network import MITR
from training.baselines.word_vocabulary import SPECIALS
from training.config import CSMNConfig, MITRConfig, Stage1Config, Stage2Config, TrainingConfig, load_config
from training.data.encoded import EncodedDataset, encode_dataset
from training.data.feature_cache import MemoryStore
from training.distributed.process_group import training_device
from training.evaluation.report import format_table, write_report
from training.loop.train import Task
from training.losses.description import language_loss
from training.network.config import NetworkConfig
from training.network.image_encoder import ImageEncoder
from training.network.text_table import TextTable
from training.precision import bfloat16_autocast
from training.runs.frozen_parts import load_text_table, load_vlm
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task
from training.tiny import make
from training.tiny.config import TinyConfig
from training.tiny.vlm import build_vlm
from training.tiny.world.people import draw_samples, simulate_people
from training.vlm.steered_vlm import SteeredVLM

_CONFIGS = Path(__file__).parents[1] / "training" / "configs"
Figures = dict[str, dict[str, float]]


@attrs.frozen(eq=False)
class Parts:
    """What both sides train on."""

    network: NetworkConfig
    stage1: Stage1Config
    stage2: Stage2Config
    vlm: SteeredVLM
    data: EncodedDataset
    text_table: TextTable
    cache: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="the built-in model's sizes (the default)")
    size.add_argument("--real", action="store_true", help="the paper's sizes, random weights: 12 GiB, minutes")
    parser.add_argument(
        "--vlm", type=Path, metavar="FOLDER", help="for --real: as `python -m benchmarks.standin` writes"
    )
    parser.add_argument("--batch", type=int, help="samples in a step (default: 64, or 2 with --real)")
    parser.add_argument("--runs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="also write training-throughput-SIZE.* there")
    options = parser.parse_args()
    if options.real and options.vlm is None:
        parser.error("--real needs --vlm FOLDER; `python -m benchmarks.standin FOLDER` writes one")
    batch = options.batch or (2 if options.real else 64)
    with tempfile.TemporaryDirectory(prefix="pydeper-benchmark-") as temporary:
        parts = real_parts(options.vlm, batch, Path(temporary)) if options.real else tiny_parts(batch, Path(temporary))
        figures = {
            f"stage {stage}, {name}": row
            for stage, sides in ((1, stage1_sides), (2, stage2_sides))
            for name, row in measure(sides(parts), batch, options.runs).items()
        }
        for name, captioner in (captioners(parts.data) if options.real else {}).items():
            measured = measure({name: captioner}, CAPTIONER_BATCH, options.runs)[name]
            figures[name] = {"samples/s": measured["samples/s"]}
    print(format_table(figures))
    if options.report:
        which = "real" if options.real else "tiny"
        facts = {
            "command": report_command("benchmarks.training_throughput", parser, options, {"vlm": "FOLDER"}),
            "batch": batch,
            **({"batch of CSMN and MITR": CAPTIONER_BATCH} if options.real else {}),
            "threads": torch.get_num_threads(),
            "figures": f"medians of {options.runs} steps each, in turn",
        }
        device = training_device()
        name = f"training-throughput-{which}"
        if device.type != "cpu":
            facts["device"] = f"one {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
            name += f"-{device.type}"
        write_report(options.report, name, figures, title=f"Training steps, {which} sizes", facts=facts)


def measure(sides: dict[str, Task], batch: int, runs: int) -> Figures:
    """Takes steps in turn. The first step of every side is a warm-up, and shows that the losses agree."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    device = training_device()
    for task in sides.values():
        task.state.to(device)
    for run in range(runs + 1):
        losses = {}
        for name, task in sides.items():
            torch.manual_seed(run)  # one dropout for all
            began = time.perf_counter()
            loss = task.losses(0, 0)["loss"]
            loss.backward()
            wait_for(device)
            if run:
                seconds[name].append(time.perf_counter() - began)
            losses[name] = float(loss.detach())
        if max(losses.values()) - min(losses.values()) > 0.01 * max(losses.values()):
            raise SystemExit(f"the sides do not compute the same loss: {losses}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    plain = next(iter(medians.values()))
    return {name: {"samples/s": batch / median, "times": plain / median} for name, median in medians.items()}


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done all that it was asked; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# --- the sides


def stage1_sides(parts: Parts) -> dict[str, Task]:
    def task(data: EncodedDataset) -> Task:
        return Stage1Task(parts.network, parts.stage1, data, parts.text_table, seed=0)

    return {"plain: images encoded": task(without_cache(parts.data)), "features from the cache": task(parts.data)}


def stage2_sides(parts: Parts) -> dict[str, Task]:
    deper = Stage1Task(parts.network, parts.stage1, parts.data, parts.text_table, seed=0).deper

    def task(data: EncodedDataset, kept_gib: float) -> Stage2Task:
        config = attrs.evolve(parts.stage2, prefix_cache_gib=kept_gib)
        return Stage2Task(copy.deepcopy(deper), config, data, parts.text_table, parts.vlm, 0, parts.cache)

    plain = task(without_cache(parts.data), 0)
    plain.description_loss = PlainDescriptionLoss(parts.vlm, parts.data, parts.stage2)  # type: ignore[assignment]
    return {
        "plain: all anew, all with gradients": plain,
        "features cached, prefixes new": task(parts.data, 0),
        "features cached, prefixes kept": task(parts.data, 4),
    }


def without_cache(data: EncodedDataset) -> EncodedDataset:
    """The same data, whose images are opened and encoded anew for every batch."""
    return attrs.evolve(data, image_tokens=attrs.evolve(data.image_tokens, store=MemoryStore(0)))


@attrs.frozen(eq=False)
class PlainDescriptionLoss:
    """L_des as the released code computes it; called like `training.losses.description.DescriptionLoss`."""

    vlm: SteeredVLM
    data: EncodedDataset
    config: Stage2Config

    def __call__(self, images: Sequence[int], soft_tokens: Tensor, descriptions: Sequence[str]) -> Tensor:
        vlm = self.vlm
        pictures = [self.data.images.open(int(image)) for image in images]
        prompts = [vlm.steered_prompt(self.config.style)] * len(pictures)
        batch = vlm.prompt_batch(prompts, descriptions, vlm.grids(pictures))
        with bfloat16_autocast(vlm.model.device, wanted=self.config.bf16):
            features = torch.cat(vlm.image_features(pictures))
            table = vlm.model.get_input_embeddings().weight.clone()
            table[vlm.config.tokens.subject] = soft_tokens[0].to(table)
            embeds = F.embedding(batch.input_ids, table)
            # One table has one row for `<subj>`: those of the other samples are placed behind it.
            is_subject = (batch.input_ids == vlm.config.tokens.subject)[1:, :, None]
            others = torch.where(is_subject, soft_tokens[1:, None].to(embeds), embeds[1:])
            is_image = (batch.input_ids == vlm.config.tokens.image)[..., None]
            embeds = torch.cat([embeds[:1], others]).masked_scatter(is_image, features.to(embeds))
            return language_loss(vlm.model, embeds, batch)


CAPTIONER_BATCH = 16
"""Samples in a step of a captioner: fewer than the 128 and 30 of the authors, which take more memory."""

_VOCABULARY = 10_000
"""Words that a captioner can write, special ones included."""


def captioners(data: EncodedDataset) -> dict[str, Task]:
    """CSMN and MITR at their authors' sizes, with random weights and texts of 40 to 80 words of nonsense."""
    csmn, mitr = CSMNConfig(batch_size=CAPTIONER_BATCH), MITRConfig(batch_size=CAPTIONER_BATCH)
    rng, numbers = np.random.default_rng(0), range(CAPTIONER_BATCH)
    texts = [rng.integers(len(SPECIALS), _VOCABULARY, rng.integers(40, 81)).tolist() for _ in numbers]
    tokens = torch.stack(data.image_tokens.of([number % len(data.image_tokens) for number in numbers]))

    contexts = torch.from_numpy(rng.integers(len(SPECIALS), _VOCABULARY, (CAPTIONER_BATCH, csmn.user_words)))
    known = csmn_training.Examples(tokens.mean(dim=1), contexts, texts)
    writer = CSMN(_VOCABULARY, tokens.shape[-1], max(map(len, texts)) + 1, csmn)

    whole = np.array(WHOLE_IMAGE, dtype=np.float32)
    boxes = [np.tile(whole, (len(text), 1)) for text in texts]
    origins = list(data.origins[:1]) * CAPTIONER_BATCH
    traced = mitr_examples.Examples(origins, texts, boxes, lambda some: tokens[: len(some)])
    tracer = MITR(mitr, _VOCABULARY, tokens.shape[-1])
    return {
        "CSMN": csmn_training.CSMNTask(writer, csmn, known, known, seed=0),
        "MITR": mitr_training.MITRTask("MITR", tracer, mitr, traced, traced, seed=0),
    }


# --- what is trained


def tiny_parts(batch: int, folder: Path) -> Parts:
    """The built-in model's sizes with random weights, and its simulated people."""
    config = load_config(TinyConfig, _CONFIGS / "tiny.toml")
    vlm = build_vlm(config)
    sizes = config.image_encoder
    backbone = DINOv3ConvNextModel(
        DINOv3ConvNextConfig(
            hidden_sizes=list(sizes.hidden_sizes), depths=list(sizes.depths), image_size=sizes.image_size
        )
    )
    viewers = simulate_people(attrs.evolve(config.viewers, groups=8), 0).seen
    samples = [sample for i, viewer in enumerate(viewers) for sample in draw_samples(viewer, 2 + batch // 32, 0, i)]
    preprocessing = make.persona_config(config)
    return assemble(config.network, config.stage1, config.stage2, vlm, backbone, samples, preprocessing, batch, folder)


def real_parts(vlm_folder: Path, batch: int, folder: Path) -> Parts:
    """The paper's sizes with random weights; photographs of noise and descriptions of 40 to 80 words of nonsense."""
    config = load_config(
        TrainingConfig, _CONFIGS / "deper.toml", [f"vlm={json.dumps(str(vlm_folder))}", "samples=none"]
    )
    assert config.stage2 is not None
    tokenizer, _ = load_text_table(config.vlm)
    vlm = load_vlm(config, tokenizer, training_device())
    preprocessing = PersonaEncoderConfig(
        fingerprint="random",
        image_encoder=ImageEncoderInfo(name="DINOv3 ConvNeXt-Tiny, random weights", licence="none"),
        image_size=config.image_size,
        image_mean=make.IMAGE_MEAN,
        image_std=make.IMAGE_STD,
        max_fixations=config.network.max_fixations,
        max_description_tokens=config.max_description_tokens,
        modalities=("text+trajectory",),
    )
    backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig())
    return assemble(
        config.network,
        config.stage1,
        config.stage2,
        vlm,
        backbone,
        drawn_samples(2 * batch, folder),
        preprocessing,
        batch,
        folder,
    )


def assemble(
    network: NetworkConfig,
    stage1: Stage1Config,
    stage2: Stage2Config,
    vlm: SteeredVLM,
    backbone: DINOv3ConvNextModel,
    samples: Sequence[Sample],
    preprocessing: PersonaEncoderConfig,
    batch: int,
    folder: Path,
) -> Parts:
    cache, device = folder / "cache", training_device()
    vlm.to(device)
    encoder = ImageEncoder(backbone).to(device)
    data = encode_dataset(samples, vlm.tokenizer, encoder, preprocessing, feature_cache=cache)
    table = TextTable(vlm.model.get_input_embeddings().weight.detach())
    changes: dict[str, Any] = {"batch_size": batch, "accumulation": 1}
    stage1, stage2 = attrs.evolve(stage1, **changes), attrs.evolve(stage2, **changes)
    return Parts(network, stage1, stage2, vlm, data, table, cache)


def drawn_samples(count: int, folder: Path) -> list[Sample]:
    rng = np.random.default_rng(0)
    words = ["a", "red", "house", "beside", "the", "river", "with", "people", "who", "walk", "and", "talk", "slowly"]
    samples = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        photograph(1024, 768, rng).save(path, quality=90)
        corners = rng.uniform(0, 0.7, (15, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0.03, 0.3, (15, 2))], axis=1)
        samples.append(
            Sample(
                image=path,
                description=" ".join(rng.choice(words, int(rng.integers(40, 81)))),
                trajectory=Trajectory.from_arrays(boxes, rng.uniform(0.1, 0.6, 15)),
                subject=f"person {number % 2}",
            )
        )
    return samples


if __name__ == "__main__":
    write_any_text()
    warnings.simplefilter("ignore")
    main()
