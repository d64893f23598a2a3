"""The images that a data set names, found in a folder."""

import itertools
import os
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from pydeper.errors import InvalidSampleError
from pydeper.untrusted import shown_path


def canonical(path: Path) -> Path:
    """The path from the root, without links in its folders.

    An image that is a link keeps its own name: what it points at may have none that tells the format.
    """
    return path.parent.resolve() / path.name


def relative_path(path: Path, folder: Path) -> str:
    """The path of a file as it is written into a file in `folder`: relative, with forward slashes."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on Windows, where the two are on different drives
        return path.as_posix()


class MissingImageError(InvalidSampleError):
    """A record names an image that is not in its folder."""


class FileNames:
    """Files found by names that may be composed otherwise: macOS wrote "é" as two characters, tables have it as one."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, path: PurePosixPath) -> Path:
        """The path of a file in a folder, as it is called there; where there is none, the path by the given names."""
        exact = folder / path
        if str(path).isascii() or exact.exists():
            return exact
        for name in path.parts:
            there = self._listing(folder).get(unicodedata.normalize("NFC", name), [])
            folder = folder / (name if (folder / name).exists() or len(there) != 1 else there[0])
        return folder if folder.exists() else exact

    def with_stem(self, folder: Path, path: PurePosixPath) -> list[Path]:
        """The files of a folder that are called so but for their suffix."""
        parent = self.find(folder, path.parent) if path.parent.parts else folder
        wanted = unicodedata.normalize("NFC", path.name)
        fitting = (names for composed, names in self._listing(parent).items() if _stem(composed) == wanted)
        return [parent / name for name in sorted(itertools.chain.from_iterable(fitting))]

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing = defaultdict(list)
            try:
                for name in os.listdir(folder):  # noqa: PTH208 - names are all that is wanted
                    listing[unicodedata.normalize("NFC", name)].append(name)
            except OSError:
                pass
            self._listings[folder] = dict(listing)
        return self._listings[folder]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


class ImageFolder:
    """The folder that a data set's images are in."""

    def __init__(self, folder: str | os.PathLike[str], *, without_suffix: bool = False) -> None:
        """Opens a folder.

        Args:
            folder: It.
            without_suffix: Whether a name may lack its suffix, as trackers name their stimuli.

        Raises:
            InvalidSampleError: There is none.
        """
        self.folder = Path(folder)
        self._without_suffix = without_suffix
        self._names = FileNames()
        if not self.folder.is_dir():
            raise InvalidSampleError(f"{self.folder}: is no folder; name the one that holds the images")

    def find(self, name: str) -> Path:
        """The path of an image, by its name inside the folder (with forward slashes).

        Raises:
            MissingImageError: It is not there.
            InvalidSampleError: The name leads out of the folder, is none, or fits several images.
        """
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise InvalidSampleError(f"image name {shown_path(name)} does not name a file inside {self.folder}")
        try:
            path = self._names.find(self.folder, parts)
            found = path.is_file()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidSampleError(f"image name {shown_path(name)} cannot be a file's ({reason})") from error
        if not found and self._without_suffix and parts.name:
            fitting = self._names.with_stem(self.folder, parts)
            if len(fitting) > 1:
                several = ", ".join(file.name for file in fitting)
                raise InvalidSampleError(f"image {shown_path(name)} may be {several} in {self.folder}; give its suffix")
            if fitting:
                return canonical(fitting[0])
        if not found:
            raise MissingImageError(f"image {shown_path(name)} is not in {self.folder}")
        return canonical(path)

    def holds(self, name: str) -> bool:
        """Whether the folder holds one image of that name."""
        try:
            self.find(name)
        except InvalidSampleError:
            return False
        return True
