"""What a model is on disk: finding it, checking it against its manifest, reading its config."""

import glob
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pydeper import hub
from pydeper.bundle.checksums import mismatched
from pydeper.bundle.config import BundleConfig, Precision, VLMConfig
from pydeper.bundle.vlm_files import check_precision, choose_files, precisions_of, unneeded_files
from pydeper.errors import BundleError
from pydeper.untrusted import check_format_version, is_inner_path, parse_json, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST_FORMAT_VERSION = 1
DEFAULT_MODEL_VARIABLE = "PYDEPER_MODEL"
BUILTIN = Path(__file__).parents[1] / "builtin"

CONFIG = "config.json"
PERSONA_ENCODER = "persona_encoder.onnx"
ADAPTER = "adapter.onnx"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
CARD = "README.md"

_MAX_JSON = 4 * 1024 * 1024
_MAX_TOKENIZER = 64 * 1024 * 1024  # Qwen2's has 7 MB
_SHA256 = re.compile(r"[0-9a-f]{64}")
_warned_of_demonstration_model = False


class DemonstrationModelWarning(UserWarning):
    """The built-in demonstration model is used without having been asked for by name."""


@attrs.frozen
class Bundle:
    """A model's folder, found and checked.

    Attributes:
        folder: Where its files lie.
        model_id: What it is called wherever it goes: a Hub id, or the bundle's own name.
        revision: Its commit on the Hub, or None where it does not come from there.
        config: Its `config.json`.
        vlm_folder: Where the VLM's files lie: a folder in the bundle, or a repository in the Hub's cache.
        precision: Which of them to open: see `pydeper.bundle.vlm_files.find_files`.
    """

    folder: Path
    model_id: str
    revision: str | None
    config: BundleConfig
    vlm_folder: Path
    precision: Precision


@attrs.frozen
class ManifestEntry:
    """What the manifest says of one file: its size in bytes and the sha256 of its content, in hexadecimal."""

    size: int
    sha256: str


def open_bundle(
    name_or_folder: str | PathLike[str] | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    precision: Precision | None = None,
) -> Bundle:
    """Finds a model, checks the files that will be used and reads its config.

    The manifest covers the bundle's own files: those needed for the precision are checked against it, and the VLM's
    files in other precisions need not be there. From the Hub only the files needed are fetched. Where `vlm.source` is
    a Hub repository, its files are not in the manifest; they are pinned by the commit in `vlm.source_revision`.

    Large files that were checked before and have not changed since are not read again; see `pydeper.bundle.checksums`.

    Args:
        name_or_folder: The name of a built-in model (``"tiny"``), a folder, or a Hub id (``"org/name"``). A folder
            that exists wins over a Hub id of the same spelling. None is the default: ``$PYDEPER_MODEL``, and where
            that is not set the built-in "tiny", with a warning once in a process.
        revision: Branch, tag or commit of a Hub id.
        local_files_only: Never connect to the Hub; use what its local cache holds.
        precision: Which variant of the VLM; None is the only one there is, and of several the one in `config.json`.

    Raises:
        BundleError: There is no such model, a file is missing, altered or not in the manifest, the VLM does not come
            in that precision, or the format is one that this version does not read; names the file and the remedy.
        InvalidArgumentError: There is no such precision.
    """
    check_precision(precision)
    name_or_folder = default_model_name() if name_or_folder is None else name_or_folder
    folder, model_id, commit = _locate(name_or_folder, revision, local_files_only)
    entries = read_manifest(folder)
    _check_files(folder, {CONFIG: entries[CONFIG]})
    config = read_config(folder)
    unneeded: list[str] = []
    if not config.vlm.is_on_hub:
        precision, unneeded = _choose_variant(folder, config.vlm, entries, precision)
    if model_id and commit:
        hub.fetch_folder(
            model_id,
            revision=commit,
            local_files_only=local_files_only,
            error=BundleError,
            patterns=[glob.escape(name) for name in (*entries, MANIFEST) if name not in unneeded],
        )
    # People edit a card on its page, which must not keep anybody from loading the model.
    verify(folder, omitted=[*unneeded, CARD] if commit else unneeded, trust_unchanged=True)
    vlm_folder = folder / config.vlm.source
    if config.vlm.is_on_hub:
        vlm_folder, precision = _fetch_vlm(config.vlm, precision, local_files_only)
    assert precision is not None
    return Bundle(folder, model_id or config.name, commit, config, vlm_folder, precision)


