"""The samples of an experiment: prepared once, then kept in its folder."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from training.preparation.prepare import prepare, summary
from training.preparation.prepared_folder import SAMPLES
from training.preparation.splits import TRAIN, SplitsError, hash_order
from training.reproduction.sources import OWN, DataOptions, DataSource, Reading, open_source

OPTIONS_FILE = "options.json"
"""In a folder that `prepared` made: the options that the data were read with."""


def prepared(source: DataSource, data: Path, folder: Path, options: DataOptions = DataOptions()) -> Path:  # noqa: B008
    """The experiment's samples file: the one in `data` where there is one, else what `prepare` makes of `data`.

    Args:
        source: The data set.
        data: As it was published, or a folder that `prepare` made.
        folder: For what is prepared.
        options: How the data are read and split.

    Raises:
        InvalidArgumentError: `data` is neither, or the samples were prepared with other options.
        SplitsError: The data set lacks what its splits need.
    """
    if (samples := find_prepared(data, folder, options)) is None:
        with opened(source, data, options) as reading:
            print(reading.about)
            report = prepare(reading.stream, reading.images, folder, reading.options)
        with atomic_path(folder / OPTIONS_FILE) as temporary:
            temporary.write_text(json.dumps(_recorded(options), indent=1) + "\n", encoding="utf-8")
        print(summary(report, folder))
        samples = folder / SAMPLES
    if source.training_samples is None:
        return samples
    # Beside the original, because images are named relative to the file.
    fewer = samples.with_name(f"samples-{source.training_samples}.jsonl")
    if not fewer.is_file():
        limit_training_samples(samples, fewer, source.training_samples)
    return fewer


def find_prepared(data: Path, folder: Path, options: DataOptions) -> Path | None:
    """The samples file that is there already, in `data` or in the experiment's folder; None where there is none.

    Raises:
        InvalidArgumentError: It was made with other options.
    """
    if (samples := data / SAMPLES).is_file():
        if given := _changed(options):
            raise InvalidArgumentError(
                f"{data}: is prepared, and its splits.json says who is unseen, so {', '.join(given)} cannot be given; "
                "name the folder that the data were published in"
            )
        return samples
    if not (samples := folder / SAMPLES).is_file():
        return None
    now = _recorded(options)
    try:
        before = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # `prepare` made the folder by itself
        before = _recorded(DataOptions())
    if different := [name for name in now if before.get(name) != now[name]]:
        raise InvalidArgumentError(
            f"{folder}: was prepared with {different[0]} {before.get(different[0])!r}, not {now[different[0]]!r}; use "
            "another --out, or delete that folder"
        )
    return samples


@contextlib.contextmanager
def opened(source: DataSource, data: Path, options: DataOptions) -> Iterator[Reading]:
    """Opens a data set as it was published; errors of its splits say what else can be done.

    Raises:
        SplitsError: In the block, and with a remedy.
    """
    reading = open_source(source, data, options)
    try:
        yield reading
    except SplitsError as error:
        remedies = ["name the unseen people of your data by --unseen"]
        if reading.options.test_split is not None and options.splits != OWN:
            remedies.append("make splits of our own by --splits own")
        raise SplitsError(f"{error}. You can {', or '.join(remedies)}") from error


def limit_training_samples(samples: Path, fewer: Path, count: int) -> None:
    """Writes a samples file with at most `count` training samples of each person, by order of hashes; others stay."""
    lines = samples.read_text(encoding="utf-8").splitlines()
    own: dict[str, list[str]] = {}
    for line in lines:
        record = json.loads(line)
        if record.get("split") == TRAIN:
            own.setdefault(record["subject"], []).append(line)
    chosen = {line for texts in own.values() for line in hash_order(texts)[:count]}
    kept = [line for line in lines if line in chosen or json.loads(line).get("split") != TRAIN]
    with atomic_path(fewer) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _recorded(options: DataOptions) -> dict[str, Any]:
    """The options as JSON gives them back."""
    recorded: dict[str, Any] = json.loads(json.dumps(attrs.asdict(options)))
    return recorded


def _changed(options: DataOptions) -> list[str]:
    default = _recorded(DataOptions())
    return [name for name, value in _recorded(options).items() if value != default[name]]
