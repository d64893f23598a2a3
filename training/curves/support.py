"""How many samples a persona needs: a model describes with personas made from 1, 2, 3, … samples of each person.

Each number is drawn several times, without replacement, and the draws of more samples contain those of fewer. The model
is used through the SDK, and nothing is trained.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from tqdm import tqdm

from pydeper import DeperModel, Persona, read_samples
from pydeper.bundle import bundle
from pydeper.bundle.layout import MANIFEST
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.sample import Sample
from training.baselines.targets import Person, people_of
from training.config import positive
from training.curves.points import INPUTS, Curve, Point, Score, chosen_counts, command, scorer
from training.evaluation.describe import BATCH_SIZE
from training.evaluation.evaluate import ScoreSettings, file_name
from training.evaluation.predictions import Prediction, PredictionsFile, References
from training.outputs import output_folder
from training.preparation.splits import QUERY, TEST
from training.seeding import step_generator

COUNTS = (1, 2, 3, 5, 10, 20)
CURVE = Curve(kind="support-curve", title="Samples that a persona is made from", x_label="samples of a persona")
_MODALITIES = {None: "text+trajectory", "trajectory": "text", "text": "trajectory"}


@attrs.frozen(kw_only=True)
class SupportSettings:
    """Which personas are made, and how they describe.

    Attributes:
        counts: Samples of a persona, a point each; None: those of `COUNTS` that everybody has.
        draws: Of each number of samples.
        seed: Of the draws.
        style: Prompt style.
        max_new_tokens: Longest description (paper: 512).
    """

    counts: tuple[int, ...] | None = None
    draws: int = attrs.field(default=3, validator=positive)
    seed: int = 0
    style: str = "description"
    max_new_tokens: int = attrs.field(default=512, validator=positive)


@attrs.frozen(eq=False)
class Describer:
    """A model, and the personas that it describes with.

    Attributes:
        model: The model.
        identity: What its descriptions depend on, as plain JSON.
        settings: See there.
        people: Whom it describes for, and what they are known from.
        most: The most samples of a persona.
    """

    model: DeperModel
    identity: Mapping[str, Any]
    settings: SupportSettings
    people: Sequence[Person]
    most: int

    @cached_property
    def orders(self) -> dict[str, list[np.ndarray]]:
        """Person -> for each draw, the numbers of their samples in the order drawn."""
        return {
            person.name: [
                step_generator(self.settings.seed, draw, *person.name.encode()).permutation(len(person.known))
                for draw in range(self.settings.draws)
            ]
            for person in self.people
        }

    @cached_property
    def inputs(self) -> dict[str, str | None]:
        """Those of `INPUTS` that the model accepts."""
        accepted = self.model.config.persona_encoder.modalities
        return {name: without for name, without in INPUTS.items() if _MODALITIES[without] in accepted}

    @cached_property
    def subject_embeddings(self) -> dict[tuple[str, str], np.ndarray]:
        """(Person, input) -> (samples, 384) the z_s of their samples; of those that no draw takes, nothing is known."""
        found = {}
        for person in tqdm(self.people, desc="subject embeddings", unit=" people", mininterval=1.0, disable=None):
            drawn = np.unique([order[: self.most] for order in self.orders[person.name]])
            for name, without in self.inputs.items():
                vectors = self.model.embed([withhold(person.known[number], without) for number in drawn])
                whole = np.full((len(person.known), vectors.shape[1]), np.nan)
                whole[drawn] = vectors
                found[person.name, name] = whole
        return found

    def persona(self, person: str, name: str, draw: int, count: int) -> Persona:
        """The mean z_s of the first samples of a draw."""
        chosen = self.subject_embeddings[person, name][self.orders[person][draw][:count]]
        return Persona(
            subject_embedding=chosen.mean(axis=0),
            encoder_fingerprint=self.model.config.persona_encoder.fingerprint,
            model_id=self.model.model_id,
            num_samples=count,
            name=person,
        )

    def answers(self, folder: Path, count: int, draw: int) -> dict[str, list[Prediction]]:
        """Input -> what is described with personas of so many samples; goes on where an interrupted run left off."""
        targets = sorted(
            ((person.name, target) for person in self.people for target in person.targets),
            key=lambda pair: (pair[1].pending.image, pair[0]),
        )
        asked = [(target.sample.image, person, name) for person, target in targets for name in self.inputs]
        pending = [attrs.evolve(target.pending, system=name) for _, target in targets for name in self.inputs]
        file = PredictionsFile(folder, {**self.identity, "samples of a persona": count, "draw": draw}, pending)
        style, most = self.settings.style, self.settings.max_new_tokens
        with (
            output_folder(folder),
            tqdm(total=len(asked), initial=len(file.done), desc=folder.name, mininterval=1.0, disable=None) as bar,
        ):
            while rest := asked[len(file.done) :][:BATCH_SIZE]:
                pairs = [(image, self.persona(person, name, draw, count)) for image, person, name in rest]
                file.append(self.model.describe_batch(pairs, style=style, max_new_tokens=most))
                bar.update(len(rest))
            file.finish()
        return {name: [row for row in file.done if row.system == name] for name in self.inputs}


def withhold(sample: Sample, modality: str | None) -> Sample:
    """The sample without its description ("text") or its trajectory ("trajectory")."""
    field = {None: None, "text": "description", "trajectory": "trajectory"}[modality]
    return sample if field is None else attrs.evolve(sample, **{field: None})


def run(
    model: str,
    samples: Path,
    out: Path,
    report: Path,
    settings: SupportSettings,
    scoring: ScoreSettings,
    *,
    splits: Sequence[str] = (TEST, QUERY),
    dataset: str | None = None,
    check_durations: bool = True,
) -> None:
    """Makes the curves of a samples file: of people seen in training, of unseen people, or of both.

    Args:
        model: Hub id, folder, or "tiny".
        samples: The samples file. Seen people's personas are made from the split "train", unseen people's from
            "support".
        out: Keeps the descriptions, one folder for each number of samples and draw.
        report: Gets the JSON files, tables and charts.
        settings: Which personas, and how they describe.
        scoring: How descriptions are scored.
        splits: What is described: "test" (seen people), "query" (unseen ones), or both.
        dataset: What to call the data set, see `References.of`.
        check_durations: See `pydeper.read_samples`.

    Raises:
        InvalidArgumentError: A split is none of these, or somebody has fewer samples than a number that was asked for,
            or the folder holds other descriptions.
        PydeperError: Of the file, sample, bundle or setting that is at fault.
    """
    if wrong := [split for split in splits if split not in (TEST, QUERY)]:
        raise InvalidArgumentError(f"splits: {wrong[0]!r} is none of {TEST}, {QUERY}")
    everything = read_samples(samples, check_durations=check_durations)
    everybody = people_of(everything, References.of(samples, everything, dataset))
    people = [person for person in everybody if (TEST if person.seen else QUERY) in splits]
    if not people:
        raise InvalidArgumentError(f"{samples}: nobody has samples of split {' or '.join(map(repr, splits))}")
    identity = {"samples": hashlib.sha256(samples.read_bytes()).hexdigest()}
    facts = {"command": command("support", settings.counts)}
    support_curves(model, people, out, report, settings, scorer(scoring), scoring.metrics, identity, facts)


def support_curves(
    model: str,
    people: Sequence[Person],
    out: Path,
    report: Path,
    settings: SupportSettings,
    score: Score,
    metrics: Sequence[str],
    identity: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Describes and reports, data set by data set.

    Args:
        model: See `run`.
        people: Whom it describes for, of any number of data sets.
        out: See `run`.
        report: See `run`.
        settings: See `run`.
        score: Scores a point.
        metrics: What it scores.
        identity: What tells these people's samples from others.
        facts: What the reports say first.
    """
    groups: dict[str, list[Person]] = {}
    left_out: Counter[str] = Counter()
    for person in people:
        dataset, complete = person.targets[0].pending.dataset, _complete(person)
        groups.setdefault(dataset, []).append(complete)
        left_out[dataset] += len(person.known) - len(complete.known)
    counts = {}
    for dataset, group in groups.items():
        fewest = min(group, key=lambda person: len(person.known))
        why = f"{fewest.name!r} ({dataset}) has {len(fewest.known)} samples to be known from"
        counts[dataset] = chosen_counts(settings.counts, COUNTS, len(fewest.known), why)
    CURVE.check(report, list(groups), metrics)
    opened = bundle.open_bundle(model)
    deper = DeperModel(opened)
    identity = {
        **identity,
        "bundle": deper.model_id,
        "manifest": hashlib.sha256((opened.folder / MANIFEST).read_bytes()).hexdigest(),
        **attrs.asdict(settings, filter=lambda field, _: field.name not in ("counts", "draws")),
    }
    for dataset, group in groups.items():
        describer = Describer(deper, identity, settings, group, max(counts[dataset]))
        points = []
        for count in counts[dataset]:
            # Of all samples of everybody, every draw is the same.
            draws = 1 if all(len(person.known) == count for person in group) else settings.draws
            folder = out / file_name(dataset) / f"{count}-samples"
            drawn = [describer.answers(folder / f"draw-{draw}", count, draw) for draw in range(draws)]
            points.append(Point(str(count), count, {name: [own[name] for own in drawn] for name in describer.inputs}))
        CURVE.write(report, dataset, points, score, {**facts, **_facts(describer, left_out[dataset])})


