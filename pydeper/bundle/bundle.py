"""What a model is on disk: finding it, checking it against its manifest, reading its config."""

import glob
import os
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path

import attrs

from pydeper import hub
from pydeper.bundle.config import BundleConfig, Precision, VLMConfig
from pydeper.bundle.default import default_model_name
from pydeper.bundle.layout import ADAPTER, BUILTIN, CARD, CONFIG, MANIFEST, PERSONA_ENCODER, TOKENIZER, read_file
from pydeper.bundle.manifest import ManifestEntry, check_files, read_manifest, verify
from pydeper.bundle.vlm_files import (
    VLMFiles,
    check_precision,
    choose_files,
    precisions_of,
    runtimes_for,
    unneeded_files,
)
from pydeper.errors import BundleError
from pydeper.runtime.target import Runtime, Target, choose_target

_FOR_PERSONAS = (CONFIG, PERSONA_ENCODER, TOKENIZER)
"""The files that making a persona takes."""

_FOR_SOFT_TOKENS = (*_FOR_PERSONAS, ADAPTER)
"""The files that making a persona, and a soft token of it, takes."""


@attrs.frozen
class EncoderBundle:
    """A model's folder, found, and checked as far as making a persona needs it.

    Attributes:
        folder: Where its files lie.
        model_id: What it is called wherever it goes: a Hub id, or the bundle's own name.
        revision: Its commit on the Hub, or None where it does not come from there.
        config: Its `config.json`.
    """

    folder: Path
    model_id: str
    revision: str | None
    config: BundleConfig

    @property
    def source(self) -> str:
        """What finds the bundle again, together with its revision: a Hub id, a built-in model's name, or its folder."""
        if self.revision is not None:
            return self.model_id
        return self.folder.name if self.folder.parent == BUILTIN else str(self.folder.absolute())


@attrs.frozen
class Bundle(EncoderBundle):
    """A model's folder, found and checked whole.

    Attributes:
        vlm_folder: Where the VLM's files lie: a folder in the bundle, or a repository in the Hub's cache.
        precision: Which of them to open: see `pydeper.bundle.vlm_files.find_files`.
        target: The runtime that they were chosen for, and why that one.
    """

    vlm_folder: Path
    precision: Precision
    target: Target


def open_bundle(
    name_or_folder: str | PathLike[str] | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    precision: Precision | None = None,
    runtime: Runtime | None = None,
) -> Bundle:
    """Finds a model, checks the files that will be used and reads its config.

    The manifest covers the bundle's own files: those needed for the precision and the runtime are checked against it,
    and the VLM's other files need not be there. From the Hub only the files needed are fetched. Where `vlm.source` is
    a Hub repository, its files are not in the manifest; they are pinned by the commit in `vlm.source_revision`.

    Large files that were checked before and have not changed since are not read again; see `pydeper.bundle.checksums`.

    Args:
        name_or_folder: The name of a built-in model (``"tiny"``), a folder, or a Hub id (``"org/name"``). A folder
            that exists wins over a Hub id of the same spelling. None is the default: ``$PYDEPER_MODEL``, and where
            that is not set the built-in "tiny", with a warning once in a process.
        revision: Branch, tag or commit of a Hub id.
        local_files_only: Never connect to the Hub; use what its local cache holds.
        precision: Which variant of the VLM; None is the only one there is, and of several the one in `config.json`.
        runtime: What will compute the VLM; None chooses by the VLM's files and by what is installed (`choose_target`).

    Raises:
        BundleError: There is no such model, a file is missing, altered or not in the manifest, the VLM does not come
            in that precision or for that runtime, or the format is one that this version does not read; names the file
            and the remedy.
        InvalidArgumentError: There is no such precision or runtime.
        RuntimeMissingError: The runtime is not installed, or none that reads the VLM's files.
    """
    check_precision(precision)
    found = _find(name_or_folder, revision, local_files_only)
    vlm = found.config.vlm
    unneeded: list[str] = []
    if not vlm.is_on_hub:
        prefix = f"{vlm.source}/"
        names = [name.removeprefix(prefix) for name in found.entries if name.startswith(prefix)]
        files, target = _choose(vlm, names, precision, runtime, str(found.folder / vlm.source))
        unneeded = [prefix + name for name in unneeded_files(names, files)]
    found.fetch_and_verify(omitted=unneeded, local_files_only=local_files_only)
    vlm_folder = found.folder / vlm.source
    if vlm.is_on_hub:
        vlm_folder, files, target = _fetch_vlm(vlm, precision, runtime, local_files_only)
    return Bundle(found.folder, found.model_id, found.commit, found.config, vlm_folder, files.precision, target)


