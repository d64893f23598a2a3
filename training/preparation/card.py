"""The card of a prepared data set: what is in it, in Markdown."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from pydeper.readers import ReadReport
from training.preparation.splits import SPLITS, SUPPORT_SAMPLES


@attrs.define
class Contents:
    """Figures of samples, gathered one by one: a few numbers for each are kept, the samples are not."""

    people: Counter[tuple[str, str]] = attrs.Factory(Counter)
    images: set[str] = attrs.Factory(set)
    words: "array[float]" = attrs.Factory(lambda: array("d"))
    fixations: "array[float]" = attrs.Factory(lambda: array("d"))
    looking: "array[float]" = attrs.Factory(lambda: array("d"))
    durations: "array[float]" = attrs.Factory(lambda: array("d"))

    def add(self, record: Mapping[str, Any], split: str) -> None:
        """Counts a line of a samples file that is in this split."""
        self.people[record["subject"], split] += 1
        self.images.add(record["image"])
        if "description" in record:
            self.words.append(len(record["description"].split()))
        if "trajectory" in record:
            durations = [fixation["duration"] for fixation in record["trajectory"]]
            self.fixations.append(len(durations))
            self.looking.append(sum(durations))
            self.durations.extend(durations)


def card_text(
    name: str, source: str, licence: str, contents: Contents, report: ReadReport, notes: Sequence[str]
) -> str:
    """The card.

    Args:
        name: What the data set is called.
        source: Where it comes from.
        licence: Of the data, as its owners state it.
        contents: Its figures.
        report: What the reader did.
        notes: What was done to the samples after they were read, a sentence each.
    """
    return _CARD.format(
        name=name,
        source=source,
        licence=licence,
        samples=sum(contents.people.values()),
        people=len({subject for subject, _ in contents.people}),
        images=len(contents.images),
        described=len(contents.words),
        viewed=len(contents.fixations),
        support=SUPPORT_SAMPLES,
        splits=_split_rows(contents),
        quantiles=_quantile_rows(contents),
        notes=_listing([*notes, *_reported(report)]),
        header=" | ".join(SPLITS),
        rule=" --- |" * len(SPLITS),
        everybody=_people_rows(contents),
    )


_CARD = """# {name}

- Source: {source}
- Licence: {licence}
- {samples} samples of {people} people on {images} images: {described} with a description, {viewed} with a trajectory

`samples.jsonl` holds the samples, `splits.json` who and what is in which part, `report.json` what was read, changed
and passed over.

## Splits

| split | people | samples |
| --- | --- | --- |
{splits}

Nobody's part is left to chance: `splits.json` decides. `train`, `val` and `test` are of people whom training sees,
`support` ({support} samples each) and `query` of people whom it does not. No image of `test` or `query` is in `train`
or `val`.

## Figures

| | least | 10 % | median | 90 % | most | mean |
| --- | --- | --- | --- | --- | --- | --- |
{quantiles}

## How it was made

{notes}

## People

| person | {header} |
| --- |{rule}
{everybody}
"""


def _split_rows(contents: Contents) -> str:
    rows = []
    for split in SPLITS:
        counts = [count for (_, part), count in contents.people.items() if part == split]
        rows.append(f"| {split} | {len(counts)} | {sum(counts)} |")
    return "\n".join(rows)


def _quantile_rows(contents: Contents) -> str:
    rows = []
    for title, values, digits in (
        ("words in a description", contents.words, 0),
        ("fixations in a trajectory", contents.fixations, 0),
        ("seconds in all fixations of a trajectory", contents.looking, 1),
        ("seconds in a fixation", contents.durations, 2),
    ):
        if values:
            figures = [*np.quantile(values, [0, 0.1, 0.5, 0.9, 1]).tolist(), float(np.mean(values))]
            rows.append(f"| {title} | " + " | ".join(f"{figure:.{digits}f}" for figure in figures) + " |")
    return "\n".join(rows)


def _reported(report: ReadReport) -> list[str]:
    changed = [f"Changed: {what}: {tally.count}." for what, tally in report.changed.items()]
    return changed + [f"Passed over: {reason}: {tally.count}." for reason, tally in report.passed_over.items()]


def _listing(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) or "- Every record became a sample as it was."


def _people_rows(contents: Contents) -> str:
    subjects = sorted({subject for subject, _ in contents.people})
    return "\n".join(
        f"| {_cell(subject)} | " + " | ".join(str(contents.people[subject, split]) for split in SPLITS) + " |"
        for subject in subjects
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
