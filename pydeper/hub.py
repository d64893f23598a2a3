"""What personas and models share about the Hugging Face Hub: fetching, publishing, and errors that say what to do.

`huggingface_hub` is imported only when one of these functions is called; its own settings (`HF_TOKEN`, `HF_HOME`,
`HF_HUB_OFFLINE`, `HF_ENDPOINT`) apply.
"""

import errno
import json
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

import attrs

from pydeper.errors import PydeperError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAIN = "main"
_LIBRARY = "pydeper"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONNECT_SECONDS = 5.0
_PRECONDITION_FAILED = 412
_SERVER_ERROR = 500
_TROUBLE = "it has trouble of its own; try again later, what is done is kept"
_STATUSES = {
    401: "it does not know who asks; log in with `hf auth login`, or set HF_TOKEN to a token that is valid",
    403: "the token may not do this; use one with the right to (`hf auth login`, or HF_TOKEN)",
    429: "it was asked too often; wait some minutes, and log in if you are not: the limits are wider then",
}
# What the Hub's client fails with when it reads another server's page as the Hub's answer.
_NO_HUB = (LookupError, TypeError, AttributeError, json.JSONDecodeError)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_repo_id(name: str) -> bool:
    """Tells whether `name` has the form of a Hub id, ``"organisation/name"``."""
    return _REPO_ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def list_files(repo_id: str, *, commit: str, local_files_only: bool, error: type[PydeperError]) -> list[str]:
    """Lists a model repository's files at a commit.

    A commit never changes, so the Hub is asked only where `fetch_folder` has not yet fetched anything of it.

    Returns:
        Paths inside the repository, with forward slashes.

    Raises:
        PydeperError: Of the type `error`; the list cannot be had, with the reason and the remedy.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    with _explained(f"model {repo_id!r}", commit, error):
        try:
            return [file.path for file in get_cached_repo_tree(repo_id, revision=commit)]
        except CachedRepoTreeNotFoundError:
            if local_files_only:
                raise
        return _api().list_repo_files(repo_id, revision=commit)


def fetch_folder(
    repo_id: str,
    *,
    revision: str | None,
    local_files_only: bool,
    error: type[PydeperError],
    patterns: Sequence[str] | None = None,
) -> Path:
    """Downloads a model repository, or some of its files, into the Hub's cache (or finds it there).

    Args:
        repo_id: The repository.
        revision: Branch, tag or commit; None is the main branch.
        local_files_only: Never connect to the Hub.
        error: The type of error to raise.
        patterns: Which files (patterns of `fnmatch`); None is all but those that begin with a dot.

    Returns:
        The snapshot's folder, whose name is the commit. It may hold further files, from earlier calls.

    Raises:
        PydeperError: Of the type `error`; the files cannot be had, with the reason and the remedy.
    """
    from huggingface_hub import snapshot_download

    local_files_only = local_files_only or _is_offline(revision)
    with _explained(f"model {repo_id!r}", revision, error):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=None if patterns is None else list(patterns),
            ignore_patterns=[".*"],
            library_name=_LIBRARY,
        )
    return Path(folder)


def fetch_file(
    repo_id: str, filename: str, *, revision: str | None, local_files_only: bool, error: type[PydeperError]
) -> Path:
    """Downloads one file of a repository into the Hub's cache (or finds it there).

    Raises:
        PydeperError: Of the type `error`; the file cannot be had, with the reason and the remedy.
    """
    from huggingface_hub import hf_hub_download

    local_files_only = local_files_only or _is_offline(revision)
    with _explained(f"{filename!r} of {repo_id!r}", revision, error):
        path = hf_hub_download(
            repo_id, filename, revision=revision, local_files_only=local_files_only, library_name=_LIBRARY
        )
    return Path(path)


@attrs.frozen
class RemoteFile:
    """A file in a repository: its size in bytes, its git hash, and the sha256 of a large one (LFS), else None."""

    size: int
    git_hash: str
    sha256: str | None


@attrs.frozen
class Branch:
    """A repository's branch as it stood when it was read.

    Attributes:
        commit: Its newest commit.
        files: By path inside the repository.
    """

    commit: str
    files: Mapping[str, RemoteFile]


@attrs.frozen
class Commit:
    """A commit and its address."""

    commit: str
    url: str


def read_branch(repo_id: str, branch: str, *, error: type[PydeperError]) -> Branch | None:
    """Asks the Hub for a branch of a model repository; None where there is no such repository or branch.

    Raises:
        PydeperError: Of the type `error`; the Hub did not say, with the reason and the remedy.
    """
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    with _explained(f"repository {repo_id!r}", branch, error):
        try:
            commit = _api().model_info(repo_id, revision=branch).sha
        except GatedRepoError:
            raise
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        assert commit is not None
        tree = _api().list_repo_tree(repo_id, revision=commit, recursive=True)
        files = {
            file.path: RemoteFile(file.size, file.blob_id, file.lfs.sha256 if file.lfs else None)
            for file in tree
            if isinstance(file, RepoFile)
        }
    return Branch(commit, files)


def make_repository(repo_id: str, *, branch: str = MAIN, private: bool, error: type[PydeperError]) -> Branch:
    """Makes a model repository, and a branch of it, where they do not exist; returns the branch.

    Args:
        repo_id: The repository.
        branch: One that has to be made starts at the main branch.
        private: Whether a repository that has to be made is private (else it is what its owner's settings say). One
            that exists must be so already.
        error: The type of error to raise.

    Raises:
        PydeperError: Of the type `error`; the repository is public though `private` is asked for, or the Hub refused,
            with the reason and the remedy.
    """
    what = f"repository {repo_id!r}"
    with _explained(what, branch, error):
        api = _api()
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise error(f"{what} exists already and is public: make it private in its settings, or choose another")
        if branch != MAIN:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
    if (found := read_branch(repo_id, branch, error=error)) is None:
        raise error(f"{what} was made, but has no branch {branch!r} yet: try again")
    return found


def commit(
    repo_id: str,
    *,
    branch: str,
    parent: str,
    add: Mapping[str, Path | bytes],
    delete: Collection[str] = (),
    message: str,
    error: type[PydeperError],
) -> Commit | None:
    """Adds and deletes files of a model repository in one commit.

    Large files go first, each by itself; those that the Hub has already, from a call that was interrupted, say, are
    not sent again. Nothing is visible before the commit, and where nothing changes there is none.

    Args:
        repo_id: The repository.
        branch: Which branch goes forward.
        parent: The commit that it is expected at.
        add: Path inside the repository -> a file on disk, or content.
        delete: Paths inside the repository.
        message: What the commit says.
        error: The type of error to raise.

    Returns:
        The commit, or the newest one where nothing changes. None: the branch is not at `parent` any more, and nothing
        was done.

    Raises:
        PydeperError: Of the type `error`; the Hub refused, with the reason and the remedy.
    """
    from huggingface_hub import CommitOperation, CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    with _explained(f"repository {repo_id!r}", branch, error):
        operations: list[CommitOperation] = [
            *(CommitOperationAdd(path, source) for path, source in add.items()),
            *(CommitOperationDelete(path, is_folder=False) for path in delete),
        ]
        try:
            made = _api().create_commit(
                repo_id, operations, commit_message=message, revision=branch, parent_commit=parent
            )
        except HfHubHTTPError as refusal:
            if refusal.response.status_code == _PRECONDITION_FAILED:
                return None
            raise
    return Commit(made.oid, made.commit_url)


def set_tag(repo_id: str, tag: str, at: str, *, error: type[PydeperError]) -> None:
    """Lets a tag of a model repository point at a commit, wherever it pointed before.

    Raises:
        PydeperError: Of the type `error`; the Hub refused, with the reason and the remedy.
    """
    with _explained(f"tag {tag!r} of {repo_id!r}", at, error):
        api = _api()
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
        if tags.get(tag) == at:
            return
        if tag in tags:
            api.delete_tag(repo_id, tag=tag)
        api.create_tag(repo_id, tag=tag, revision=at)


def _is_offline(revision: str | None) -> bool:
    """Whether the Hub cannot be connected to at all: then its client would try again for half a minute.

    A commit never changes, so what is cached of one needs no connection, and none is tried. Behind a proxy it is the
    proxy that connects, and this cannot tell.
    """
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return False  # the client says so itself, and connects to nobody
    proxies = getproxies()
    is_proxied = any(proxies.get(scheme) for scheme in (address.scheme, "all"))
    if (revision and _COMMIT.fullmatch(revision)) or not address.hostname or is_proxied:
        return False
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return True
    return False


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(library_name=_LIBRARY)


@contextmanager
def _explained(what: str, revision: str | None, error: type[PydeperError]) -> Iterator[None]:
    """Turns what `huggingface_hub` raises into `error`."""
    try:
        yield
    except PydeperError:
        raise
    # A refused connection is the HTTP library's own error, and which library that is changes.
    except Exception as cause:
        raise error(_explanation(what, revision, cause)) from cause


def _explanation(what: str, revision: str | None, error: Exception) -> str:
    """Says what was wrong and what to do, most particular first: the classes derive from one another."""
    from huggingface_hub import constants, errors

    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{what} on the Hugging Face Hub is gated: accept its terms on its page, then log in with `hf auth login` "
            "or set HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{what} is not on the Hugging Face Hub, or is private: check the spelling, and for a private repository "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what} on the Hugging Face Hub has no revision {revision!r}: name a branch, tag or commit"
    if status in _STATUSES or (status is not None and status >= _SERVER_ERROR):
        return f"{what}: the Hugging Face Hub answered {status}: {_STATUSES.get(status, _TROUBLE)}"
    causes = list(_causes(error))
    if any(isinstance(cause, (*_NO_HUB, errors.FileMetadataError)) for cause in causes):
        return (
            f"{what}: {constants.ENDPOINT} answers as no Hugging Face Hub does ({_first_line(causes[-1])}): check "
            "HF_ENDPOINT, the proxy, and whether a network's login page stands between"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{what}: needs the Hugging Face Hub, which HF_HUB_OFFLINE switches off: unset it"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.CachedRepoTreeNotFoundError):
        at = f" at revision {revision!r}" if revision else ""
        return (
            f"{what}{at} is not in the local cache and the Hugging Face Hub was not reached: fetch it once with a "
            "connection (without local_files_only and HF_HUB_OFFLINE), or give a local path"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{what} does not exist on the Hugging Face Hub: check the repository's list of files"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return (
            f"{what}: there is no room for it in the cache {constants.HF_HUB_CACHE} ({error.strerror}): free some, or "
            "set HF_HOME to a folder on another disk; files that were fetched whole are kept"
        )
    reasons = dict.fromkeys(_first_line(cause) for cause in (causes[0], causes[-1]))
    return f"{what}: the Hugging Face Hub could not be used: {': '.join(reasons)}"


def _status(error: BaseException) -> int | None:
    """The HTTP status of the answer that led to an error, if one did."""
    from huggingface_hub.errors import HfHubHTTPError

    answers = (cause.response.status_code for cause in _causes(error) if isinstance(cause, HfHubHTTPError))
    return next(answers, None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