def builtin_names() -> list[str]:
    """Returns the names of the models that come with pydeper."""
    return sorted(path.parent.name for path in BUILTIN.glob(f"*/{CONFIG}"))


def default_model_name() -> str:
    """Returns ``$PYDEPER_MODEL``, or "tiny" with a `DemonstrationModelWarning` the first time in a process."""
    global _warned_of_demonstration_model
    if name := os.environ.get(DEFAULT_MODEL_VARIABLE, "").strip():
        return name
    if not _warned_of_demonstration_model:
        _warned_of_demonstration_model = True
        warnings.warn(
            "no model was named, so pydeper uses its built-in demonstration model 'tiny', which knows drawn scenes of "
            "coloured shapes only, not photographs. Name a real one: DeperModel.from_pretrained('org/name'), or set "
            f"{DEFAULT_MODEL_VARIABLE}=org/name. Naming 'tiny' keeps it, without this warning.",
            DemonstrationModelWarning,
            stacklevel=_frames_inside_pydeper(),
        )
    return "tiny"


def read_config(folder: Path) -> BundleConfig:
    """Reads a bundle's `config.json`.

    Raises:
        BundleError: It is missing or malformed, or of a format that this version does not read.
    """
    data = _read(folder / CONFIG)
    try:
        return BundleConfig.from_json(data)
    except BundleError as error:
        raise BundleError(f"{folder / CONFIG}: {error}") from error.__cause__


