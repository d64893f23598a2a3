"""The file that a run describes into: JSON Lines that grow, or Parquet that appears when all is described."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from pydeper.bulk.journal import Description, Journal
from pydeper.bulk.parquet import check_installed, read_parquet, write_parquet
from pydeper.bulk.settings import RunSettings
from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import is_stream

SUFFIXES = (".jsonl", ".parquet")


def check_suffix(path: Path) -> None:
    """Makes sure that descriptions can be written in the format that a file name ends in.

    Raises:
        InvalidArgumentError: The format is unknown, or pyarrow is missing for Parquet; or it is no file that can be
            gone on with, but a pipe or a device.
    """
    if is_stream(path):
        raise InvalidArgumentError(f"{path}: is a pipe or a device, which cannot be gone on with; name a file")
    if path.suffix not in SUFFIXES:
        raise InvalidArgumentError(f"{path}: must end in {' or '.join(SUFFIXES)}, which is the format")
    if path.suffix == ".parquet":
        check_installed()


class Output:
    """A file of descriptions that can be gone on with; a context manager that closes it.

    JSON Lines are added to `path` itself. A Parquet file cannot be added to, so its descriptions are collected as JSON
    Lines beside it (`path` and ``.part.jsonl``) until `finish` writes the file from them, in one piece, and removes
    them. The settings of the run stay beside the file (`path` and ``.run.json``).

    Attributes:
        path: The file.
        done: The image and the persona of each description that is there.
    """

    def __init__(self, path: Path, settings: RunSettings) -> None:
        """Opens a file, new or with descriptions of the same settings.

        Raises:
            InvalidArgumentError: Its descriptions are of other settings, or are not known to be of any; it is damaged,
                or another process adds to it.
            OSError: It cannot be read or written.
        """
        check_suffix(path)
        self.path = path
        self._is_parquet = path.suffix == ".parquet"
        journal = path.with_name(path.name + ".part.jsonl") if self._is_parquet else path
        record = path.with_name(path.name + ".run.json")
        there = [file for file in {path: None, journal: None} if file.exists() and file.stat().st_size]
        if there:
            _check_settings(there, record, settings)
        self._journal = Journal(journal)
        try:
            if not there:
                settings.write(record)
            self.done = {description.key for description in self._descriptions()}
        except BaseException:
            self.close()
            raise

    def append(self, descriptions: Iterable[Description]) -> None:
        """Adds descriptions, and returns when they are on the disk.

        Raises:
            OSError: They cannot be written.
        """
        new = [description for description in descriptions if description.key not in self.done]
        self._journal.append(new)
        self.done.update(description.key for description in new)

    def finish(self) -> None:
        """Makes the file what it is to be when nothing is left to describe.

        Raises:
            OSError: It cannot be written; all descriptions are kept.
        """
        if not self._is_parquet:
            return
        if self._journal.size or not self.path.exists():
            write_parquet(self.path, self._descriptions())
        self._journal.remove()

    def close(self) -> None:
        """Lets other processes go on with the file."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _descriptions(self) -> Iterator[Description]:
        """Yields all that is there, each description once."""
        finished: set[tuple[str, str | None]] = set()
        if self._is_parquet and self.path.exists():
            for description in read_parquet(self.path):
                finished.add(description.key)
                yield description
        # What is in both was collected by a process that was killed between writing the one and removing the other.
        yield from (description for description in self._journal.descriptions() if description.key not in finished)


def _check_settings(there: list[Path], record: Path, settings: RunSettings) -> None:
    """Refuses to add to descriptions that were not made with these settings."""
    names = " and ".join(file.name for file in there)
    if not record.exists():
        raise InvalidArgumentError(
            f"{there[0]}: is there already, and without {record.name}, which says how its descriptions were made: name "
            f"another output, or delete {names}"
        )
    if differences := settings.differences(RunSettings.read(record)):
        raise InvalidArgumentError(
            f"{there[0]}: its descriptions were made with other settings ({'; '.join(differences)}): give the same, "
            f"name another output, or delete {names} to begin anew"
        )
