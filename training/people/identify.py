"""`python -m training identify`: whose samples are these? Of people seen in training and of new ones, with reports."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from training.config import NoiseConfig, TrainingConfig
from training.distributed.process_group import open_accelerator
from training.evaluation.bootstrap import Interval
from training.evaluation.report import check_reports, command_line, format_table, write_report
from training.people import new_people, seen_people
from training.people.accuracy import DEPER, DEPER_AND_CLASSICAL, Table
from training.people.experiment import MOST_SAMPLES, SHRINKAGE, Experiment
from training.people.held_out import Fold, photograph_folds
from training.people.score_fusion import MODALITIES
from training.people.seen_people import CLASSICAL, rounded, select_model

REPEATED = "held-out descriptions that the same person also gave in the training, word for word"
"""The fact that says how many there are, where there are any: a text row then measures memory as well."""


@attrs.frozen(kw_only=True)
class Protocols:
    """What is measured beside the fixed split.

    Attributes:
        selection_folds: Folds of the cross-validation within the training split that selects the model.
        folds: For each K: K-fold cross-validation over all photographs.
        new_people: How many people at a time are new and enrolled; 0: none.
        draws: Random enrolments of each group of new people.
        trainings: How many trainings make DEPER's ensemble; 1: a single training.
    """

    selection_folds: int
    folds: Sequence[int] = ()
    new_people: int = 0
    draws: int = 100
    trainings: int = 1

    def suffixes(self) -> list[str]:
        """How the names of the reports end."""
        return ["split", *(f"{k}-folds" for k in self.folds), *(["new-people"] if self.new_people else [])]

    def options(self) -> list[str]:
        """As the command line has them."""
        options = ["--selection-folds", self.selection_folds]
        options += ["--folds", *self.folds] if self.folds else []
        options += ["--new-people", self.new_people, "--draws", self.draws] if self.new_people else []
        options += ["--trainings", self.trainings] if self.trainings > 1 else []
        return [str(option) for option in options]


@attrs.frozen
class Outcome:
    """What one report says.

    Attributes:
        verdict: See `verdict`; it ends the report's first line.
        facts: What else there is to know.
        rows: Its table.
    """

    verdict: str
    facts: Mapping[str, Any]
    rows: Table


def run(
    config: TrainingConfig, folder: Path, report: Path, protocols: Protocols, changes: Sequence[str] = ()
) -> dict[str, Outcome]:
    """Selects, trains, measures and reports.

    Args:
        config: The training.
        folder: Keeps checkpoints: `split` (the training split), `selection`, `folds-K` and `new-people`.
        report: Gets `NAME-split.json` and `.md` of the fixed split, `NAME-K-folds.*` of each cross-validation, and
            `NAME-new-people.*`.
        protocols: What is measured.
        changes: Settings that were changed on the command line, for the reports.

    Returns:
        How a report's name ends -> what it says.

    Raises:
        InvalidArgumentError: A protocol does not fit the samples.
        InvalidSampleError: See `Experiment.load`.
        MissingRequirementError: scikit-learn or SciPy is not installed.
        OutputError: The folder of the reports holds other files of their names.
    """
    check_reports(report, [f"{config.name}-{suffix}" for suffix in protocols.suffixes()])
    experiment = Experiment.load(config, protocols.trainings)
    training, image_of = experiment.is_training, experiment.data.image_of
    # All folds and groups are drawn before anything is trained, so that what is impossible is refused at once.
    folds = {k: photograph_folds(image_of, k, within=np.ones_like(training)) for k in protocols.folds}
    size, draws = protocols.new_people, protocols.draws
    groups = new_people.draw_groups(experiment, size, MOST_SAMPLES, draws) if size else []
    selection = select_model(experiment, protocols.selection_folds, folder / "selection")
    common = {
        "command": _command(protocols, changes),
        "people": len(experiment.data.subjects),
        "intervals": "95 %, bootstrap over people",
        "DEPER": _summary(experiment.config, protocols.trainings, open_accelerator(cpu=True).mixed_precision),
    }

    outcomes: dict[str, Outcome] = {}

    def write(suffix: str, protocol: str, others: Sequence[str], facts: dict[str, object], rows: Table) -> None:
        facts = {"protocol": protocol, **common, **facts}
        behind = verdict(rows, others)
        title = f"Subject identification: {config.name}, {protocol}{behind}"
        write_report(report, f"{config.name}-{suffix}", rows, title=title, facts=facts)
        print(f"\n{title}\n{format_table(rows)}")
        outcomes[suffix] = Outcome(behind, facts, rows)

    def closed_set(suffix: str, protocol: str, divisions: Sequence[Fold], checkpoints: Path) -> None:
        facts = {
            "chance": round(1 / len(experiment.data.subjects), 4),
            "samples, training / held out": [
                [int(fold.training.sum()), int(fold.held_out.sum())] for fold in divisions
            ],
            **_left_out(experiment, divisions),
            **_repeated(experiment, divisions),
            **selection.facts(),
        }
        write(suffix, protocol, [CLASSICAL], facts, seen_people.measure(experiment, selection, divisions, checkpoints))

    closed_set("split", "fixed split", [Fold(training, ~training)], folder / "split")
    for k, divisions in folds.items():
        closed_set(f"{k}-folds", f"{k} folds over photographs", divisions, folder / f"folds-{k}")
    if groups:
        rows, weights = new_people.measure(
            experiment, groups, selection.regularisation, selection.schedule, folder / "new-people"
        )
        facts = {
            "chance": round(1 / size, 4),
            "samples that enrol": MOST_SAMPLES,
            "draws of each group": draws,
            "chosen within the training split": str(selection.schedule),
            "weights of DEPER's views, fitted to the other groups, mean": rounded(weights),
        }
        write("new-people", f"{size} new people at a time", new_people.CLASSICAL, facts, rows)
    return outcomes


def verdict(rows: Table, others: Sequence[str]) -> str:
    """Says in a title where "text + gaze" of DEPER, or of DEPER and the classical classifiers, is behind others.

    Returns:
        "", or "; DEPER is behind …", from every number of samples from which it is.
    """
    said = []
    for system in (DEPER, DEPER_AND_CLASSICAL):
        figures = {name: rows.get(f"{name}, text + gaze", {}) for name in (system, *others)}
        for samples, own in figures[system].items():
            for other in others:
                theirs = figures[other][samples]
                if isinstance(own, Interval) and isinstance(theirs, Interval) and own.estimate < theirs.estimate:
                    pair = f"{own.estimate:.3f} against {theirs.estimate:.3f}"
                    said.append(f"; {system} is behind {other} from {samples}, {pair}")
    return "".join(said)


def _left_out(experiment: Experiment, divisions: Sequence[Fold]) -> dict[str, object]:
    """How many held-out samples each row leaves out: they, or their people's training samples, lack what it reads."""
    subject_of, left_out = experiment.data.subject_of, {}
    for row in MODALITIES:
        readable = [fold.readable(experiment.has(row), subject_of) for fold in divisions]
        left_out[row] = sum(int((a.held_out & ~b.held_out).sum()) for a, b in zip(divisions, readable, strict=True))
    return {"held-out samples left out for what they lack, by row": left_out} if any(left_out.values()) else {}


