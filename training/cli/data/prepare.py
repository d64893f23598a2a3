"""`python -m training prepare FORMAT`: recordings to a folder to train on; a sub-command for each format."""

import argparse
import re
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import check_output
from pydeper.gaze import IDT, MIN_BOX, FixationMethod, FixedWindows
from pydeper.readers import (
    SampleStream,
    Tolerance,
    read_capgaze,
    read_deper_json,
    read_localized_narratives,
    read_recordings,
)
from pydeper.readers.capgaze import EYE_STOPS
from pydeper.readers.localized_narratives import POINTER_STOPS
from training.cli.data import fixation_table
from training.preparation.prepare import PrepareOptions, prepare, summary
from training.preparation.prepared_folder import FILES, WORD_TIMES


class _Parser(argparse.ArgumentParser):
    """Also takes a screen's size in one word: WxH."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse.ArgumentParser`."""
        line = re.sub(r"(?<=--screen)[=\0]([0-9.]+)[x×]([0-9.]+)(?=\0|$)", r"\0\1\0\2", "\0".join(args))
        return super().parse_known_args(line.split("\0") if line else [], namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command for each format."""
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT", parser_class=_Parser)

    narratives = formats.add_parser("localized-narratives", help="people who describe while their mouse follows")
    narratives.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="JSON Lines, the shards of one set")
    narratives.add_argument("--images", type=Path, required=True, help="folder of the images")
    narratives.add_argument(
        "--image-pattern", metavar="NAME", help='such as "{image_id:0>12}.jpg" (default: as the set)'
    )
    _add_method(narratives)
    _add_outside(narratives, "clip")
    narratives.set_defaults(read=_localized_narratives)

    capgaze = formats.add_parser("capgaze", help="He et al.: five people who describe before an eye tracker")
    capgaze.add_argument("folder", type=Path, help="holds gaze_converted_2, transcribed_text and images")
    capgaze.add_argument("--images", type=Path, help="folder of the images (default: FOLDER/images)")
    capgaze.add_argument("--eye", choices=["dominant", "mean"], default="dominant", help="(default: %(default)s)")
    _add_method(capgaze)
    _add_outside(capgaze, "drop")
    _add_without_description(capgaze)
    capgaze.set_defaults(read=_capgaze)

    recordings = formats.add_parser("recordings", help="journals that the capture page wrote (pydeper capture)")
    recordings.add_argument("path", type=Path, metavar="FILE", help="such as ana.recordings.jsonl")
    recordings.add_argument("--images", type=Path, required=True, help="folder of the images")
    _add_method(recordings)
    _add_outside(recordings, "clip")
    recordings.set_defaults(read=_recordings)

    table = formats.add_parser("fixation-report", help="a table of fixations, as eye trackers export it")
    fixation_table.add_arguments(table)
    _add_outside(table, "drop")
    _add_without_description(table)
    table.set_defaults(read=lambda options: fixation_table.read(options, _tolerance(options)))

    deper = formats.add_parser("deper-json", help="the JSON of the paper's released code")
    deper.add_argument("path", type=Path, metavar="FILE")
    deper.add_argument("--images", type=Path, required=True, help="folder of the images")
    deper.add_argument("--boxes", choices=["normalised", "pixels"], default="normalised", help="(default: %(default)s)")
    deper.add_argument(
        "--subjects",
        choices=["name", "number"],
        default="name",
        help="what people are called by (default: %(default)s)",
    )
    deper.set_defaults(read=_deper_json)

    for name, command in formats.choices.items():
        _add_common(command, name)


def run(options: argparse.Namespace) -> None:
    """Prepares the data set, and prints the report."""
    for name in (*FILES, WORD_TIMES):
        check_output(options.out / name, _inputs(options))
    stream: SampleStream = options.read(options)
    images = options.images or options.folder / "images"
    chosen = {field.name: getattr(options, field.name) for field in attrs.fields(PrepareOptions)}
    report = prepare(stream, images, options.out, PrepareOptions(**chosen))
    print(summary(report, options.out))


def _inputs(options: argparse.Namespace) -> list[Path]:
    given = (getattr(options, name, None) for name in ("path", "descriptions"))
    return [*getattr(options, "paths", ()), *(path for path in given if path is not None)]


def _add_common(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--name", default=name, help="what the card calls the data set (default: %(default)s)")
    parser.add_argument("--source", default="not stated", help="where it comes from, for the card")
    parser.add_argument("--licence", default="not stated", help="of the data, for the card")
    parser.add_argument("--samples-per-person", type=int, metavar="N", help="at most (paper: 100; default: all)")
    parser.add_argument(
        "--splits", type=Path, metavar="FILE", help="keep to this (default: DIR/splits.json, once made)"
    )
    parser.add_argument(
        "--test-split",
        choices=["val", "test"],
        help="follow the source's own splits, which know no unseen people, and report on this one; in Localized "
        "Narratives, dataset_id names them",
    )
    parser.add_argument("--unseen", nargs="+", default=(), metavar="PERSON", help="who is unseen, by name")
    parser.add_argument(
        "--unseen-people", type=int, metavar="N", help="when splits are made, or with --test-split (default: a fifth)"
    )
    parser.add_argument(
        "--val-share",
        type=float,
        metavar="X",
        help="of the images, when splits are made (default: 0.1); of the training images, with --test-split (0.02)",
    )
    parser.add_argument("--test-share", type=float, metavar="X", help="of the images, when splits are made (0.1)")
    parser.add_argument("--max-damaged", type=int, default=0, metavar="N", help="pass over so many (default: none)")
    parser.add_argument("--max-missing-images", type=int, default=0, metavar="N", help="the same for missing images")
    parser.add_argument(
        "--without-trajectory", choices=["skip", "keep"], default="skip", help="records without one (default: skip)"
    )
    add_check_durations(parser)


def add_check_durations(parser: argparse.ArgumentParser) -> None:
    """Adds the option that takes durations which look like those of another unit."""
    parser.add_argument(
        "--no-check-durations",
        dest="check_durations",
        action="store_false",
        help="take fixations that last below 0.01 s or above 10 s (median), which is another unit else",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method", choices=["idt", "windows"], default="idt", help="points to fixations (default: idt)"
    )
    parser.add_argument("--dispersion", type=float, help="of I-DT, in fractions of the image's sides")
    parser.add_argument("--min-duration", type=float, metavar="SECONDS", help="of I-DT")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of fixed windows (default: 0.4)")
    parser.add_argument("--min-box", type=float, default=MIN_BOX, help="smallest side of a box (default: %(default)s)")


def _add_outside(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--outside", choices=["clip", "drop"], default=default, help="points outside the image (default: %(default)s)"
    )


def _add_without_description(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-description", choices=["skip", "keep"], default="skip", help="records without one (default: skip)"
    )


def _tolerance(options: argparse.Namespace) -> Tolerance:
    return Tolerance(damaged=options.max_damaged, missing_images=options.max_missing_images)


def _method(options: argparse.Namespace, default: IDT) -> FixationMethod:
    of_idt = {name: getattr(options, name) for name in ("dispersion", "min_duration")}
    given = {name: value for name, value in of_idt.items() if value is not None}
    if options.method == "windows":
        if given:
            raise InvalidArgumentError("--dispersion and --min-duration are of I-DT; fixed windows have --window")
        return FixedWindows() if options.window is None else FixedWindows(options.window)
    if options.window is not None:
        raise InvalidArgumentError("--window is of fixed windows; add --method windows")
    return attrs.evolve(default, **given)


def _localized_narratives(options: argparse.Namespace) -> SampleStream:
    return read_localized_narratives(
        options.paths,
        options.images,
        image_pattern=options.image_pattern,
        method=_method(options, POINTER_STOPS),
        min_box=options.min_box,
        outside=options.outside,
        without_trajectory=options.without_trajectory,
        keep_splits=options.test_split is not None,
        check_durations=options.check_durations,
        tolerance=_tolerance(options),
    )


def _recordings(options: argparse.Namespace) -> SampleStream:
    return read_recordings(
        options.path,
        _method(options, POINTER_STOPS),
        images=options.images,
        min_box=options.min_box,
        outside=options.outside,
        without_trajectory=options.without_trajectory,
        tolerance=_tolerance(options),
    )


def _capgaze(options: argparse.Namespace) -> SampleStream:
    return read_capgaze(
        options.folder,
        options.images,
        eye=options.eye,
        method=_method(options, EYE_STOPS),
        min_box=options.min_box,
        outside=options.outside,
        without_trajectory=options.without_trajectory,
        without_description=options.without_description,
        check_durations=options.check_durations,
        tolerance=_tolerance(options),
    )


def _deper_json(options: argparse.Namespace) -> SampleStream:
    return read_deper_json(
        options.path,
        options.images,
        boxes=options.boxes,
        subjects=options.subjects,
        without_trajectory=options.without_trajectory,
        check_durations=options.check_durations,
        tolerance=_tolerance(options),
    )
