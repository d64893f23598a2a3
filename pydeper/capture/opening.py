"""Begins a capture session, goes on with an earlier one, or refuses; never overwrites what another session recorded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from pydeper.capture.journal import Journal
from pydeper.capture.outcome import OutcomeMaker
from pydeper.capture.pictures import Picture
from pydeper.capture.session import CaptureFiles, CaptureSession, new_session_line
from pydeper.capture.settings import CaptureSettings
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers.image_folder import relative_path
from pydeper.readers.journal_lines import SessionLine

_SUFFIX = ".jsonl"
_FIXED = ("order", "seed", "keep_back")


def capture_files(samples: Path) -> CaptureFiles:
    """Returns where a session is kept whose samples file this is.

    Raises:
        InvalidArgumentError: The file's name does not end in ".jsonl", or its folder is not there.
    """
    if samples.suffix != _SUFFIX or samples.name.endswith(f".recordings{_SUFFIX}"):
        raise InvalidArgumentError(f"{samples}: the samples file must be called such as ana{_SUFFIX}")
    if not samples.parent.is_dir():
        raise InvalidArgumentError(f"{samples}: its folder is not there; make it first, or name another file")
    stem = samples.with_suffix("")
    return CaptureFiles(samples, Path(f"{stem}.recordings{_SUFFIX}"), Path(f"{stem}.safetensors"))


def open_session(
    folder: Path,
    pictures: Iterable[Picture],
    samples: Path,
    *,
    model: str,
    subject: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> CaptureSession:
    """Begins a session, or goes on with the one that is in the files.

    Args:
        folder: Of the pictures.
        pictures: Its sound pictures.
        samples: The samples file, such as ``ana.jsonl``; the journal and the persona are beside it.
        model: Makes the persona at the end, as `DeperModel.from_pretrained` takes it.
        subject: Who is recorded; None: as in the session that is there, else the samples file's name.
        settings: Those of `CaptureSettings` that are not as in the session that is there, else as by default.

    Raises:
        InvalidArgumentError: The files are of other pictures, of another subject or order, or there are samples or
            a persona without a journal; or a setting is out of range.
        InvalidSampleError: The journal is damaged.
        RefusalError: There is no space.
    """
    files = capture_files(samples)
    found = {picture.name: picture for picture in pictures}
    changes = dict(settings or {})
    begun = files.journal.exists()
    if not begun:
        _check_nothing_there(files)
    journal = Journal(files.journal)
    try:
        if not journal.lines:
            if begun:
                _check_nothing_there(files)
            chosen = CaptureSettings(**changes)
            chosen.kept_back(list(found))  # which refuses to keep back all
            where = relative_path(folder.resolve(), files.journal.parent.resolve())
            journal.append(new_session_line(subject or samples.stem, where, list(found), chosen))
        else:
            chosen = _continued(journal, folder, found, subject, changes)
        return CaptureSession(journal, files, found, chosen, OutcomeMaker(model))
    except BaseException:
        journal.close()
        if not begun and not journal.lines:
            files.journal.unlink(missing_ok=True)
        raise


def _check_nothing_there(files: CaptureFiles) -> None:
    for path in (files.samples, files.persona):
        if path.exists():
            raise InvalidArgumentError(
                f"{path} is there, but not {files.journal.name}, the journal that it would be from, so it is not of a "
                "capture session and is not overwritten: name another output by -o, or move it away"
            )


def _continued(
    journal: Journal, folder: Path, found: Mapping[str, Picture], subject: str | None, changes: Mapping[str, Any]
) -> CaptureSettings:
    """The settings of a session that goes on; see `open_session` for the errors."""
    about = journal.lines[0]
    assert isinstance(about, SessionLine)
    elsewhere = "name another output by -o to begin another session"
    before = (journal.path.parent / about.images).resolve()
    if before != folder.resolve():
        raise InvalidArgumentError(
            f"{journal.path}: is a session with the pictures of {before}, not of {folder}: name that folder to go on, "
            f"or {elsewhere}"
        )
    for names, what in (
        (set(about.pictures) - found.keys(), "gone or damaged"),
        (found.keys() - set(about.pictures), "new"),
    ):
        if names:
            listing = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
            raise InvalidArgumentError(
                f"{journal.path}: is a session of other pictures than {folder} holds now: {listing} "
                f"{'is' if len(names) == 1 else 'are'} {what}. Restore the folder to go on, or {elsewhere}"
            )
    if subject is not None and subject != about.subject:
        raise InvalidArgumentError(
            f"{journal.path}: is a session of {about.subject!r}, not of {subject!r}: leave out --subject to go on, or "
            f"{elsewhere}"
        )
    for name in _FIXED:
        if name in changes and changes[name] != about.settings.get(name):
            raise InvalidArgumentError(
                f"{journal.path}: is a session with {name} {about.settings.get(name)!r}, not {changes[name]!r}: leave "
                f"out --{name.replace('_', '-')} to go on, or {elsewhere}"
            )
    if unknown := sorted(about.settings.keys() - attrs.fields_dict(CaptureSettings).keys()):
        raise InvalidSampleError(f"{journal.path}:1: settings has an unknown field {unknown[0]!r}; remove it")
    try:
        return CaptureSettings(**{**about.settings, **changes})
    except TypeError as error:
        raise InvalidSampleError(f"{journal.path}:1: settings cannot be read ({error})") from error
