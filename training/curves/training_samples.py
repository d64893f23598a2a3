"""How many samples of each person a training needs: DEPER trained anew on the first 25, 50, 100 and all of them.

A point differs from the others in its training samples alone: frozen parts, seed, steps, learning-rate schedule, `val`
and what is described are the same. The number of steps is kept and not that of epochs: a quarter of the samples in as
many epochs would also be a quarter of the updates, and a curve would show the effect of both at once. So few samples
are seen more often; where that overfits, `evaluate_every` keeps the best step on `val`. (`flickr30k-ln-100`, the
paper's own experiment with 100 samples a person, has the paper's number of epochs.)
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from pydeper import read_samples
from pydeper.files.atomic import atomic_path
from pydeper.readers.jsonl import sample_line
from pydeper.samples.sample import Sample
from training.baselines.run import DescriptionTask
from training.config import ConfigError, TrainingConfig, load_config
from training.curves.points import INPUTS, Curve, Point, chosen_counts, command, input_folder, scorer
from training.evaluation.describe import TRAINING_SAMPLES
from training.evaluation.evaluate import ScoreSettings
from training.evaluation.predictions import Prediction, References, read_predictions
from training.outputs import OutputError, exists, output_folder
from training.preparation.prepared_folder import SAMPLES
from training.preparation.splits import QUERY, TEST, TRAIN
from training.reproduce import describe, train_deper
from training.reproduction.checks import check_samples

COUNTS = (25, 50, 100)
ALL = "all"
CURVE = Curve(
    kind="training-curve",
    title="Training samples of each person",
    x_label="training samples per person (mean)",
)


def run(
    config_file: Path,
    changes: Sequence[str],
    out: Path,
    report: Path,
    scoring: ScoreSettings,
    *,
    counts: Sequence[int] | None = None,
    dataset: str | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 16,
) -> None:
    """Trains and describes at each point, and reports; a finished point is not repeated.

    Args:
        config_file: The training on all samples.
        changes: Changes to it, as after `--set`.
        out: Keeps a folder for each point: its samples, both stages, and the predictions with each kind of persona.
        report: Gets the JSON files, tables and charts.
        scoring: How descriptions are scored.
        counts: The most training samples of each person, a point each, before the point of all; None: those of `COUNTS`
            that somebody has more than.
        dataset: What to call the data set, see `References.of`.
        max_new_tokens: The most tokens of a description (paper: 512).
        batch_size: Targets at a time.

    Raises:
        ConfigError: The configuration cannot be used.
        InvalidArgumentError: A number of samples is not below that of the person with the most.
        OutputError: The folder of a point holds other samples, or that of the reports other files.
        PydeperError: Of the file or the training that is at fault.
    """
    config = load_config(TrainingConfig, config_file, changes)
    if config.stage2 is None:
        raise ConfigError(f"{config_file}: stage2: missing; add a table [stage2] with its settings, at least steps")
    samples = read_samples(config.samples, check_durations=config.check_durations)
    check_samples(config, [(sample.subject, sample.split) for sample in samples], trains_deper=True)
    references = References.of(Path(config.samples), samples, dataset)
    datasets = {references.dataset_of(sample): None for sample in samples if sample.split in (TEST, QUERY)}
    CURVE.check(report, list(datasets), scoring.metrics)
    points: dict[str, list[Point]] = {name: [] for name in datasets}
    for label, count in labelled_counts(max(_per_person(samples).values()), counts):
        print(f"{label} training samples of each person", flush=True)
        folder = out / f"{label}-samples"
        own = first_training_samples(samples, count)
        _keep_samples(folder, own)
        point = attrs.evolve(config, samples=str(folder / SAMPLES))
        train_deper(point, folder)
        task = DescriptionTask.load(point, references.name)
        answers = {
            name: read_predictions(
                describe(
                    name,
                    task,
                    folder,
                    input_folder(folder, name),
                    without=without,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                )
            )
            for name, without in INPUTS.items()
        }
        for group in points:
            per_person = _per_person(own).values()
            points[group].append(Point(label, sum(per_person) / len(per_person), of_dataset(answers, group)))
    facts = {
        "command": command("training", counts, changes),
        "configuration": config.name,
        "seed": config.seed,
        **_facts(config, max_new_tokens),
    }
    for group, own_points in points.items():
        CURVE.write(report, group, own_points, scorer(scoring), facts)


def _keep_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """Writes the samples of a point, whose folder must not hold a point of others."""
    path = folder / SAMPLES
    lines = b"".join(sample_line(sample, number, folder.resolve()) for number, sample in enumerate(samples))
    if exists(path) and path.read_bytes() != lines:
        raise OutputError(
            f"{path}: holds other samples than the configuration's, and what is beside it was trained on them; name "
            "another folder for the output, or delete that one"
        )
    with output_folder(folder), atomic_path(path) as temporary:
        temporary.write_bytes(lines)


def labelled_counts(
    most: int, asked: Sequence[int] | None, default: Sequence[int] = COUNTS
) -> list[tuple[str, int | None]]:
    """The points, by their names: so many training samples of each person, and last all of them (None).

    Args:
        most: Training samples of the person with the most.
        asked: See `run`.
        default: The points where none is asked for.

    Raises:
        InvalidArgumentError: See `chosen_counts`.
    """
    why = f"nobody has more than {most} training samples, and all of them are a point of their own"
    return [*((str(count), count) for count in chosen_counts(asked, default, most - 1, why)), (ALL, None)]


def first_training_samples(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """The samples without those of "train" that come after a person's first `count`; None: all."""
    taken, kept = Counter[str](), []
    for sample in samples:
        taken[str(sample.subject)] += sample.split == TRAIN
        if sample.split != TRAIN or count is None or taken[str(sample.subject)] <= count:
            kept.append(sample)
    return kept


def of_dataset(answers: dict[str, list[Prediction]], dataset: str) -> dict[str, list[list[Prediction]]]:
    """The predictions of one data set, as those of a point that was made once."""
    return {name: [[row for row in rows if row.dataset == dataset]] for name, rows in answers.items()}


def _per_person(samples: Sequence[Sample]) -> Counter[str]:
    return Counter(str(sample.subject) for sample in samples if sample.split == TRAIN)


def _facts(config: TrainingConfig, max_new_tokens: int) -> dict[str, Any]:
    assert config.stage2 is not None
    return {
        "trainings": f"one at each point, stage 1 in {config.stage1.steps} steps and stage 2 in {config.stage2.steps}",
        "modality dropout": f"{config.stage1.modality_dropout} in stage 1, {config.stage2.modality_dropout} in stage 2"
        + ("" if config.stage1.modality_dropout else "; so training has seen neither text nor gaze alone"),
        "personas": f"of seen people, from their first {TRAINING_SAMPLES} training samples at most",
        "decoding": f"greedy, at most {max_new_tokens} tokens",
        "intervals": "95 %, bootstrap over people (HC: over images); they say nothing of how trainings differ",
    }
