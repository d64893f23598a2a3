"""A bundle's manifest: size and sha256 of every file, and whether the files are as it says."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from pydeper.bundle.checksums import mismatched
from pydeper.bundle.layout import ADAPTER, CONFIG, MANIFEST, PERSONA_ENCODER, TOKENIZER, read_file, remedy
from pydeper.errors import BundleError
from pydeper.untrusted import check_format_version, file_size, is_inner_path, parse_json, shown

MANIFEST_FORMAT_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class ManifestEntry:
    """What the manifest says of one file: its size in bytes and the sha256 of its content, in hexadecimal."""

    size: int
    sha256: str


def verify(folder: Path, *, omitted: Collection[str] = (), trust_unchanged: bool = False) -> None:
    """Checks that a bundle holds exactly the files of its manifest, each with its size and sha256.

    Names at the top of the folder that begin with a dot (`.git`, `.gitattributes`, `.cache`) are not part of a bundle.

    Args:
        folder: The bundle.
        omitted: Files of the manifest that need not be there and are not read.
        trust_unchanged: Whether large files that were read before and have not changed since are not read again;
            `pydeper.bundle.checksums` says what goes unnoticed then.

    Raises:
        BundleError: A file is missing, altered or not listed, or the manifest is malformed; names the file.
    """
    entries = read_manifest(folder)
    if unlisted := sorted(set(list_files(folder)) - set(entries)):
        raise BundleError(
            f"{folder / unlisted[0]}: is not in {MANIFEST}{_and_others(unlisted)}: remove it; or, if the bundle is "
            f"yours and the file belongs there, write the manifest anew with `python -m export manifest {folder}`"
        )
    needed = {name: entry for name, entry in entries.items() if name not in omitted}
    check_files(folder, needed, trust_unchanged=trust_unchanged)


def read_manifest(folder: Path) -> dict[str, ManifestEntry]:
    """Reads a bundle's `manifest.json`: what it says of each file, by path inside the folder, with forward slashes.

    Raises:
        BundleError: It is missing or malformed, names a path that leaves the folder, or lacks a file that every bundle
            has.
    """
    path = folder / MANIFEST
    data = read_file(path)
    try:
        manifest = parse_json(data, BundleError)
        if not isinstance(manifest, dict):
            raise BundleError(f"must be an object, got {shown(manifest)}")
    except BundleError as error:
        raise BundleError(f"{path}: {error}; {remedy(folder)}") from error.__cause__
    try:
        version = manifest.get("format_version")
        check_format_version(version, MANIFEST_FORMAT_VERSION, "manifests", remedy(folder), BundleError)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{path}: files: must be an object, got {type(files).__name__}; {remedy(folder)}")
    entries = {_inner_path(name, path): _entry(name, entry, path) for name, entry in files.items()}
    folded = {name.casefold(): name for name in entries}
    if twice := [name for name in entries if folded[name.casefold()] != name]:
        raise BundleError(
            f"{path}: files: {twice[0]!r} and {folded[twice[0].casefold()]!r} are one file on many systems; "
            + remedy(folder)
        )
    for needed in (CONFIG, PERSONA_ENCODER, ADAPTER, TOKENIZER):
        if needed not in entries:
            raise BundleError(f"{path}: does not list {needed}, which every bundle has; {remedy(folder)}")
    return entries


def list_files(folder: Path) -> list[str]:
    """Returns the files of a bundle except its manifest: sorted paths inside the folder, with forward slashes."""
    top = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    files = (inner for path in top for inner in ([path] if not path.is_dir() else path.rglob("*")))
    return sorted(path.relative_to(folder).as_posix() for path in files if not path.is_dir())


def check_files(folder: Path, entries: Mapping[str, ManifestEntry], *, trust_unchanged: bool = False) -> None:
    """Checks some files of a bundle against their entries in the manifest.

    Raises:
        BundleError: A file is missing or altered, or is a link that leads out of the bundle; names the file.
    """
    home = _home(folder)
    # Sizes first: they cost nothing, and a file cut short is the commonest damage.
    for name, entry in entries.items():
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(home):
            raise BundleError(f"{path}: is a link that leads out of the bundle, to {os.path.realpath(path)}; copy it")
        if (size := file_size(path)) is None:
            raise BundleError(f"{path}: is missing, but {MANIFEST} lists it; {remedy(folder)}")
        if size != entry.size:
            raise BundleError(f"{path}: has {size} bytes instead of the {entry.size} of {MANIFEST}; {remedy(folder)}")
    expected = {folder / name: entry.sha256 for name, entry in entries.items()}
    try:
        wrong = mismatched(expected, trust_unchanged=trust_unchanged)
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    if wrong:
        raise BundleError(f"{wrong[0]}: its sha256 is not the one of {MANIFEST}; {remedy(folder)}")


def _home(folder: Path) -> Path:
    """Returns where links may lead: into the bundle, or in the Hub's cache to the contents beside its snapshots."""
    real = Path(os.path.realpath(folder))
    return real.parents[1] if real.parent.name == "snapshots" else real


def _inner_path(name: str, manifest: Path) -> str:
    # Names at the top that begin with a dot are not part of a bundle, see `verify`.
    if not is_inner_path(name) or name.startswith(".") or name.casefold() == MANIFEST:
        raise BundleError(
            f"{manifest}: files: {shown(name)} is not the path of a file inside the bundle on every system; "
            "do not use it, or give the file a plain name"
        )
    return name


def _entry(name: str, entry: object, manifest: Path) -> ManifestEntry:
    match entry:
        case {"size": int(size), "sha256": str(digest)} if (
            _SHA256.fullmatch(digest) and type(size) is int and size >= 0
        ):
            return ManifestEntry(size, digest)
    raise BundleError(
        f"{manifest}: files.{name}: must be an object with a whole number `size` of bytes and a `sha256` of 64 "
        f"hexadecimal digits; {remedy(manifest.parent)}"
    )


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
