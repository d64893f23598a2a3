"""Samples of any format that `pydeper.readers` reads -> a folder to train on (`python -m training prepare`).

    samples.jsonl      the samples, each with its `split` (see training/preparation/splits.py)
    splits.json        which sample is in which split; made once, then kept to
    report.json        what was read, changed and passed over
    README.md          the data set's card
    word_times.jsonl   when words were spoken, where the source says so (see training/preparation/word_times.py)

The samples are never in memory all at once; what they are called is. The files appear together at the end, so an
error or Ctrl-C leaves what was there before. Files that `prepare` did not write are never replaced.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from pydeper.errors import PydeperError
from pydeper.files.atomic import atomic_path
from pydeper.readers import ReadReport, SampleStream
from pydeper.readers.image_folder import canonical
from pydeper.readers.jsonl import sample_line
from pydeper.readers.stream import Tally
from training.outputs import output_folder
from training.preparation.card import Contents, card_text
from training.preparation.prepared_folder import (
    CARD,
    FILES,
    REPORT,
    SAMPLES,
    SPLITS_FILE,
    WORD_TIMES,
    Fact,
    check_replaceable,
    fact_of,
    report_text,
    written_files,
)
from training.preparation.source_splits import follow_source, splits_from_source
from training.preparation.splits import (
    LEFT_OUT,
    SPLITS,
    TEST,
    Member,
    SplitsError,
    check_fit,
    first_of_each,
    make_splits,
    read_splits,
    write_splits,
)
from training.preparation.word_times import entry, word_times_line
from training.progress import progress


class PrepareError(PydeperError, ValueError):
    """A data set that cannot be prepared with these options."""


@attrs.frozen(kw_only=True)
class PrepareOptions:
    """What becomes of the samples that were read.

    Attributes:
        name: What the data set is called on its card.
        source: Where it comes from, for the card.
        licence: Of the data, for the card.
        splits: A splits file to keep to; None: that of the folder, or where there is none the source's own splits, or
            where it has none splits made by order of hashes.
        test_split: The source's split that is reported on, "val" or "test", where its own splits are followed and it
            knows nothing of unseen people (see `training.preparation.source_splits`).
        samples_per_person: Only so many samples of each person, chosen by order of hashes (paper: 100); None: all.
        unseen: Who is unseen, by name.
        unseen_people: How many people are unseen, for splits that are made (see `make_splits`) or with `test_split`.
        val_share: Share of the images, for splits that are made; None: 0.1. With `test_split`, of the training images;
            None: 0.02.
        test_share: The same, for splits that are made.
    """

    name: str
    source: str = "not stated"
    licence: str = "not stated"
    splits: Path | None = None
    test_split: str | None = None
    samples_per_person: int | None = None
    unseen: Sequence[str] = ()
    unseen_people: int | None = None
    val_share: float | None = None
    test_share: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.samples_per_person is not None and self.samples_per_person < 1:
            raise PrepareError(f"samples_per_person must be 1 or more, not {self.samples_per_person}")
        if self.test_split is not None and self.test_share is not None:
            raise PrepareError("test_share is for splits that are made, test_split for those of the source: give one")

    @property
    def for_making(self) -> dict[str, Any]:
        """The options for splits that are to be made, as far as they are given."""
        given = {name: getattr(self, name) for name in ("unseen_people", "val_share", "test_share")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def deciding(self) -> dict[str, Any]:
        """All options that decide about splits, as far as they are given."""
        given = {name: getattr(self, name) for name in ("test_split", "unseen")}
        return self.for_making | {name: value for name, value in given.items() if value}


@attrs.define
class _Read:
    """What is known of the samples in the scratch file, in its order."""

    members: list[Member] = attrs.Factory(list)
    own_splits: list[str | None] = attrs.Factory(list)
    repeated: Tally = attrs.Factory(Tally)
    size: int = 0
    has_word_times: bool = False


@attrs.frozen(eq=False)
class Plan:
    """What `prepare` would make of a data set.

    Attributes:
        splits: The split of every sample.
        size: Bytes of the samples file, at most.
        report: What was read, changed and passed over.
    """

    splits: Mapping[Member, str]
    size: int
    report: ReadReport


def plan(stream: SampleStream, images: Path, out: Path, options: PrepareOptions) -> Plan:
    """Reads a data set as `prepare` does, and decides the splits, but writes nothing; see there."""
    given = None if options.splits is None else read_splits(options.splits)
    with Path(os.devnull).open("w+b") as scratch:
        read = _first_pass(stream, scratch, images, out)
    splits, _ = _decide_splits(read, options.splits, given, options, stream.report.source)
    return Plan(splits, read.size, stream.report)


def prepare(stream: SampleStream, images: Path, out: Path, options: PrepareOptions) -> ReadReport:
    """Makes a data set's folder.

    Args:
        stream: The samples; each has a subject, and its image inside `images`.
        images: The folder that the images are in; a splits file calls them by their names in it.
        out: The folder to make, or to make anew. Its splits file is kept to and stays as it is, unless the options
            name another.
        options: What becomes of them.

    Returns:
        What was read, changed and passed over.

    Raises:
        InvalidSampleError: What the reader says about its source.
        SplitsError: The splits cannot be made, or do not fit the data.
        PrepareError: The folder cannot be written, or the options contradict what is there.
        OutputError: The folder holds files of these names that `prepare` did not write; nothing is read then.
    """
    kept = (SPLITS_FILE,) if _keeps_splits(out / SPLITS_FILE, options) else ()
    check_replaceable(out, kept)
    written_before = written_files(out)
    file = out / SPLITS_FILE if kept else options.splits
    given = None if file is None else read_splits(file)
    try:
        with output_folder(out), contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(atomic_path(out / name)) for name in FILES if name not in kept}
            stack.callback((hidden := out / f".{os.getpid()}.scratch").unlink, missing_ok=True)
            scratch = stack.enter_context(hidden.open("w+b"))
            read = _first_pass(stream, scratch, images, out)
            splits, notes = _decide_splits(read, file, given, options, stream.report.source)
            if read.repeated.count:
                notes.append(f"{read.repeated.count} samples that were there already, word for word, are left out.")
            if left_out := sum(split == LEFT_OUT for split in splits.values()):
                notes.append(
                    f"{left_out} samples of unseen people are left out: their images are for training, or in their own "
                    "support."
                )
            if read.has_word_times:
                files[WORD_TIMES] = stack.enter_context(atomic_path(out / WORD_TIMES))
            contents = _second_pass(scratch, read, splits, files)
            if not kept:
                write_splits(files[SPLITS_FILE], splits)
            card = card_text(options.name, options.source, options.licence, contents, stream.report, notes)
            files[CARD].write_text(card, encoding="utf-8")
            written = {name: fact_of(path) for name, path in files.items()}
            written |= {name: fact for name, fact in written_before.items() if name in kept}
            report = _report(stream.report, read.repeated, contents, splits, written)
            files[REPORT].write_text(report, encoding="utf-8")
        if WORD_TIMES in written_before and WORD_TIMES not in files:
            (out / WORD_TIMES).unlink()  # of samples that are no longer there
    except OSError as error:
        raise PrepareError(f"{out}: cannot be written ({error}); name a folder with room in it") from error
    return stream.report


def summary(report: ReadReport, out: Path) -> str:
    """What a command prints after `prepare`: the reader's report, and the files of the folder."""
    written = [*FILES, *([WORD_TIMES] if (out / WORD_TIMES).exists() else [])]
    return f"{report}\n{out}: {', '.join(written[:-1])} and {written[-1]}"


