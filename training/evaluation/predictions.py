"""Predictions: descriptions that a system has made for people, as JSON Lines, one object a line, UTF-8.

    {"image": "photos/17.jpg", "subject": "ana", "prediction": "A dog …", "reference": "A brown dog …",
     "system": "DEPER", "dataset": "coco, seen"}

(on one line). `reference`, what the person wrote, may be left out where a samples file holds it; `system` and `dataset`
may be left out as well.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.files.atomic import atomic_path
from pydeper.samples.sample import Sample
from training.outputs import exists, refuse
from training.preparation.splits import SEEN_SPLITS, UNSEEN_SPLITS


@attrs.frozen
class Prediction:
    """One description that a system made for one person.

    Attributes:
        dataset: Where image and reference come from; figures of different data sets are never mixed.
        system: What made it.
        image: The image's path; relative to the samples file where there is one.
        subject: The person.
        prediction: What the system wrote; may be empty.
        reference: What the person wrote.
    """

    dataset: str
    system: str
    image: str
    subject: str
    prediction: str
    reference: str

    def line(self) -> str:
        """The prediction as a line of a predictions file, with its line end."""
        return json.dumps(attrs.asdict(self), ensure_ascii=False) + "\n"


@attrs.frozen(eq=False)
class References:
    """What people wrote, by image and person.

    Attributes:
        path: The samples file.
        name: What the data set is called.
        described: (image, subject) -> that person's samples of that image, images as `image_name` has them.
    """

    path: Path
    name: str
    described: Mapping[tuple[str, str], Sequence[Sample]]

    @classmethod
    def of(cls, path: Path, samples: Iterable[Sample], name: str | None = None) -> References:
        """Indexes the samples of a file that have a description.

        Args:
            path: The samples file.
            samples: What `pydeper.read_samples` gave.
            name: What to call the data set; None: the file's name, or its folder's for "samples.jsonl".

        Raises:
            InvalidSampleError: A sample names no subject.
        """
        path = path.resolve()
        described = defaultdict(list)
        for sample in samples:
            if sample.subject is None:
                raise InvalidSampleError(
                    f"{sample.source}: subject: missing; evaluation needs to know whose sample it is"
                )
            if sample.description is not None:
                described[image_name(sample.image, path.parent), sample.subject].append(sample)
        return cls(path, name or (path.parent.name if path.stem == "samples" else path.stem), described)

    def dataset_of(self, sample: Sample) -> str:
        """The data set that a sample's figures belong to: people seen in training and unseen people are two."""
        people = {**dict.fromkeys(SEEN_SPLITS, ", seen"), **dict.fromkeys(UNSEEN_SPLITS, ", unseen")}
        return self.name + people.get(sample.split or "", "")

    def sample(self, image: str, subject: str, reference: str | None) -> Sample:
        """Finds the sample that a prediction is held against.

        Raises:
            InvalidArgumentError: There is none, or there are several and the reference does not tell which.
        """
        name = image_name(image, self.path.parent)
        found = self.described.get((name, subject), ())
        if not found:
            raise InvalidArgumentError(f"{self.path} holds no description of image {name!r} by subject {subject!r}")
        if reference is not None:
            found = [sample for sample in found if sample.description == reference][:1]
            if not found:
                raise InvalidArgumentError(
                    f"reference: is not what {self.path} has of image {name!r} by subject {subject!r}; leave it out"
                )
        if len(found) > 1:
            raise InvalidArgumentError(
                f"{self.path} holds {len(found)} descriptions of image {name!r} by subject {subject!r}; say which one "
                "by the field reference"
            )
        return found[0]


