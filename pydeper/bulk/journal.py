"""Descriptions as lines of JSON in a file that only grows: what a batch has added is on the disk before the next."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.files.append_only import AppendOnlyFile
from pydeper.untrusted import parse_json, shown


@attrs.frozen
class Description:
    """One line: an image's name, the persona's, or None for nobody in particular, and the text."""

    image: str
    persona: str | None
    text: str

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is a description of."""
        return self.image, self.persona


class Journal:
    """A JSON Lines file of descriptions, open for adding to, and locked against a second process that would.

    A process that is killed while it writes leaves a last line that is cut short. It is removed when the file is opened
    again, so a line is there whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, which is made where there is none, and removes what an earlier process left half-written.

        Raises:
            InvalidArgumentError: Another process adds to it, or it holds something else than descriptions.
            OSError: It cannot be opened.
        """
        self.path = path
        try:
            self._file = AppendOnlyFile(path)
        except BlockingIOError as error:
            raise InvalidArgumentError(
                f"{path}: another process is writing descriptions there; wait for it, or name another output"
            ) from error
        try:
            self._file.cut(sum(len(line) for line, _ in self._lines()))
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """The file's bytes."""
        return self._file.size

    def descriptions(self) -> Iterator[Description]:
        """Yields what the file holds, in its order."""
        for _, description in self._lines():
            yield description

    def append(self, descriptions: Iterable[Description]) -> None:
        """Adds lines, and returns when they are on the disk.

        Raises:
            OSError: They could not all be written, because the disk is full for one; names the file.
        """
        lines = [{"image": new.image, "persona": new.persona, "description": new.text} for new in descriptions]
        self._file.append("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())

    def remove(self) -> None:
        """Removes the file, and closes it."""
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Closes the file, and lets other processes add to it."""
        self._file.close()

    def _lines(self) -> Iterator[tuple[bytes, Description]]:
        """Yields every whole line with what it says; what follows the last of them was never finished."""
        with self.path.open("rb") as file:
            broken: int | None = None
            for number, line in enumerate(file, 1):
                description = self._parse(line, number)
                if description is None:
                    broken = broken or number
                elif broken is not None:
                    raise InvalidArgumentError(
                        f"{self.path}, line {broken}: is no JSON, and lines follow that are: delete this line"
                    )
                else:
                    yield line, description

    def _parse(self, line: bytes, number: int) -> Description | None:
        """Returns what a line says; None where it is no whole line."""
        if not line.endswith(b"\n"):
            return None
        try:
            found = parse_json(line, InvalidArgumentError)
        except InvalidArgumentError:
            return None
        match found:
            case {"image": str(image), "persona": str() | None as persona, "description": str(text)} if len(found) == 3:
                return Description(image, persona, text)
        raise InvalidArgumentError(
            f"{self.path}, line {number}: is no description (an image, a persona and a description), but "
            f"{shown(found)}; delete the line, or name another output"
        )
