"""What personas and models share about the Hugging Face Hub: fetching, publishing, and errors that say what to do.

`huggingface_hub` is imported only when one of these functions is called; its own settings (`HF_TOKEN`, `HF_HOME`,
`HF_HUB_OFFLINE`, `HF_ENDPOINT`) apply.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydeper.errors import PydeperError

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


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
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    with _explained(f"model {repo_id!r}", commit, error):
        try:
            return [file.path for file in get_cached_repo_tree(repo_id, revision=commit)]
        except CachedRepoTreeNotFoundError:
            if local_files_only:
                raise
        return HfApi().list_repo_files(repo_id, revision=commit)


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

    with _explained(f"model {repo_id!r}", revision, error):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=None if patterns is None else list(patterns),
            ignore_patterns=[".*"],
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

    with _explained(f"{filename!r} of {repo_id!r}", revision, error):
        return Path(hf_hub_download(repo_id, filename, revision=revision, local_files_only=local_files_only))


def publish_file(
    data: bytes, repo_id: str, filename: str, *, message: str, private: bool, error: type[PydeperError]
) -> str:
    """Writes one file into a repository, which is made if it does not exist.

    Returns:
        The address of the commit.

    Raises:
        PydeperError: Of the type `error`; the Hub refused, with the reason and the remedy.
    """
    from huggingface_hub import HfApi

    with _explained(f"repository {repo_id!r}", None, error):
        api = HfApi(library_name="pydeper")
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_file(path_or_fileobj=data, path_in_repo=filename, repo_id=repo_id, commit_message=message)
    return commit.commit_url


@contextmanager
def _explained(what: str, revision: str | None, error: type[PydeperError]) -> Iterator[None]:
    """Turns what `huggingface_hub` raises into `error`, most particular first: its classes derive from one another."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as cause:
        raise error(
            f"{what} on the Hugging Face Hub is gated: accept its terms on its page, then log in with `hf auth login` "
            "or set HF_TOKEN"
        ) from cause
    except errors.RepositoryNotFoundError as cause:
        raise error(
            f"{what} is not on the Hugging Face Hub, or is private: check the spelling, and for a private repository "
            "log in with `hf auth login` or set HF_TOKEN"
        ) from cause
    except errors.RevisionNotFoundError as cause:
        raise error(
            f"{what} on the Hugging Face Hub has no revision {revision!r}: name a branch, tag or commit"
        ) from cause
    except (errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError, errors.OfflineModeIsEnabled) as cause:
        at = f" at revision {revision!r}" if revision else ""
        raise error(
            f"{what}{at} is not in the local cache and the Hugging Face Hub was not reached: fetch it once with a "
            "connection (without local_files_only and HF_HUB_OFFLINE), or give a local path"
        ) from cause
    except errors.EntryNotFoundError as cause:
        raise error(f"{what} does not exist on the Hugging Face Hub: check the repository's list of files") from cause
    except (
        Exception
    ) as cause:  # a refused connection is the HTTP library's own error, and which library that is changes
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise error(f"{what}: the Hugging Face Hub could not be used: {reason}") from cause
