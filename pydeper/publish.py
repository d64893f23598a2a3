"""A bundle onto the Hugging Face Hub: checked, then told what would go up, then sent in one commit."""

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Literal

import attrs

from pydeper import hub
from pydeper.bundle.bundle import read_config
from pydeper.bundle.checksums import sha256
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.layout import CARD, CONFIG, MANIFEST
from pydeper.bundle.manifest import read_manifest, verify
from pydeper.errors import BundleError

IMAGE_ENCODER_LICENCE = "LICENSE.image_encoder"
FREE_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"}
"""Licences whose name says enough; the text of any other goes along with the weights."""

# What the Hub itself goes by: text stays in git up to this size, all else is a large file.
_MAX_REGULAR = 10_000_000
_SAMPLE = 512


@attrs.frozen
class PlannedFile:
    """One file of a push.

    Attributes:
        path: Inside the bundle and the repository.
        size: In bytes.
        sha256: Of its content, in hexadecimal.
        large: Whether it goes by LFS, as large and binary files do, or into git itself; the Hub has the last word.
        state: How it compares with the file of the same name that is there.

    Examples:
        >>> from pydeper.bundle.layout import BUILTIN
        >>> from pydeper.publish import plan
        >>> file = plan(BUILTIN / "tiny", "org/tiny").files[0]
        >>> file.path, file.large, file.state
        ('README.md', False, 'new')
    """

    path: str
    size: int
    sha256: str
    large: bool
    state: Literal["new", "changed", "unchanged"]


@attrs.frozen
class Plan:
    """What a push would do; prints well.

    Attributes:
        repo_id: The repository.
        branch: The branch.
        exists: Whether the branch is there already.
        files: All files of the bundle.
        deleted: Files that are in the repository but not in the bundle.
        tag: The tag that would point at the commit, or None.

    Examples:
        >>> from pydeper.bundle.layout import BUILTIN
        >>> from pydeper.publish import plan
        >>> print(plan(BUILTIN / "tiny", "org/tiny"))
        org/tiny, branch 'main' (not there yet):
        ...
        22 of 22 files to send, ... bytes; tag 'format-1'
    """

    repo_id: str
    branch: str
    exists: bool
    files: tuple[PlannedFile, ...]
    deleted: tuple[str, ...]
    tag: str | None

    def __str__(self) -> str:
        going = [file for file in self.files if file.state != "unchanged"]
        width = max(len(file.path) for file in self.files)
        return "\n".join(
            [
                f"{self.repo_id}, branch {self.branch!r}{'' if self.exists else ' (not there yet)'}:",
                *(
                    f"  {file.state:<9}  {'LFS' if file.large else 'regular':<7}  {file.path:<{width}}  "
                    f"{file.size:>13,} bytes  {file.sha256}"
                    for file in self.files
                ),
                *(f"  deleted             {path}" for path in self.deleted),
                f"{len(going)} of {len(self.files)} files to send, {sum(file.size for file in going):,} bytes"
                + (f"; tag {self.tag!r}" if self.tag else ""),
            ]
        )


def plan(folder: str | PathLike[str], repo_id: str, *, revision: str | None = None) -> Plan:
    """Checks a bundle as `push` does, and tells what that would do; sends nothing and changes nothing.

    Args:
        folder: The bundle.
        repo_id: The repository, as in ``"org/name"``.
        revision: The branch; None is the main branch.

    Raises:
        BundleError: As `push` does.

    Examples:
        >>> from pydeper.bundle.layout import BUILTIN
        >>> from pydeper.publish import plan
        >>> planned = plan(BUILTIN / "tiny", "org/tiny")
        >>> planned.exists, planned.deleted, planned.tag
        (False, (), 'format-1')
    """
    folder, branch = Path(folder), revision or hub.MAIN
    config = _check(folder, repo_id)
    there = hub.read_branch(repo_id, branch, error=BundleError)
    remote = there.files if there else {}
    deleted = _left_over(folder, repo_id, remote)
    files = tuple(_planned(folder, path, digest, remote) for path, digest in _digests(folder).items())
    return Plan(repo_id, branch, there is not None, files, tuple(deleted), _tag(config, branch))


