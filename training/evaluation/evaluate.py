"""`python -m training evaluate`: describes a samples file through the SDK, scores descriptions, and reports.

What a bundle describes goes to `OUT/predictions.jsonl`; an interrupted run goes on where it stopped. Every data set
gets a table of the systems side by side (`OUT/NAME.json`, `.md`, `.png`) and one of the people (`OUT/NAME-people.json`,
`.md`). People seen in training and unseen people are two data sets, as in the paper.
"""

import contextlib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from tqdm import tqdm  # type: ignore[import-untyped]

from pydeper import DeperModel, Persona, Sample, read_samples
from pydeper.bundle import bundle
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from training.evaluation.chart import write_chart
from training.evaluation.predictions import (
    Prediction,
    PredictionsFile,
    References,
    by_dataset,
    image_name,
    read_predictions,
)
from training.evaluation.report import format_table, write_report
from training.evaluation.scores import METRICS, Scores, score_systems
from training.metrics.meteor import one_program
from training.metrics.tokenization import Tokenizer
from training.metrics.wordnet import Lemmas, Source, nltk_lemmas, wordnet_lemmas
from training.preparation.splits import QUERY, SEEN_SPLITS, SPLITS, SUPPORT, TEST, TRAIN, UNSEEN_SPLITS, VAL

ASKED_SPLITS = (VAL, TEST, QUERY)
TRAINING_SAMPLES = 100
"""Most training samples that the persona of a seen person is the mean of (paper: 100)."""

_AT_ONCE = 32


@attrs.frozen(kw_only=True)
class Describing:
    """What a bundle is asked.

    Attributes:
        bundle: Hub id, folder, or "tiny".
        splits: Of which parts of the samples file the images are described, see `training.preparation.splits`.
        style: Prompt style.
        max_new_tokens: Longest description (paper: 512).
        zero_shot: Also let the bundle's VLM describe without a persona, as a system of its own.
    """

    bundle: str
    splits: tuple[str, ...] = (TEST, QUERY)
    style: str = "description"
    max_new_tokens: int = 512
    zero_shot: bool = False


@attrs.frozen(kw_only=True)
class Scoring:
    """How descriptions are scored.

    Attributes:
        metrics: Some of `scores.METRICS`.
        tokenizer: See `tokenization.Tokenizer`.
        wordnet: Where OSS has its synonyms from.
    """

    metrics: tuple[str, ...] = METRICS
    tokenizer: Tokenizer = "ptb"
    wordnet: Source = "meteor"

    def lemmas(self) -> Lemmas:
        """WordNet's lemmas from the source chosen."""
        return wordnet_lemmas() if self.wordnet == "meteor" else nltk_lemmas()


def run(
    folder: Path,
    scoring: Scoring,
    *,
    files: Sequence[Path] = (),
    samples: Path | None = None,
    describing: Describing | None = None,
    dataset: str | None = None,
) -> None:
    """Describes, where there is a bundle to ask; reads further predictions; scores all side by side and reports.

    Args:
        folder: Gets predictions, tables and pictures; made where it is missing.
        scoring: How.
        files: Predictions files.
        samples: Samples file; holds the references of predictions that have none, and what a bundle is asked.
        describing: The bundle and what it is asked.
        dataset: What to call the samples' data set, see `References.of`.

    Raises:
        PydeperError: Of the file, line, sample or setting that is at fault.
    """
    if not files and describing is None:
        raise InvalidArgumentError(
            "there is nothing to evaluate; name predictions (--predictions) or a model (--bundle)"
        )
    if describing is not None and samples is None:
        raise InvalidArgumentError("a model describes the images of a samples file; name one (--samples)")
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, object] = {}
    predictions: list[Prediction] = []
    references = None
    if samples is not None:
        people = read_samples(samples)
        references = References.of(samples, people, dataset)
        if describing is not None:
            described, facts = describe(describing, people, references, folder)
            predictions += described
    for file in files:
        predictions += read_predictions(file, references)
    report(predictions, scoring, folder, facts)


# --- describing