def _keeps_splits(path: Path, options: PrepareOptions) -> bool:
    """Whether the folder's own splits file is the one to keep to."""
    if options.splits is None:
        return path.exists()
    return path.exists() and options.splits.exists() and path.samefile(options.splits)


def _first_pass(stream: SampleStream, scratch: BinaryIO, images: Path, out: Path) -> _Read:
    """Writes the samples to the scratch file, each with its utterances and without its split; remembers their names."""
    read, seen, times = _Read(), set(), Counter[tuple[str, str]]()
    root, folder = canonical(images / "_").parent, out.resolve()
    for sample in progress(stream, "reading", "samples"):
        line = sample_line(attrs.evolve(sample, split=None), len(read.members), folder)
        digest = hashlib.sha256(line).digest()
        if digest in seen:
            read.repeated.add(str(sample.source))
            continue
        seen.add(digest)
        image = Path(os.path.relpath(str(sample.image), root)).as_posix()
        times[str(sample.subject), image] += 1
        number = times[str(sample.subject), image]
        read.members.append(Member(str(sample.subject), image if number == 1 else f"{image}#{number}"))
        read.own_splits.append(sample.split)
        read.has_word_times |= bool(stream.utterances)
        utterances = json.dumps([entry(utterance) for utterance in stream.utterances], ensure_ascii=False)
        scratch.write(b"[%s, %s]\n" % (line.strip(), utterances.encode()))
        read.size += len(line)
    return read


