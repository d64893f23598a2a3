"""`python -m training evaluate`: describes a samples file through the SDK, scores descriptions, and reports.

What a bundle describes goes to `OUT/predictions.jsonl`; an interrupted run goes on where it stopped. Every data set
gets a table of the systems side by side (`OUT/NAME.json`, `.md`, `.png`) and one of the people (`OUT/NAME-people.json`,
`.md`). People seen in training and unseen people are two data sets, as in the paper.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from pydeper import read_samples
from pydeper.errors import InvalidArgumentError
from training.evaluation.chart import write_chart
from training.evaluation.describe import DescribeSettings, describe
from training.evaluation.predictions import (
    Prediction,
    References,
    by_dataset,
    read_predictions,
)
from training.evaluation.report import check_reports, format_table, write_report
from training.evaluation.scores import METRICS, Scores, score_systems, shared_programs
from training.metrics.tokenization import Tokenizer
from training.metrics.wordnet import Lemmas, Source, nltk_lemmas, wordnet_lemmas
from training.outputs import output_folder


@attrs.frozen(kw_only=True)
class ScoreSettings:
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
    scoring: ScoreSettings,
    *,
    files: Sequence[Path] = (),
    samples: Path | None = None,
    describing: DescribeSettings | None = None,
    dataset: str | None = None,
    check_durations: bool = True,
) -> None:
    """Describes, where there is a bundle; reads further predictions; scores all side by side and reports.

    Args:
        folder: Gets predictions, tables and pictures; made where it is missing.
        scoring: How.
        files: Predictions files.
        samples: Samples file; holds the references of predictions that have none, and what a bundle describes.
        describing: The bundle, and what it describes.
        dataset: What to call the samples' data set, see `References.of`.
        check_durations: See `pydeper.read_samples`.

    Raises:
        PydeperError: Of the file, line, sample or setting that is at fault.
    """
    if not files and describing is None:
        raise InvalidArgumentError(
            "there is nothing to evaluate; name predictions (--predictions) or a model (--bundle)"
        )
    if describing is not None and samples is None:
        raise InvalidArgumentError("a model describes the images of a samples file; name one (--samples)")
    facts: dict[str, object] = {}
    described: list[Prediction] = []
    people = [] if samples is None else read_samples(samples, check_durations=check_durations)
    references = None if samples is None else References.of(samples, people, dataset)
    given = [prediction for file in files for prediction in read_predictions(file, references)]
    check_outputs(folder, {prediction.dataset for prediction in given})
    if describing is not None and references is not None:
        targets = (sample for sample in people if sample.split in describing.splits)
        check_outputs(folder, {references.dataset_of(sample) for sample in targets})
        with output_folder(folder):
            described, facts = describe(describing, people, references, folder)
    report(described + given, scoring, folder, facts)


def check_outputs(folder: Path, datasets: Iterable[str]) -> None:
    """Refuses to replace files that `report` did not write; to be called before any work.

    Args:
        folder: Where reports are to go.
        datasets: The data sets that there will be reports of.

    Raises:
        OutputError: There is such a file.
    """
    names = [file_name(dataset) for dataset in datasets]
    check_reports(folder, names, (".json", ".md", ".png"))
    check_reports(folder, [f"{name}-people" for name in names])


def file_name(dataset: str) -> str:
    """What a data set's files are called, without suffix."""
    return re.sub(r"\W+", "-", dataset).strip("-").lower() or "dataset"


def report(
    predictions: Sequence[Prediction], scoring: ScoreSettings, folder: Path, facts: Mapping[str, object]
) -> None:
    """Scores predictions, data set by data set, and writes tables and pictures into the folder.

    Raises:
        InvalidArgumentError: The systems of a data set have different targets.
        OutputError: See `check_outputs`.
        MissingRequirementError: Something that a metric needs is not installed.
    """
    datasets = by_dataset(predictions)
    names = {dataset: file_name(dataset) for dataset in datasets}
    if len(set(names.values())) < len(names):
        raise InvalidArgumentError(f"data sets {', '.join(map(repr, names))} would share a file name; rename one")
    check_outputs(folder, datasets)
    with shared_programs(scoring.metrics):
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


def _score(systems: Mapping[str, Sequence[Prediction]], scoring: ScoreSettings) -> Scores:
    rows = next(iter(systems.values()))
    return score_systems(
        [row.image for row in rows],
        [row.subject for row in rows],
        [row.reference for row in rows],
        {system: [row.prediction for row in predicted] for system, predicted in systems.items()},
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


def _methods(scoring: ScoreSettings, scores: Scores) -> dict[str, object]:
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