def describe(
    asked: Describing, samples: Sequence[Sample], references: References, folder: Path
) -> tuple[list[Prediction], dict[str, object]]:
    """Lets a bundle describe the images of a samples file, each for the person who described it.

    A seen person's persona is the mean over their first `TRAINING_SAMPLES` samples of split "train", an unseen person's
    over their samples of split "support".

    Args:
        asked: The bundle and what it is asked.
        samples: All samples of the file.
        references: Their index.
        folder: Gets `predictions.jsonl`, whole at the end; `predictions.partial.jsonl` and
            `predictions.settings.json` make an interrupted run go on.

    Returns:
        The predictions, and what a report should say of them.

    Raises:
        InvalidSampleError: Nobody is to be described for, or somebody without samples to make a persona from.
        InvalidArgumentError: A setting is not one of the model's, or the folder holds other predictions.
        BundleError: The bundle cannot be opened.
    """
    if wrong := [split for split in asked.splits if split not in ASKED_SPLITS]:
        raise InvalidArgumentError(f"splits: {wrong[0]!r} is none of {', '.join(ASKED_SPLITS)}")
    targets, left_out = _targets(samples, asked.splits, references.path)
    support = _support(samples, {str(target.subject) for target in targets}, references.path)
    opened = bundle.open_bundle(asked.bundle)
    model = DeperModel(opened)
    questions = _questions(targets, model.model_id, True, references)
    if asked.zero_shot:
        questions += _questions(targets, f"{model.model_id}, no persona", False, references)
    settings = attrs.asdict(asked) | {
        "bundle": model.model_id,
        "manifest": hashlib.sha256((opened.folder / bundle.MANIFEST).read_bytes()).hexdigest(),
        "samples": hashlib.sha256(references.path.read_bytes()).hexdigest(),
    }
    predictions = PredictionsFile(folder, settings, [question.unanswered for question in questions])
    if rest := questions[len(predictions.done) :]:
        personas = {subject: Persona.from_samples(own, model=model) for subject, own in support.items()}
        _answer(rest, model, personas, asked, predictions)
    predictions.finish()
    facts: dict[str, object] = {
        "model": f"{model.model_id}, persona encoder {model.config.persona_encoder.fingerprint[:19]}",
        "personas": _persona_facts(support),
        "decoding": f"greedy, at most {asked.max_new_tokens} tokens, style {asked.style!r}",
    }
    if left_out:
        facts["left out"] = f"{left_out} {'sample' if left_out == 1 else 'samples'} without a description"
    return predictions.done, facts


@attrs.frozen
class _Question:
    """What is asked of the model: an image, for a person or (None) for nobody, and the prediction that will hold it."""

    image: str
    person: str | None
    unanswered: Prediction


def _questions(targets: Sequence[Sample], system: str, steered: bool, references: References) -> list[_Question]:
    questions = []
    for target in targets:
        subject = str(target.subject)
        unanswered = Prediction(
            dataset=references.dataset_of(target),
            system=system,
            image=image_name(target.image, references.path.parent),
            subject=subject,
            prediction="",
            reference=str(target.description),
        )
        questions.append(_Question(str(target.image), subject if steered else None, unanswered))
    return questions


def _answer(
    questions: Sequence[_Question],
    model: DeperModel,
    personas: Mapping[str, Persona],
    asked: Describing,
    predictions: PredictionsFile,
) -> None:
    done = len(predictions.done)
    with tqdm(total=done + len(questions), initial=done, unit="description", disable=None) as progress:
        for start in range(0, len(questions), _AT_ONCE):
            chunk = [(question.image, question.person) for question in questions[start : start + _AT_ONCE]]
            once = list(dict.fromkeys(chunk))  # without a persona, an image has one description for all its people
            texts = model.describe_batch(
                [(image, None if person is None else personas[person]) for image, person in once],
                style=asked.style,
                max_new_tokens=asked.max_new_tokens,
            )
            answers = dict(zip(once, texts, strict=True))
            predictions.append([answers[question] for question in chunk])
            progress.update(len(chunk))


def _targets(samples: Sequence[Sample], splits: Sequence[str], path: Path) -> tuple[list[Sample], int]:
    """The samples to describe, those of one image together, and how many have nothing to compare with."""
    asked = [sample for sample in samples if sample.split in splits]
    targets = [sample for sample in asked if sample.description is not None]
    if not targets:
        found = ", ".join(f"{split}: {count}" for split, count in Counter(sample.split for sample in samples).items())
        raise InvalidSampleError(
            f"{path}: holds no described sample of split {' or '.join(map(repr, splits))} (samples by split: {found}); "
            "choose others (--splits), or divide the samples into parts"
        )
    targets.sort(key=lambda sample: (str(sample.image), str(sample.subject)))
    return targets, len(asked) - len(targets)