def _complete(person: Person) -> Person:
    """The person with those of their samples that have a trajectory as well: all inputs are of the same samples."""
    known = tuple(sample for sample in person.known if sample.trajectory is not None)
    if not known:
        raise InvalidSampleError(
            f"{person.known[0].source or person.name}: trajectory: missing in all samples that {person.name!r} is "
            "known from; a curve compares personas from text, from gaze and from both"
        )
    return attrs.evolve(person, known=known)


def _facts(describer: Describer, left_out: int) -> dict[str, Any]:
    settings = describer.settings
    facts = {
        "model": describer.model.model_id,
        "people": len(describer.people),
        "descriptions": f"{sum(len(person.targets) for person in describer.people)} at each point and draw",
        "draws": f"{settings.draws} of each number of samples, seed {settings.seed}; 1 where it is all of them",
        "decoding": f"greedy, at most {settings.max_new_tokens} tokens, style {settings.style!r}",
        "intervals": "95 %, bootstrap over people, all draws of a person together (HC: over images)",
    }
    if left_out:
        facts["left out"] = f"{left_out} samples that have no trajectory to make a persona from"
    if missing := [name for name in INPUTS if name not in describer.inputs]:
        facts["no " + ", ".join(missing)] = "the model was trained on whole samples, and accepts no others"
    return facts