def image_name(image: object, folder: Path) -> str:
    """An image's path as a samples file in `folder` writes it: relative, with forward slashes."""
    path = folder / os.fspath(image)  # type: ignore[call-overload]
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def read_predictions(path: Path, references: References | None = None) -> list[Prediction]:
    """Reads a predictions file.

    Args:
        path: The file. A line without `system` is of the system that is called as the file, without its suffix.
        references: Where lines without a `reference` find it. Images are then looked for relative to the samples file.

    Returns:
        At least one prediction, in the file's order. Without `references`, a line's data set is its `dataset`, or else
        called as the file's folder.

    Raises:
        InvalidArgumentError: The file cannot be read, holds no predictions, or a line (named, with its field) is not
            valid or has no reference.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    predictions = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                predictions.append(_prediction(line, path, references))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{path}:{number}: {error}") from error
    if not predictions:
        raise InvalidArgumentError(f"{path}: holds no predictions; write one JSON object a line")
    return predictions


def _prediction(line: str, path: Path, references: References | None) -> Prediction:
    fields = _fields(line)
    image, subject, reference = fields["image"], fields["subject"], fields.get("reference")
    dataset = fields.get("dataset", path.resolve().parent.name)
    if references is not None:
        sample = references.sample(image, subject, reference)
        assert sample.description is not None
        image, reference = image_name(image, references.path.parent), sample.description
        dataset = references.dataset_of(sample)
    elif reference is None:
        raise InvalidArgumentError("reference: missing; give it, or name the samples file that holds it (--samples)")
    return Prediction(dataset, fields.get("system", path.stem), image, subject, fields["prediction"], reference)


def _fields(line: str) -> dict[str, str]:
    known = [field.name for field in attrs.fields(Prediction)]
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"not JSON ({error}); each line must be one whole object") from error
    if not isinstance(record, dict):
        raise InvalidArgumentError(f"must be an object {{…}}, not {type(record).__name__}")
    if unknown := [name for name in record if name not in known]:
        raise InvalidArgumentError(f"unknown field {unknown[0]!r}; known are {', '.join(known)}")
    fields = {name: value for name, value in record.items() if value is not None}
    for name in ("image", "subject", "prediction"):
        if name not in fields:
            raise InvalidArgumentError(f"{name}: missing")
    for name, value in fields.items():
        if not isinstance(value, str) or (not value.strip() and name != "prediction"):
            raise InvalidArgumentError(f"{name}: must be a text, not {value!r:.60}")
    return fields


def by_dataset(predictions: Iterable[Prediction]) -> dict[str, dict[str, list[Prediction]]]:
    """Sorts predictions by data set and system; all systems of a data set have the same targets, in one order.

    Raises:
        InvalidArgumentError: A system of a data set lacks a prediction that another one has.
    """
    groups: dict[str, dict[str, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for prediction in predictions:
        groups[prediction.dataset][prediction.system].append(prediction)
    for dataset, systems in groups.items():
        first = next(iter(systems))
        targets = Counter(map(_target, systems[first]))
        for system, rows in systems.items():
            own = Counter(map(_target, rows))
            if differing := (targets - own) + (own - targets):
                image, subject, _ = next(iter(differing))
                raise InvalidArgumentError(
                    f"data set {dataset!r}: the systems {first!r} and {system!r} were not asked the same: "
                    f"{differing.total()} of their {len(systems[first])} and {len(rows)} predictions have no "
                    f"counterpart, the first of image {image!r} by subject {subject!r}; give both the same samples"
                )
            rows.sort(key=_target)
    return {dataset: dict(systems) for dataset, systems in groups.items()}


def _target(prediction: Prediction) -> tuple[str, str, str]:
    return prediction.image, prediction.subject, prediction.reference


_SETTINGS = "predictions.settings.json"


class PredictionsFile:
    """Predictions on disk while they are made, so that an interrupted run goes on where it stopped.

    The folder's `predictions.partial.jsonl` grows by append and becomes `predictions.jsonl` when it is whole;
    `predictions.settings.json` tells how they were made, and other settings are refused.

    Attributes:
        done: The predictions so far, the first of all.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], pending: Sequence[Prediction]) -> None:
        """Takes up what an earlier run has left in the folder.

        Args:
            folder: Where the files are; it must exist when the first predictions come.
            settings: All that the predictions depend on, as plain JSON.
            pending: What is to be predicted, in this order; each `prediction` is empty.

        Raises:
            InvalidArgumentError: The folder holds predictions that were made with other settings, or of other samples.
            OutputError: The file of the settings is another program's.
        """
        self._pending = pending
        self._settings = json.dumps(settings, ensure_ascii=False, indent=1) + "\n"
        self._whole, self._partial = folder / "predictions.jsonl", folder / "predictions.partial.jsonl"
        found, content = self._whole, _content(self._whole)
        if content is None:
            found, content = self._partial, _content(self._partial)
        self._begun = content is not None
        _check_settings(folder / _SETTINGS, json.loads(self._settings), self._begun)
        whole_lines = 0 if content is None else content.rfind(b"\n") + 1
        if found == self._partial and content and whole_lines < len(content):  # the run was stopped within a line
            with self._partial.open("r+b") as file:
                file.truncate(whole_lines)
        self.done = read_predictions(found) if (content if found == self._whole else whole_lines) else []
        for number, (done, expected) in enumerate(zip(self.done, pending, strict=False), start=1):
            if attrs.evolve(done, prediction="") != expected:
                raise InvalidArgumentError(f"{found}:{number}: is not what this run would write; use another --out")
        if len(self.done) > len(pending) or (found == self._whole and len(self.done) != len(pending)):
            raise InvalidArgumentError(f"{found}: has {len(self.done)} lines, not {len(pending)}; use another --out")

    def append(self, texts: Sequence[str]) -> None:
        """Writes the next predictions."""
        pending = self._pending[len(self.done) : len(self.done) + len(texts)]
        predicted = [attrs.evolve(row, prediction=text) for row, text in zip(pending, texts, strict=True)]
        if not self._begun:
            with atomic_path(self._partial.with_name(_SETTINGS)) as temporary:
                temporary.write_text(self._settings, encoding="utf-8")
            self._begun = True
        with self._partial.open("ab") as file:
            file.write("".join(row.line() for row in predicted).encode())
        self.done += predicted

    def finish(self) -> None:
        """Gives the file, now whole, its name; one that has it already stays as it is."""
        if len(self.done) != len(self._pending):
            raise InvalidArgumentError(f"{self._partial}: {len(self.done)} of {len(self._pending)} are answered")
        with suppress(FileNotFoundError):
            self._partial.replace(self._whole)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _check_settings(path: Path, now: dict[str, object], begun: bool) -> None:
    if not begun and not exists(path):
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise TypeError(f"it is a {type(before).__name__}, not an object")
    except (OSError, ValueError, TypeError) as error:
        if not begun:
            refuse(path.parent, [path.name])
        raise InvalidArgumentError(
            f"{path.parent}: holds predictions but not how they were made ({error}); use another --out"
        ) from error
    if not begun:
        if before.keys() != now.keys():
            refuse(path.parent, [path.name])
        return
    for name in now | before:
        if now.get(name) != before.get(name):
            raise InvalidArgumentError(
                f"{path}: the predictions there were made with {name} {before.get(name)!r}, not {now.get(name)!r}; use "
                "another --out, or delete them"
            )