def _support(samples: Sequence[Sample], people: set[str], path: Path) -> dict[str, list[Sample]]:
    """For each person, the samples that the persona is made from."""
    by_split: dict[str, dict[str | None, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise InvalidSampleError(f"{sample.source}: split: {sample.split!r} is none of {', '.join(SPLITS)}")
        by_split[str(sample.subject)][sample.split].append(sample)
    support = {}
    for person in sorted(people):
        own = by_split[person]
        seen, unseen = ([split for split in splits if split in own] for splits in (SEEN_SPLITS, UNSEEN_SPLITS))
        if seen and unseen:
            raise InvalidSampleError(
                f"{path}: subject {person!r} has samples of split {seen[0]!r} and {unseen[0]!r}; nobody is both "
                "seen in training and unseen"
            )
        split = TRAIN if seen else SUPPORT
        if not own[split]:
            raise InvalidSampleError(
                f"{path}: subject {person!r} has no sample of split {split!r} to make a persona from; add some"
            )
        support[person] = own[split][:TRAINING_SAMPLES] if seen else own[split]
    return support


def _persona_facts(support: Mapping[str, Sequence[Sample]]) -> str:
    kinds = []
    for name, split in (("seen", TRAIN), ("unseen", SUPPORT)):
        sizes = [len(own) for own in support.values() if own[0].split == split]
        if sizes:
            spread = str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            kinds.append(f"{len(sizes)} {name} people, from {spread} {split} samples each")
    return "; ".join(kinds)


# --- scoring and reporting


def report(predictions: Sequence[Prediction], scoring: Scoring, folder: Path, facts: Mapping[str, object]) -> None:
    """Scores predictions, data set by data set, and writes tables and pictures into the folder.

    Raises:
        InvalidArgumentError: The systems of a data set were not asked the same.
        MissingRequirementError: Something that a metric needs is not installed.
    """
    datasets = by_dataset(predictions)
    names = {dataset: re.sub(r"\W+", "-", dataset).strip("-").lower() or "dataset" for dataset in datasets}
    if len(set(names.values())) < len(names):
        raise InvalidArgumentError(f"data sets {', '.join(map(repr, names))} would share a file name; rename one")
    with one_program() if "METEOR" in scoring.metrics else contextlib.nullcontext():
        scored = {dataset: _score(systems, scoring) for dataset, systems in datasets.items()}
    for dataset, scores in scored.items():
        systems = datasets[dataset]
        rows = next(iter(systems.values()))
        about = {"command": "python -m training evaluate", **_counts(rows), **facts, **_methods(scoring, scores)}
        name = names[dataset]
        write_report(folder, name, scores.systems, title=dataset, facts=about)
        people = {
            person if len(systems) == 1 else f"{system}: {person}": figures
            for system, by_person in scores.people.items()
            for person, figures in by_person.items()
        }
        write_report(folder, f"{name}-people", people, title=f"{dataset}, person by person", facts=about)
        write_chart(folder / f"{name}.png", scores.systems, title=dataset)
        print(f"\n{dataset}\n\n{format_table(scores.systems)}\n\n{folder / name}.json, .md, .png and -people.*")


def _score(systems: Mapping[str, Sequence[Prediction]], scoring: Scoring) -> Scores:
    rows = next(iter(systems.values()))
    return score_systems(
        [row.image for row in rows],
        [row.subject for row in rows],
        [row.reference for row in rows],
        {system: [row.prediction for row in answers] for system, answers in systems.items()},
        tokenizer=scoring.tokenizer,
        metrics=scoring.metrics,
        lemmas=scoring.lemmas() if "OSS" in scoring.metrics else None,
    )


def _counts(rows: Sequence[Prediction]) -> dict[str, object]:
    people: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        people[row.image].add(row.subject)
    return {
        "descriptions": len(rows),
        "people": len({row.subject for row in rows}),
        "images": f"{len(people)}, of which {sum(len(who) > 1 for who in people.values())} by at least 2 people",
    }


def _methods(scoring: Scoring, scores: Scores) -> dict[str, object]:
    facts: dict[str, object] = {
        "tokenizer": scoring.tokenizer,
        "intervals": "95 %, bootstrap over people (HC: over images)",
    }
    if "OSS" in scoring.metrics:
        facts["WordNet of OSS"] = scoring.wordnet
    if missing := [metric for metric in ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr") if metric not in scoring.metrics]:
        facts["CLS"] = f"without the scorers {', '.join(missing)}"
    if scores.chance is not None:
        facts["CLS by chance"] = round(scores.chance, 4)
    for metric, reason in scores.unmeasured.items():
        facts[f"no {metric}"] = reason
    return facts
