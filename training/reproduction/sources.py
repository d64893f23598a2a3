"""The paper's data sets: how a published folder becomes samples, which splits are published, and who is unseen.

    coco-ln       DIR holds coco_*localized_narratives*.jsonl and images/; train2017 is trained on, val2017 reported on
    flickr30k-ln  DIR holds flickr30k_*localized_narratives*.jsonl and images/; its own train, val and test
    kollenda      DIR holds fixations.csv (subject, image, x, y, duration), captions.csv (subject, image, description)
                  and images/; `TableOptions` says where files or columns are called otherwise
    he            DIR is capgaze as it was published

Any of them can also be had as the JSON of the paper's released code, FILE.json with `images/` beside it. That one knows
`train` and `val`, and numbers its people.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.readers import (
    Placement,
    ReportFormat,
    SampleStream,
    read_capgaze,
    read_deper_json,
    read_fixation_report,
    read_localized_narratives,
)
from pydeper.readers.deper_json import Boxes
from training.preparation.prepare import PrepareOptions
from training.preparation.splits import TEST, VAL

COCO_UNSEEN = (
    *("30", "82", "37", "67", "39", "57", "89", "0", "92", "33"),
    *("19", "48", "75", "15", "91", "20", "55", "79", "32"),
)
"""The paper's unseen annotators of COCO-LN."""

FLICKR30K_UNSEEN = ("32", "0", "6", "1", "2", "3", "4", "5", "7", "8")
"""The paper's unseen people of Flickr30k-LN: numbers in the released JSON, which are not the `annotator_id`."""

FIXATION_TABLE = ReportFormat(x="x", y="y", duration="duration", subject="subject", image="image")
"""The columns of a table of fixations; x and y are fractions of the image, durations milliseconds."""

PUBLISHED, OWN = "published", "own"


@attrs.frozen(kw_only=True)
class TableOptions:
    """What a data set that is two tables calls its files and columns.

    Attributes:
        fixations: Name of the table of fixations in the folder.
        captions: Name of the table of descriptions.
        caption_columns: Its columns of the person, the image and the text.
        fixation_format: The columns of the table of fixations, and what its numbers mean.
        placement: Where on the screen the images were, for positions in screen pixels.
    """

    fixations: str = "fixations.csv"
    captions: str = "captions.csv"
    caption_columns: tuple[str, str, str] = ("subject", "image", "description")
    fixation_format: ReportFormat = FIXATION_TABLE
    placement: Placement | None = None


@attrs.frozen(kw_only=True)
class DataOptions:
    """How the data of an experiment are read and split, where it is not as the experiment says.

    Attributes:
        splits: Whether to follow the "published" splits of the images, or to make our "own"; None: the published ones
            where there are any.
        test_split: The published split that is reported on, "val" or "test"; None: the one of the paper.
        unseen: Who is unseen, by name; empty: nobody; None: the paper's people where the data have them.
        boxes: Unit of the boxes in the released JSON.
        tables: Names in a data set that is two tables.
    """

    splits: Literal["published", "own"] | None = None
    test_split: str | None = None
    unseen: tuple[str, ...] | None = None
    boxes: Boxes = "normalised"
    tables: TableOptions = TableOptions()


@attrs.frozen(kw_only=True)
class DataSource:
    """A data set of the paper.

    Attributes:
        name: What it is called; the paper's figures go by this name.
        read: Opens the folder as it was published, with samples' published splits or (False) without any; None: it has
            to be prepared already.
        unseen_people: How many people are unseen where they are not named; None: a fifth of those who can be.
        training_samples: At most so many training samples of each seen person; None: all.
        test_split: The published split that the paper reports on; None: no split is published.
        unseen: The paper's unseen people, where the published data name them.
        unseen_released: The same, by their numbers in the released JSON.
    """

    name: str
    read: Callable[[Path, DataOptions, bool], SampleStream] | None = None
    unseen_people: int | None = None
    training_samples: int | None = None
    test_split: str | None = None
    unseen: tuple[str, ...] = ()
    unseen_released: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Reading:
    """A data set, opened.

    Attributes:
        stream: Its samples.
        images: The folder of its images.
        options: What `prepare` is to make of it.
        about: How it is split, in sentences.
    """

    stream: SampleStream
    images: Path
    options: PrepareOptions
    about: str


