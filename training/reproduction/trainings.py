"""What an experiment would train, and how long that takes at a throughput that was measured."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import attrs

from training.baselines.mitr.fine_tuning import fine_tuning_settings
from training.baselines.run import BASELINES, CSMN, FINE_TUNED, LORA, MITR, SECTIONS
from training.config import ConfigError, MITRConfig, OptimisationConfig, TrainingConfig
from training.paths import RESULTS
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN, VAL

THROUGHPUT = RESULTS / "training-throughput-real.json"
"""Measured by `python -m benchmarks.training_throughput --real --vlm FOLDER --report docs/results`."""

_STAGE1, _STAGE2 = "stage 1, features from the cache", "stage 2, features cached, prefixes new"
_WHOLE_PROMPTS = "stage 2, plain: all anew, all with gradients"
"""Rows of that report; CSMN and MITR have one of their own name."""


class SplitSample(NamedTuple):
    """A sample, as far as the splits go."""

    subject: str
    image: str
    split: str


@attrs.frozen
class Throughput:
    """Training samples a second.

    Attributes:
        stage1: In stage 1, with image features from the cache.
        stage2: In stage 2, with image features from the cache.
        whole_prompts: Through the VLM with gradients of whole prompts, as LoRA takes them.
        csmn: Of CSMN.
        mitr: Of MITR, the base as well as one person's.
        measured: Where and how.
        on_gpu: Whether on a GPU.
    """

    stage1: float
    stage2: float
    whole_prompts: float
    csmn: float
    mitr: float
    measured: str
    on_gpu: bool

    @classmethod
    def read(cls, path: Path) -> "Throughput":
        """Reads a report of `benchmarks.training_throughput`.

        Raises:
            ConfigError: It is none.
        """
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            rates = {
                name: float(report["results"][row]["samples/s"]["value"])
                for name, row in (
                    ("stage1", _STAGE1),
                    ("stage2", _STAGE2),
                    ("whole_prompts", _WHOLE_PROMPTS),
                    ("csmn", CSMN),
                    ("mitr", MITR),
                )
            }
            facts = {name: report["facts"][name] for name in ("command", "batch", "threads")}
            device = report["facts"].get("device")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: is no report of the training throughput ({error!r}); write one by python -m "
                "benchmarks.training_throughput --real --vlm FOLDER --report DIR"
            ) from error
        where = f"with {facts['threads']} CPU threads" if device is None else f"on {device}"
        measured = f"{facts['command']} {where}, {facts['batch']} samples a batch"
        return cls(**rates, measured=measured, on_gpu=device is not None)


@attrs.frozen
class Training:
    """One thing that would be trained.

    Attributes:
        name: What it is.
        about: Its steps.
        samples: How many samples it goes through, each as often as it does.
        rate: Samples a second.
        times: How often it is trained.
    """

    name: str
    about: str
    samples: int
    rate: float
    times: int = 1

    @classmethod
    def of(
        cls,
        name: str,
        stage: OptimisationConfig,
        samples: int,
        rate: float,
        *,
        steps: int | None = None,
        times: int = 1,
    ) -> "Training":
        """A training on so many samples, with the steps of its settings or others."""
        steps = steps or stage.steps
        about = epochs(stage, samples, steps)
        return cls(name, about, steps * stage.batch_size * stage.accumulation, rate, times)


def epochs(stage: OptimisationConfig, samples: int, steps: int | None = None) -> str:
    """Says how many epochs of so many samples a training is on one device, with its own steps or others."""
    steps, batch = steps or stage.steps, stage.batch_size * stage.accumulation
    return f"{steps} steps of {batch} samples, {steps * batch / samples:.1f} epochs of {samples}"


def trainings(
    config: TrainingConfig, samples: Sequence[SplitSample], systems: Sequence[str], throughput: Throughput
) -> Iterator[Training]:
    """Everything that some systems would have trained.

    Args:
        config: The settings of all.
        samples: Those of the experiment.
        systems: Baselines, DEPER, its ablations.
        throughput: As measured.
    """
    training = sum(sample.split == TRAIN for sample in samples)
    if times := deper_trainings(systems):
        yield Training.of("stage 1", config.stage1, training, throughput.stage1, times=times)
        if config.stage2 is not None:
            yield Training.of("stage 2", config.stage2, training, throughput.stage2, times=times)
    for name in systems:
        if "prompt_tuning" in SECTIONS.get(name, ()) and (tuning := config.prompt_tuning) is not None:
            # Through the VLM, as stage 2.
            rate = throughput.whole_prompts if name == LORA else throughput.stage2
            yield Training.of(name, tuning, training, rate, steps=tuning.steps + tuning.unseen_steps)
    if CSMN in systems:
        yield Training.of(CSMN, config.csmn, training, throughput.csmn)
    if tracing := [name for name in (MITR, FINE_TUNED) if name in systems]:
        times = len(tracing) if config.mitr.base is None else 1
        yield Training.of("MITR, the base", config.mitr, training, throughput.mitr, times=times)
    if FINE_TUNED in systems:
        yield _fine_tuning(config.mitr, samples, throughput.mitr)


def deper_trainings(systems: Sequence[str]) -> int:
    """How often DEPER would be trained, whole and ablated."""
    return sum(system not in BASELINES for system in systems)


def _fine_tuning(config: MITRConfig, samples: Iterable[SplitSample], rate: float) -> Training:
    """The copies of MITR, one for each person who has targets."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        counts[sample.subject][sample.split] += 1
    own = [
        fine_tuning_settings(config, count[known], seen=known == TRAIN, validate=count[VAL] > 0)
        for count in counts.values()
        for known, target in ((TRAIN, TEST), (SUPPORT, QUERY))
        if count[known] and count[target]
    ]
    steps = sum(settings.steps for settings in own)
    passed = sum(settings.steps * settings.batch_size for settings in own)
    return Training(FINE_TUNED, f"{steps} steps for {len(own)} people, {passed} samples", passed, rate)