def push(
    folder: str | PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Publishes a bundle in a Hugging Face Hub repository, which holds that bundle and nothing else afterwards.

    The bundle is verified first, every file read. Then large files go up, each by itself, and all becomes visible at
    once, in one commit; on the main branch the tag ``"format-1"`` (the bundle's format) then points at it. A call that
    was interrupted is repeated as it is: files that arrived whole are not sent again.

    Args:
        folder: The bundle.
        repo_id: The repository, as in ``"org/name"``; it is made where it does not exist.
        private: Whether a repository that has to be made is private; one that exists must be so already.
        revision: The branch to publish on, made where it does not exist; None is the main branch.
        message: What the commit says.

    Returns:
        The address of the commit.

    Raises:
        BundleError: The bundle is damaged, or lacks a licence text that it must carry; or the repository holds
            something else, or the Hub refused, with the reason and the remedy.

    Examples:
        >>> from pydeper.bundle.layout import BUILTIN
        >>> from pydeper.publish import push
        >>> push(BUILTIN / "tiny", "org/tiny", private=True)
        'https://huggingface.co/org/tiny/commit/...'
    """
    folder, branch = Path(folder), revision or hub.MAIN
    config = _check(folder, repo_id)
    there = hub.make_repository(repo_id, branch=branch, private=private, error=BundleError)
    made = hub.commit(
        repo_id,
        branch=branch,
        parent=there.commit,
        add={path: folder / path for path in _digests(folder)},
        delete=_left_over(folder, repo_id, there.files),
        message=message or f"Publish {config.name}",
        error=BundleError,
    )
    if made is None:
        raise BundleError(
            f"repository {repo_id!r}: somebody published on {branch!r} at the same moment: look at what, and try again"
        )
    if tag := _tag(config, branch):
        hub.set_tag(repo_id, tag, made.commit, error=BundleError)
    return made.url


def _check(folder: Path, repo_id: str) -> BundleConfig:
    if not hub.is_repo_id(repo_id):
        raise BundleError(f"repo_id: must be of the form 'org/name', got {repo_id!r}")
    verify(folder)
    config, files = read_config(folder), read_manifest(folder)
    encoder = config.persona_encoder.image_encoder
    if encoder.licence.lower() not in FREE_LICENCES and IMAGE_ENCODER_LICENCE not in files:
        raise BundleError(
            f"{folder}: holds weights of the image encoder {encoder.name!r} under the licence {encoder.licence!r}, "
            f"whose text must go along: add it with `python -m export card {folder} --image-encoder-licence FILE`"
        )
    return config


def _digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all that a bundle consists of, as its manifest says, which `verify` has checked."""
    digests = {path: entry.sha256 for path, entry in read_manifest(folder).items()}
    return dict(sorted({**digests, MANIFEST: sha256(folder / MANIFEST)}.items()))


def _left_over(folder: Path, repo_id: str, remote: Mapping[str, hub.RemoteFile]) -> list[str]:
    """Returns what a repository holds beyond the bundle; names that begin with a dot are the Hub's.

    Raises:
        BundleError: The repository is not a bundle's, nor a new one.
    """
    theirs = sorted(path for path in remote if not path.startswith("."))
    # A repository that was made on the Hub's page may begin with a card and a licence.
    others = [path for path in theirs if path not in (CARD, "LICENSE")]
    if others and not {MANIFEST, CONFIG} <= set(theirs):
        raise BundleError(
            f"repository {repo_id!r} holds {others[0]!r} and no {MANIFEST}, so it is not a bundle's, and publishing "
            "would delete what is there: choose another, or empty it"
        )
    ours = _digests(folder)
    return [path for path in theirs if path not in ours]


def _planned(folder: Path, path: str, digest: str, remote: Mapping[str, hub.RemoteFile]) -> PlannedFile:
    there = remote.get(path)
    try:
        size = (folder / path).stat().st_size
        large = there.sha256 is not None if there else _is_large(folder / path)
        if there is None:
            return PlannedFile(path, size, digest, large, "new")
        same = there.sha256 == digest if large else there.git_hash == _git_hash(folder / path)
    except OSError as error:
        raise BundleError(
            f"{folder / path}: cannot be read any more ({error}); publish it when it is at rest"
        ) from error
    return PlannedFile(path, size, digest, large, "unchanged" if same else "changed")


def _is_large(path: Path) -> bool:
    with path.open("rb") as file:
        return path.stat().st_size > _MAX_REGULAR or b"\0" in file.read(_SAMPLE)


def _git_hash(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tag(config: BundleConfig, branch: str) -> str | None:
    """The newest bundle of a format, for those whose pydeper knows no later one."""
    return f"format-{config.format_version}" if branch == hub.MAIN else None