def _repeated(experiment: Experiment, divisions: Sequence[Fold]) -> dict[str, object]:
    """How many of the held-out descriptions are `REPEATED`."""
    given = [(sample.subject, sample.description) for sample in experiment.samples]
    repeated = 0
    for fold in divisions:
        known = set(itertools.compress(given, fold.training))
        held_out = itertools.compress(given, fold.held_out)
        repeated += sum(
            description is not None and (subject, description) in known for subject, description in held_out
        )
    return {REPEATED: repeated} if repeated else {}


def _command(protocols: Protocols, changes: Sequence[str]) -> str:
    """The command line as a report shows it, without the places of files."""
    words = ["python", "-m", "training", "identify", "--data", "FOLDER", "--out", "FOLDER", *protocols.options()]
    return command_line(words, [change for change in changes if not change.startswith("samples=")])


def _summary(config: TrainingConfig, trainings: int, mixed_precision: str) -> str:
    """The settings that matter most, in one line."""
    network, stage = config.network, config.stage1
    virtual = stage.virtual_people
    last = config.seed + trainings - 1
    seeds = f"seed {config.seed}" if trainings == 1 else f"{trainings} trainings, seeds {config.seed} to {last}"
    extras = ["kinematics"] if network.kinematics else []
    extras += [f"word order {network.word_order}"] if network.word_order else []
    extras += ["every view"] if stage.every_view else [f"modality dropout {stage.modality_dropout}"]
    if stage.noise != NoiseConfig():
        extras.append(f"noise {stage.noise.words} / {stage.noise.boxes} / {stage.noise.durations}")
    if virtual.weight:
        extras.append(f"{virtual.people} virtual people of {virtual.samples} samples, weight {virtual.weight}")
    if mixed_precision != "no":
        extras.append(f"mixed precision {mixed_precision}")
    return (
        f"{config.image_encoder} at {config.image_size} pixels, {config.vlm}, D {network.hidden_size}, "
        f"z_s {network.subject_embedding_size}, layers {network.encoder_layers} + {network.decoder_layers}, dropout "
        f"{network.dropout}, batches of {stage.batch_size * stage.accumulation} samples, at most "
        f"{config.max_description_tokens} tokens and {network.max_fixations} fixations, rate "
        f"{stage.learning_rate}, decay {stage.weight_decay}, λ {stage.contrastive_weight}, weight of L_traj "
        f"{stage.trajectory_weight}, {', '.join(extras)}, shrinkage {SHRINKAGE}, {seeds}"
    )