def open_tokenizer(path: Path) -> "Tokenizer":
    """Reads a bundle's `tokenizer.json`.

    Its padding and truncation are switched off: pydeper does both itself, and a file could ask for padding without end.

    Raises:
        BundleError: It is missing, too large, or not a tokenizer that the installed `tokenizers` reads.
    """
    from tokenizers import Tokenizer

    data = _read(path, most=_MAX_TOKENIZER)
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # bare Exceptions, and of another base where the library's own code gives up
        reason = shown(str(error))
        raise BundleError(f"{path}: is not a tokenizer that this version of tokenizers reads: {reason}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # A user's own text never becomes special tokens.
    tokenizer.encode_special_tokens = True
    return tokenizer


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
    _check_files(folder, needed, trust_unchanged=trust_unchanged)


def read_manifest(folder: Path) -> dict[str, ManifestEntry]:
    """Reads a bundle's `manifest.json`: what it says of each file, by path inside the folder, with forward slashes.

    Raises:
        BundleError: It is missing or malformed, names a path that leaves the folder, or lacks a file that every bundle
            has.
    """
    path = folder / MANIFEST
    data = _read(path)
    try:
        manifest = parse_json(data, BundleError)
        if not isinstance(manifest, dict):
            raise BundleError(f"must be an object, got {shown(manifest)}")
    except BundleError as error:
        raise BundleError(f"{path}: {error}; {_again(folder)}") from error.__cause__
    try:
        version = manifest.get("format_version")
        check_format_version(version, MANIFEST_FORMAT_VERSION, "manifests", _again(folder), BundleError)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{path}: files: must be an object, got {type(files).__name__}; {_again(folder)}")
    entries = {_inner_path(name, path): _entry(name, entry, path) for name, entry in files.items()}
    folded = {name.casefold(): name for name in entries}
    if twice := [name for name in entries if folded[name.casefold()] != name]:
        raise BundleError(
            f"{path}: files: {twice[0]!r} and {folded[twice[0].casefold()]!r} are one file on many systems; "
            + _again(folder)
        )
    for needed in (CONFIG, PERSONA_ENCODER, ADAPTER, TOKENIZER):
        if needed not in entries:
            raise BundleError(f"{path}: does not list {needed}, which every bundle has; {_again(folder)}")
    return entries


def list_files(folder: Path) -> list[str]:
    """Returns the files of a bundle except its manifest: sorted paths inside the folder, with forward slashes."""
    top = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    files = (inner for path in top for inner in ([path] if not path.is_dir() else path.rglob("*")))
    return sorted(path.relative_to(folder).as_posix() for path in files if not path.is_dir())


def _locate(
    name_or_folder: str | PathLike[str], revision: str | None, local_files_only: bool
) -> tuple[Path, str | None, str | None]:
    """Returns the folder, and the Hub id (or the built-in's name) and commit where there are any."""
    name = os.fspath(name_or_folder)
    is_text = isinstance(name_or_folder, str)
    if is_text and name in builtin_names():
        _refuse_revision(revision, f"the built-in model {name!r}")
        return BUILTIN / name, name, None
    folder = Path(name).expanduser()
    if folder.is_dir():
        _refuse_revision(revision, f"the folder {folder}")
        return folder, None, None
    if is_text and hub.is_repo_id(name):
        # What else is needed, these two say.
        folder = hub.fetch_folder(
            name,
            revision=revision,
            local_files_only=local_files_only,
            error=BundleError,
            patterns=[CONFIG, MANIFEST],
        )
        return folder, name, folder.name
    what = f"{folder} is a file, not a folder" if folder.exists() else f"there is no model {name!r}"
    raise BundleError(
        f"{what}: give the name of a built-in model ({', '.join(builtin_names()) or 'none is installed'}), a bundle's "
        "folder, or a Hugging Face Hub id ('org/name')"
    )


def _choose_variant(
    folder: Path, vlm: VLMConfig, entries: Iterable[str], precision: Precision | None
) -> tuple[Precision, list[str]]:
    """Returns the precision to open, and the bundle's files that are for others alone."""
    prefix = f"{vlm.source}/"
    names = [name.removeprefix(prefix) for name in entries if name.startswith(prefix)]
    chosen = choose_files(names, precision or _default_precision(vlm, names), str(folder / vlm.source))
    return chosen.precision, [prefix + name for name in unneeded_files(names, chosen)]


def _fetch_vlm(vlm: VLMConfig, precision: Precision | None, local_files_only: bool) -> tuple[Path, Precision]:
    """Returns the folder in the Hub's cache with the files of one precision, and which that is."""
    commit = vlm.source_revision
    assert commit is not None
    names = hub.list_files(vlm.source, commit=commit, local_files_only=local_files_only, error=BundleError)
    chosen = choose_files(names, precision or _default_precision(vlm, names), f"{vlm.source} at {commit}")
    folder = hub.fetch_folder(
        vlm.source,
        revision=commit,
        local_files_only=local_files_only,
        error=BundleError,
        patterns=chosen.patterns(),
    )
    return folder, chosen.precision


def _default_precision(vlm: VLMConfig, names: Iterable[str]) -> Precision:
    there = precisions_of(names)
    return there[0] if len(there) == 1 else vlm.precision


def _check_files(folder: Path, entries: Mapping[str, ManifestEntry], *, trust_unchanged: bool = False) -> None:
    home = _home(folder)
    # Sizes first: they cost nothing, and a file cut short is the commonest damage.
    for name, entry in entries.items():
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(home):
            raise BundleError(f"{path}: is a link that leads out of the bundle, to {os.path.realpath(path)}; copy it")
        if not path.is_file():
            raise BundleError(f"{path}: is missing, but {MANIFEST} lists it; {_again(folder)}")
        if (size := path.stat().st_size) != entry.size:
            raise BundleError(f"{path}: has {size} bytes instead of the {entry.size} of {MANIFEST}; {_again(folder)}")
    expected = {folder / name: entry.sha256 for name, entry in entries.items()}
    try:
        wrong = mismatched(expected, trust_unchanged=trust_unchanged)
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    if wrong:
        raise BundleError(f"{wrong[0]}: its sha256 is not the one of {MANIFEST}; {_again(folder)}")


def _home(folder: Path) -> Path:
    """Returns where links may lead: into the bundle, or in the Hub's cache to the contents beside its snapshots."""
    real = Path(os.path.realpath(folder))
    return real.parents[1] if real.parent.name == "snapshots" else real


def _refuse_revision(revision: str | None, what: str) -> None:
    if revision is not None:
        raise BundleError(f"revision: {what} has no revisions (got {revision!r}); only models on the Hub have")


def _read(path: Path, most: int = _MAX_JSON) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)  # all that is asked for is allocated
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: is missing, so {path.parent} is not a bundle: check the path; {_again(path.parent)}"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise BundleError(f"{path}: is larger than {most} bytes, which no bundle's is; {_again(path.parent)}")
    return data


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
        f"hexadecimal digits; {_again(manifest.parent)}"
    )


def _again(folder: Path) -> str:
    return "reinstall pydeper" if folder.parent == BUILTIN else "download or export the bundle again"


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _frames_inside_pydeper() -> int:
    """Returns the `stacklevel` (for the caller's `warnings.warn`) of the line outside pydeper that led here."""
    home, level = str(Path(__file__).parents[1]) + os.sep, 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(home):
        frame, level = frame.f_back, level + 1
    return level