def open_source(source: DataSource, data: Path, options: DataOptions) -> Reading:
    """Opens a data set as it was published.

    Args:
        source: Which one.
        data: Its folder, or the released JSON.
        options: How it is read and split.

    Raises:
        InvalidArgumentError: The data are not there, or an option is of another data set.
        InvalidSampleError: Files cannot be opened.
    """
    released = data.suffix == ".json"
    test_split = _test_split(source, options, released)
    if released:
        images = data.parent / "images"
        stream = read_deper_json(data, images, boxes=options.boxes, subjects="number")
    elif source.read is None:
        raise InvalidArgumentError(
            f"{data}: holds no samples.jsonl; make one with `python -m training prepare FORMAT … --out DIR`, name DIR"
        )
    else:
        images = data / "images"
        stream = source.read(data, options, test_split is not None)
    if options.tables != TableOptions() and (released or source.read is not _read_tables):
        raise InvalidArgumentError(f"{data}: is no table of fixations, so names of tables and columns cannot be given")
    unseen, about = _unseen(source, options, released, test_split)
    images_by = f"published, {test_split!r} is reported on" if test_split else "made by order of hashes"
    about = f"Splits of the images: {images_by}. {about}"
    return Reading(
        stream,
        images,
        PrepareOptions(
            name=source.name,
            source=f"{'the JSON of the released code' if released else 'as it was published'}. {about}",
            test_split=test_split,
            test_share=None if test_split else 0.1,
            unseen=unseen,
            unseen_people=None if unseen else 0 if options.unseen == () else source.unseen_people,
        ),
        about,
    )


def _test_split(source: DataSource, options: DataOptions, released: bool) -> str | None:
    """The published split that is reported on; None where splits are made."""
    papers = VAL if released else source.test_split
    if options.splits == OWN or (papers is None and options.splits is None):
        if options.test_split is not None:
            raise InvalidArgumentError(
                f"test_split {options.test_split!r} is for published splits, and splits of our own are made; leave it "
                "out"
            )
        return None
    if papers is None:
        raise InvalidArgumentError(f"{source.name} has no published splits; leave out splits {PUBLISHED!r}")
    return options.test_split or papers


def _unseen(
    source: DataSource, options: DataOptions, released: bool, test_split: str | None
) -> tuple[tuple[str, ...], str]:
    """Who is unseen by name, or nobody where `prepare` chooses, and a sentence about it."""
    papers = () if test_split is None else source.unseen_released if released else source.unseen
    unseen = papers if options.unseen is None else options.unseen
    if unseen:
        whose = "the paper's" if options.unseen is None else "as named"
        return unseen, f"Unseen people: {', '.join(unseen)} ({whose})."
    if options.unseen == () or source.unseen_people == 0:
        return (), "Nobody is unseen."
    count = "a fifth" if source.unseen_people is None else str(source.unseen_people)
    sentence = f"Unseen people: {count}, chosen by order of hashes."
    if source.unseen_released and test_split is not None and not released:
        sentence += (
            " The paper's list numbers its people anew, so it cannot be applied to the annotators of the published "
            "narratives: these are other people than the paper's. Name others by --unseen."
        )
    return (), sentence


def _narratives(pattern: str) -> Callable[[Path, DataOptions, bool], SampleStream]:
    """Reads those of a folder's Localized Narratives whose file names match the pattern."""

    def read(data: Path, _: DataOptions, keep_splits: bool) -> SampleStream:
        if not (files := sorted(data.glob(pattern))):
            raise InvalidArgumentError(
                f"{data}: holds neither samples.jsonl nor {pattern}; download the narratives into it"
            )
        return read_localized_narratives(files, data / "images", keep_splits=keep_splits)

    return read


def _read_capgaze(data: Path, _: DataOptions, __: bool) -> SampleStream:
    return read_capgaze(data)


def _read_tables(data: Path, options: DataOptions, _: bool) -> SampleStream:
    tables = options.tables
    for option, name in (("fixations", tables.fixations), ("captions", tables.captions)):
        if not (data / name).is_file():
            raise InvalidArgumentError(
                f"{data}: holds neither samples.jsonl nor {name}; put the table there, or say by --{option} what it is "
                "called"
            )
    return read_fixation_report(
        data / tables.fixations,
        data / "images",
        tables.fixation_format,
        data / tables.captions,
        placement=tables.placement,
        description_columns=tables.caption_columns,
    )


_FLICKR30K = DataSource(
    name="flickr30k-ln",
    read=_narratives("flickr30k_*localized_narratives*.jsonl"),
    unseen_people=10,
    test_split=TEST,
    unseen_released=FLICKR30K_UNSEEN,
)

EXPERIMENTS: Mapping[str, DataSource] = {
    "coco-ln": DataSource(
        name="coco-ln",
        read=_narratives("coco_*localized_narratives*.jsonl"),
        unseen_people=19,
        test_split=VAL,
        unseen=COCO_UNSEEN,
        unseen_released=COCO_UNSEEN,
    ),
    "flickr30k-ln": _FLICKR30K,
    "flickr30k-ln-100": attrs.evolve(_FLICKR30K, training_samples=100),
    "kollenda": DataSource(name="kollenda", read=_read_tables),
    "he": DataSource(name="he", read=_read_capgaze, unseen_people=0),
}
"""The data set of every experiment, by the name of its configuration."""