def _decide_splits(
    read: _Read, file: Path | None, given: dict[Member, str] | None, options: PrepareOptions, source: str
) -> tuple[dict[Member, str], list[str]]:
    """The split of every sample that stays, given by a file or made, and notes on it for the card."""
    chosen, notes = set(read.members), []
    if options.samples_per_person is not None:
        chosen = first_of_each(read.members, options.samples_per_person)
        notes.append(
            f"Of {len(read.members)} samples, {len(chosen)} are kept: at most {options.samples_per_person} a person."
        )
    if given is not None:
        if options.deciding:
            raise SplitsError(
                f"{file}: has decided the splits already, so {', '.join(options.deciding)} cannot be asked for; "
                "leave that out, or delete the file"
            )
        check_fit(given, chosen, str(file))
        return given, notes
    own = {member: split for member, split in zip(read.members, read.own_splits, strict=True) if member in chosen}
    try:
        splits, how = _make_or_follow(own, options)
    except SplitsError as error:
        raise SplitsError(f"{source}: {error}") from error
    return splits, notes + how


def _make_or_follow(own: dict[Member, str | None], options: PrepareOptions) -> tuple[dict[Member, str], list[str]]:
    """Splits by order of hashes, or of the source's own, and notes on them for the card."""
    if options.test_split is None and (options.for_making or not any(own.values())):
        return make_splits(list(own), unseen=options.unseen, **options.for_making), []
    if not any(own.values()):
        raise SplitsError("the source names no splits, so test_split cannot be followed; leave it out to make splits")
    if lacking := [member for member, split in own.items() if split is None]:
        raise SplitsError(
            f"{len(lacking)} samples have no split and others have, such as {lacking[0].key!r} of "
            f"{lacking[0].subject!r}; give a splits file, or say how to make splits (such as unseen_people)"
        )
    source = {one: str(split) for one, split in own.items()}
    if options.test_split is None and not options.unseen:
        return splits_from_source(source), ["The splits are the source's."]
    test_split = options.test_split or TEST
    splits = follow_source(source, test_split=test_split, unseen=options.unseen, **options.for_making)
    return splits, [f"The splits are the source's; its {test_split!r} is what is reported on."]


def _second_pass(scratch: BinaryIO, read: _Read, splits: dict[Member, str], files: Mapping[str, Path]) -> Contents:
    """Writes the samples that are in a split, with it, and their word times where the file for them is there."""
    contents = Contents()
    scratch.seek(0)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(files[SAMPLES].open("wb"))
        times = stack.enter_context(files[WORD_TIMES].open("wb")) if WORD_TIMES in files else None
        lines = zip(read.members, scratch, strict=True)
        for member, line in progress(lines, "writing", "samples", total=len(read.members)):
            split = splits.get(member, LEFT_OUT)
            if split != LEFT_OUT:
                record, utterances = json.loads(line)
                if times is not None and utterances:
                    times.write(word_times_line(record, utterances))
                file.write(json.dumps(record | {"split": split}, ensure_ascii=False).encode() + b"\n")
                contents.add(record, split)
    return contents


def _report(
    report: ReadReport,
    repeated: Tally,
    contents: Contents,
    splits: dict[Member, str],
    files: dict[str, Fact | None],
) -> str:
    counts = Counter(splits.values())
    content = {
        "read": report.as_dict(),
        "repeated": attrs.asdict(repeated),
        "written": sum(contents.people.values()),
        "splits": {split: counts[split] for split in (*SPLITS, LEFT_OUT)},
    }
    return report_text(content, files)
