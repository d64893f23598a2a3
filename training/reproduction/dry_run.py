"""What an experiment would read, train and take: `python -m training reproduce EXPERIMENT --dry-run`.

The data are read as for the experiment, so what they lack is found; nothing is trained or written.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from pydeper import read_samples
from training.config import ConfigError, TrainingConfig
from training.network.deper import Deper
from training.preparation.prepare import plan
from training.preparation.prepared_folder import SAMPLES
from training.preparation.splits import LEFT_OUT, QUERY, SPLITS, TEST, TRAIN
from training.reproduction.prepared import find_prepared, opened
from training.reproduction.sources import DataOptions, DataSource
from training.reproduction.trainings import SplitSample, Throughput, deper_trainings, trainings

GPU_SPEEDUP = 100.0
"""How many times as fast as two CPU cores one GPU is taken to be, unless it is said. This is not measured: an A100 does
some 100 TFLOP/s in such work, and two cores some 1."""

_STAGE2_FEATURES = 0.8e6
"""Bytes of an image's features in stage 2, with Qwen2-VL-2B at 448×448; see `TrainingConfig.feature_cache`."""

_CHECKPOINT, _WEIGHTS = 12, 4
"""Bytes a parameter: float32 weights and both moments of AdamW; the weights alone, as the best step's are kept."""

_PUBLISHED_WEIGHTS = {"Qwen/Qwen2-VL-2B-Instruct": 4.4e9, "facebook/dinov3-convnext-tiny-pretrain-lvd1689m": 0.11e9}
"""Bytes on disk of the frozen models."""


@attrs.frozen(eq=False)
class PlannedData:
    """The samples that an experiment would have.

    Attributes:
        samples: All that are in a split.
        size: Bytes that preparing them would write.
        about: What was read, and how it is split.
    """

    samples: Sequence[SplitSample]
    size: int
    about: str


def planned_data(source: DataSource, data: Path, folder: Path, options: DataOptions) -> PlannedData:
    """Reads an experiment's data as `training.reproduction.prepared.prepared` does, and writes nothing; see there."""
    if (file := find_prepared(data, folder, options)) is not None:
        samples = [SplitSample(str(s.subject), str(s.image), str(s.split)) for s in read_samples(file)]
        size, about = 0, f"{file}: prepared already."
    else:
        with opened(source, data, options) as reading:
            made = plan(reading.stream, reading.images, folder, reading.options)
        samples = [SplitSample(m.subject, m.image, split) for m, split in made.splits.items() if split != LEFT_OUT]
        size, about = made.size, f"{made.report}\n{reading.about}"
    return PlannedData(_limited(samples, source.training_samples), size, about)


def estimate(
    config: TrainingConfig,
    data: PlannedData,
    out: Path,
    *,
    systems: Sequence[str],
    max_new_tokens: int,
    throughput: Throughput,
    gpu_speedup: float | None,
) -> str:
    """Says what an experiment would do and take.

    Args:
        config: The training.
        data: Its samples.
        out: The experiment's folder.
        systems: What would be trained, and describe: baselines, DEPER, its ablations.
        max_new_tokens: The most tokens of a description.
        throughput: As measured.
        gpu_speedup: How many times as fast as there one GPU is taken to be; None: as fast, where it was a GPU, and
            `GPU_SPEEDUP` times as fast as a CPU.
    """
    if gpu_speedup is None:
        gpu_speedup = 1.0 if throughput.on_gpu else GPU_SPEEDUP
    if not gpu_speedup > 0:
        raise ConfigError(f"gpu_speedup: must be > 0, got {gpu_speedup!r}")
    targets = sum(sample.split in (TEST, QUERY) for sample in data.samples)
    lines, hours = [], 0.0
    for training in trainings(config, data.samples, systems, throughput):
        one = training.samples / (training.rate * gpu_speedup) / 3600
        hours += training.times * one
        times = f", {training.times} times" if training.times > 1 else ""
        lines.append(f"  {training.name}: {training.about}: {one:.2f} GPU hours{times}")
    return "\n".join(
        [
            f"{config.name}: what it would take; nothing was trained or written.",
            "",
            data.about,
            "",
            *_split_table(data.samples),
            "",
            "Training:",
            *lines,
            f"  in all {hours:.1f} GPU hours",
            f"  This assumes {throughput.stage1:.3g} samples/s in stage 1 and {throughput.stage2:.3g} in stage 2,",
            *_assumptions(throughput, gpu_speedup),
            "  Encoding each image once, evaluations on val and the descriptions are not in it.",
            "",
            f"Descriptions: {len(systems) * targets} of at most {max_new_tokens} tokens, {targets} by each system",
            "",
            *_disk(config, data, out, deper_trainings(systems)),
        ]
    )


def _assumptions(throughput: Throughput, gpu_speedup: float) -> list[str]:
    measured = f"  as measured by {throughput.measured}"
    if throughput.on_gpu and gpu_speedup == 1:
        return [f"{measured}."]
    machine = "GPU" if throughput.on_gpu else "machine"
    return [
        f"{measured},",
        f"  and, not measured, one GPU {gpu_speedup:g} times as fast as that {machine} (--gpu-speedup).",
    ]


def _limited(samples: Iterable[SplitSample], count: int | None) -> list[SplitSample]:
    """At most so many training samples of each person."""
    kept, taken = [], Counter[str]()
    for sample in samples:
        taken[sample.subject] += sample.split == TRAIN
        if count is None or sample.split != TRAIN or taken[sample.subject] <= count:
            kept.append(sample)
    return kept


def _split_table(samples: Sequence[SplitSample]) -> list[str]:
    rows = [("split", "people", "samples", "images")]
    for split in SPLITS:
        own = [sample for sample in samples if sample.split == split]
        people, images = ({getattr(sample, name) for sample in own} for name in ("subject", "image"))
        rows.append((split, str(len(people)), str(len(own)), str(len(images))))
    return [f"{split:<8}" + "".join(f"{cell:>10}" for cell in cells) for split, *cells in rows]


def _disk(config: TrainingConfig, data: PlannedData, out: Path, trainings: int) -> list[str]:
    """Bytes that would be written, and the room that there is."""
    images = len({sample.image for sample in data.samples})
    people = len({sample.subject for sample in data.samples if sample.split == TRAIN})
    parameters = sum(parameter.numel() for parameter in Deper(config.network, people).parameters())
    stages = [stage for stage in (config.stage1, config.stage2) if stage is not None]
    kept = sum(stage.keep_checkpoints * _CHECKPOINT + _WEIGHTS for stage in stages)
    features = images * (config.network.grid_size**2 * config.network.image_channels * 4 + _STAGE2_FEATURES)
    sizes: dict[str, float] = {
        f"{out / 'data' / SAMPLES}": data.size,
        f"checkpoints of {trainings} training{'' if trainings == 1 else 's'}": trainings * kept * parameters,
    }
    if config.feature_cache is not None:
        sizes[f"{config.feature_cache}: features of {images} images"] = features
    for model in (config.vlm, config.image_encoder):
        if model in _PUBLISHED_WEIGHTS:
            sizes[f"{model}, unless it was downloaded before"] = _PUBLISHED_WEIGHTS[model]
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    lines = [f"  {what}: {_gigabytes(size)}" for what, size in sizes.items()]
    lines.append(f"  in all {_gigabytes(sum(sizes.values()))}; {_gigabytes(free)} are free at {there}")
    if config.feature_cache is None and trainings:
        lines.append(
            f"  Without feature_cache, the features of {images} images are computed in every run and held in memory: "
            f"{_gigabytes(features)}"
        )
    return ["Disk:", *lines]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