def open_encoder_bundle(
    name_or_folder: str | PathLike[str] | None = None, *, revision: str | None = None, local_files_only: bool = False
) -> EncoderBundle:
    """Finds a model as `open_bundle` does, but fetches and checks only what making a persona takes.

    The vision-language model need not be there, and is neither fetched nor read. The arguments are those of
    `open_bundle`.

    Raises:
        BundleError: There is no such model, or a file of the persona encoder is missing, altered or not in the
            manifest, or the format is one that this version does not read; names the file and the remedy.
    """
    return _open_only(_FOR_PERSONAS, name_or_folder, revision, local_files_only)


def open_bundle_without_vlm(
    name_or_folder: str | PathLike[str] | None = None, *, revision: str | None = None, local_files_only: bool = False
) -> EncoderBundle:
    """Finds a model as `open_bundle` does, but for its vision-language model, which runs on a server.

    The vision-language model's files need not be there, and are neither fetched nor read. The arguments are those of
    `open_bundle`.

    Raises:
        BundleError: As for `open_encoder_bundle`, and for the adapter.
    """
    return _open_only(_FOR_SOFT_TOKENS, name_or_folder, revision, local_files_only)


def builtin_names() -> list[str]:
    """Returns the names of the models that come with pydeper."""
    return sorted(path.parent.name for path in BUILTIN.glob(f"*/{CONFIG}"))


def read_config(folder: Path) -> BundleConfig:
    """Reads a bundle's `config.json`.

    Raises:
        BundleError: It is missing or malformed, or of a format that this version does not read.
    """
    data = read_file(folder / CONFIG)
    try:
        return BundleConfig.from_json(data)
    except BundleError as error:
        raise BundleError(f"{folder / CONFIG}: {error}") from error.__cause__


@attrs.frozen(kw_only=True)
class _Found:
    """A model whose manifest and config are there and read; its other files may still be on the Hub."""

    folder: Path
    model_id: str
    commit: str | None
    is_on_hub: bool
    entries: Mapping[str, ManifestEntry]
    config: BundleConfig

    def fetch_and_verify(self, *, omitted: Collection[str], local_files_only: bool) -> None:
        """Fetches the bundle's own files where it is on the Hub, and checks them, but for those `omitted`."""
        if self.is_on_hub:
            hub.fetch_folder(
                self.model_id,
                revision=self.commit,
                local_files_only=local_files_only,
                error=BundleError,
                patterns=[glob.escape(name) for name in (*self.entries, MANIFEST) if name not in omitted],
            )
            # People edit a card on its page, which must not keep anybody from loading the model.
            omitted = [*omitted, CARD]
        verify(self.folder, omitted=omitted, trust_unchanged=True)


def _open_only(
    needed: Collection[str], name_or_folder: str | PathLike[str] | None, revision: str | None, local_files_only: bool
) -> EncoderBundle:
    found = _find(name_or_folder, revision, local_files_only)
    omitted = [name for name in found.entries if name not in needed]
    found.fetch_and_verify(omitted=omitted, local_files_only=local_files_only)
    return EncoderBundle(found.folder, found.model_id, found.commit, found.config)


def _find(name_or_folder: str | PathLike[str] | None, revision: str | None, local_files_only: bool) -> _Found:
    name_or_folder = default_model_name() if name_or_folder is None else name_or_folder
    folder, model_id, commit = _locate(name_or_folder, revision, local_files_only)
    entries = read_manifest(folder)
    check_files(folder, {CONFIG: entries[CONFIG]})
    config = read_config(folder)
    return _Found(
        folder=folder,
        model_id=model_id or config.name,
        commit=commit,
        is_on_hub=commit is not None,
        entries=entries,
        config=config,
    )


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


def _choose(
    vlm: VLMConfig, names: list[str], precision: Precision | None, runtime: Runtime | None, where: str
) -> tuple[VLMFiles, Target]:
    """Chooses the runtime and the VLM's files for it from a listing of its folder."""
    target = choose_target(runtime, readers=runtimes_for(names, precision) or runtimes_for(names))
    if precision is None:
        there = precisions_of(names, target.runtime)
        precision = there[0] if len(there) == 1 else vlm.precision
    return choose_files(names, precision, where, target.runtime), target


def _fetch_vlm(
    vlm: VLMConfig, precision: Precision | None, runtime: Runtime | None, local_files_only: bool
) -> tuple[Path, VLMFiles, Target]:
    """Returns the folder in the Hub's cache with the chosen files, these, and the runtime that they are for."""
    commit = vlm.source_revision
    assert commit is not None
    names = hub.list_files(vlm.source, commit=commit, local_files_only=local_files_only, error=BundleError)
    files, target = _choose(vlm, list(names), precision, runtime, f"{vlm.source} at {commit}")
    folder = hub.fetch_folder(
        vlm.source,
        revision=commit,
        local_files_only=local_files_only,
        error=BundleError,
        patterns=files.patterns(),
    )
    return folder, files, target


def _refuse_revision(revision: str | None, what: str) -> None:
    if revision is not None:
        raise BundleError(f"revision: {what} has no revisions (got {revision!r}); only models on the Hub have")
