"""What the readers of data sets share: samples one by one, with a report of what was read, changed and passed over."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import attrs

from pydeper.errors import InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.readers.image_folder import MissingImageError
from pydeper.readers.utterances import Utterance
from pydeper.samples.sample import Sample

T = TypeVar("T")

EXAMPLES = 5
"""Places that a report names for each reason."""

DAMAGED = "damaged record"
MISSING_IMAGE = "image is missing"


@attrs.define
class Tally:
    """How often something was met, and where first (at most `EXAMPLES` places)."""

    count: int = 0
    first: list[str] = attrs.Factory(list)

    def add(self, place: str, count: int = 1) -> None:
        """Counts it, `count` times at one place."""
        self.count += count
        if len(self.first) < EXAMPLES:
            self.first.append(place)


@attrs.define
class ReadReport:
    """What a reader did with its source so far.

    Attributes:
        source: What is read.
        samples: Samples given.
        changed: What was altered in samples that were given, by what it is; counted in the unit that its name says.
        passed_over: Records that gave no sample, by the reason.
        unread: Fields or columns that are not part of the format, and in how many records each was met.

    Examples:
        >>> from pydeper.readers import ReadReport
        >>> report = ReadReport("ana.jsonl", samples=2)
        >>> report.pass_over("no description", "ana.jsonl:3")
        >>> print(report)
        ana.jsonl: 2 samples
          passed over: 1 × no description (first: ana.jsonl:3)
    """

    source: str
    samples: int = 0
    changed: dict[str, Tally] = attrs.Factory(dict)
    passed_over: dict[str, Tally] = attrs.Factory(dict)
    unread: Counter[str] = attrs.Factory(Counter)

    def change(self, what: str, place: str, count: int = 1) -> None:
        """Counts something that was altered; nothing where `count` is 0.

        Examples:
            >>> from pydeper.readers import ReadReport
            >>> report = ReadReport("ana.jsonl")
            >>> report.change("points outside the image left out", "ana.jsonl:3", count=2)
            >>> report.changed
            {'points outside the image left out': Tally(count=2, first=['ana.jsonl:3'])}
        """
        if count:
            self.changed.setdefault(what, Tally()).add(place, count)

    def pass_over(self, reason: str, place: str, count: int = 1) -> None:
        """Counts records that give no sample.

        Examples:
            >>> from pydeper.readers import ReadReport
            >>> report = ReadReport("ana.jsonl")
            >>> report.pass_over("no description", "ana.jsonl:3")
            >>> report.passed_over
            {'no description': Tally(count=1, first=['ana.jsonl:3'])}
        """
        self.passed_over.setdefault(reason, Tally()).add(place, count)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON.

        Examples:
            >>> from pydeper.readers import ReadReport
            >>> ReadReport("ana.jsonl", samples=2).as_dict()
            {'source': 'ana.jsonl', 'samples': 2, 'changed': {}, 'passed_over': {}, 'unread': {}}
        """
        return attrs.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.samples} sample{'' if self.samples == 1 else 's'}"]
        for title, tallies in (("changed", self.changed), ("passed over", self.passed_over)):
            lines += [f"  {title}: {tally.count} × {what} (first: {tally.first[0]})" for what, tally in tallies.items()]
        if self.unread:
            lines.append("  not read: " + ", ".join(f"{name} ({count})" for name, count in self.unread.items()))
        return "\n".join(lines)


@attrs.frozen
class Tolerance:
    """How much a reader passes over (and reports) before it stops with an error.

    Attributes:
        damaged: Records that do not hold what the format promises.
        missing_images: Records whose image is not there.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import Tolerance, read_deper_json
        >>> draw_scene([]).save("star.png")
        >>> entries = [{"name": name, "caption": "A star.", "subject": 3} for name in ("star.png", "missing.png")]
        >>> _ = Path("data.json").write_text(json.dumps(entries))
        >>> tolerance = Tolerance(missing_images=1)
        >>> len(list(read_deper_json("data.json", images=".", without_trajectory="keep", tolerance=tolerance)))
        1
    """

    damaged: int = 0
    missing_images: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidArgumentError(f"{name} must be a whole number of records, not {value!r}")


class PassedOver(Exception):  # noqa: N818 - it is no error: the record is as the format allows, and gives no sample
    """Raised while a record is read: it gives no sample, for this reason."""


class SampleStream(Iterator[Sample]):
    """Samples, read one by one while they are asked for; `report` grows along.

    Attributes:
        report: What was read, changed and passed over so far; complete once the samples are exhausted.
        utterances: Of the sample that was given last, what was said when; empty where that is not recorded.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import read_deper_json
        >>> draw_scene([]).save("star.png")
        >>> _ = Path("data.json").write_text(json.dumps([{"name": "star.png", "caption": "A star.", "subject": 3}]))
        >>> stream = read_deper_json("data.json", images=".", without_trajectory="keep")
        >>> samples = list(stream)
        >>> print(stream.report)
        data.json: 1 sample
          changed: 1 × samples without a trajectory (first: data.json[0])
    """

    def __init__(self, samples: Iterator[Sample], report: ReadReport) -> None:
        self.report = report
        self.utterances: tuple[Utterance, ...] = ()
        self._samples = samples

    def __iter__(self) -> "SampleStream":
        return self

    def __next__(self) -> Sample:
        return next(self._samples)


def stream(
    records: Iterable[tuple[str, T]],
    read: Callable[[T, str], Sample],
    report: ReadReport,
    tolerance: Tolerance,
) -> SampleStream:
    """Makes samples of records.

    Args:
        records: Each with its place, such as "file.jsonl:3".
        read: Makes a sample of a record at a place; raises `PassedOver`, or an error where the record is damaged or
            its image is missing.
        report: Grows along.
        tolerance: How many such errors are only reported.

    Raises:
        InvalidSampleError: (While iterating) more is wrong than is tolerated, or there is not one sample.
    """
    return SampleStream(_samples(records, read, report, tolerance), report)


def _samples(
    records: Iterable[tuple[str, T]], read: Callable[[T, str], Sample], report: ReadReport, tolerance: Tolerance
) -> Iterator[Sample]:
    for place, record in records:
        try:
            sample = read(record, place)
        except PassedOver as reason:
            report.pass_over(str(reason), place)
        except MissingImageError as error:
            _tolerate(MISSING_IMAGE, error, place, report, tolerance.missing_images)
        except (InvalidSampleError, InvalidImageError) as error:
            _tolerate(DAMAGED, error, place, report, tolerance.damaged)
        else:
            report.samples += 1
            yield sample
    if not report.samples:
        raise InvalidSampleError(f"there is not one sample in it.\n{report}")


def _tolerate(what: str, error: Exception, place: str, report: ReadReport, tolerated: int) -> None:
    report.pass_over(what, f"{place}: {error}")
    count = report.passed_over[what].count
    if count > tolerated:
        limit = f" (number {count} of its kind; {tolerated} are tolerated)" if tolerated else ""
        raise InvalidSampleError(f"{place}: {error}{limit}") from error
