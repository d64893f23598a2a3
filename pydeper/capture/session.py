"""A capture session: the pictures in their order, what was recorded of each, and the three files that hold it.

The journal is the only truth; the samples file is written from it after every picture, the persona at the end.
"""

import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from pydeper.capture.journal import Journal, sync_folder
from pydeper.capture.outcome import Outcome, OutcomeMaker
from pydeper.capture.pictures import Picture
from pydeper.capture.refusal import RefusalError, not_written
from pydeper.capture.settings import CaptureSettings
from pydeper.errors import PydeperError
from pydeper.readers.journal_lines import ConsentLine, Recording, SessionLine, SkipLine, from_record, line_bytes
from pydeper.readers.jsonl import write_samples
from pydeper.readers.recordings import sample_from_recording
from pydeper.samples.sample import Sample
from pydeper.version import __version__


@attrs.frozen
class CaptureFiles:
    """Where a session is kept.

    Attributes:
        samples: The samples file, such as ``ana.jsonl``.
        journal: ``ana.recordings.jsonl``.
        persona: ``ana.safetensors``.
    """

    samples: Path
    journal: Path
    persona: Path


@attrs.frozen
class Stored:
    """A picture's recording and the sample that was made of it."""

    recording: Recording
    sample: Sample


class CaptureSession:
    """One person's session; every method may be called from any thread, and what it changes is on disk on return.

    Attributes:
        about: The first line of the journal.
        settings: How pictures are shown now.
        pictures: In the order in which they are shown.
        files: Where the session is kept.
    """

    def __init__(
        self,
        journal: Journal,
        files: CaptureFiles,
        pictures: Mapping[str, Picture],
        settings: CaptureSettings,
        maker: OutcomeMaker,
    ) -> None:
        """Goes on with the session of an open journal; see `pydeper.capture.opening.open_session`.

        Args:
            journal: It begins with its session.
            files: Where the session is kept.
            pictures: By name, those of the session.
            settings: How pictures are shown from now on.
            maker: Makes the persona at the end.

        Raises:
            InvalidSampleError: A recording of the journal makes no sample.
            RefusalError: The samples file cannot be written.
        """
        assert isinstance(journal.lines[0], SessionLine)
        self.about = journal.lines[0]
        self.settings = settings
        self.files = files
        self.pictures = [pictures[name] for name in self.about.pictures]
        self._kept_back = settings.kept_back(self.about.pictures)
        self._journal = journal
        self._maker = maker
        self._lock = threading.RLock()
        self._tab: str | None = None
        self._deleted = False
        self._consent: ConsentLine | None = None
        self._stored: dict[str, Stored] = {}
        self._skipped: set[str] = set()
        self._attempts: dict[str, bytes] = {}
        for line in journal.lines[1:]:
            self._apply(line, pictures)
        self._write_samples()

    @property
    def consent(self) -> ConsentLine | None:
        """What the person agreed to last; None before they did."""
        return self._consent

    @property
    def deleted(self) -> bool:
        """Whether everything has been deleted."""
        return self._deleted

    @property
    def samples(self) -> list[Sample]:
        """The samples so far, in the order of the pictures."""
        with self._lock:
            return [self._stored[name].sample for name in self.about.pictures if name in self._stored]

    def is_active(self, tab: str | None) -> bool:
        """Whether this tab is the one that holds the session."""
        return tab is not None and tab == self._tab

    def status(self, index: int) -> str:
        """Says of a picture whether it is "open", "recorded", "skipped" or "kept back"."""
        name = self.picture(index).name
        with self._lock:
            if name in self._stored:
                return "recorded"
            if name in self._skipped:
                return "skipped"
            return "kept back" if name in self._kept_back else "open"

    def picture(self, index: int) -> Picture:
        """Returns a picture.

        Raises:
            RefusalError: There is none of this index.
        """
        if not 0 <= index < len(self.pictures):
            raise RefusalError(
                "no-picture", 404, f"There is no picture {index}; the last one is {len(self.pictures) - 1}."
            )
        return self.pictures[index]

    def stored(self, index: int) -> Stored:
        """Returns what was recorded of a picture.

        Raises:
            RefusalError: Nothing was.
        """
        name = self.picture(index).name
        with self._lock:
            if name not in self._stored:
                raise RefusalError("not-recorded", 404, f"Nothing has been recorded of picture {index}.")
            return self._stored[name]

    def claim(self, tab: str) -> None:
        """Makes a tab the one that may write; any other is refused from now on."""
        with self._lock:
            self._check_there()
            self._tab = tab

    def give_consent(self, tab: str, publish: bool, language: str, text: str) -> None:
        """Keeps what the person agreed to.

        Raises:
            InvalidSampleError: A value (named) is not what it must be.
            RefusalError: The tab does not hold the session, or there is no space.
        """
        with self._lock:
            self._check_write(tab)
            now = datetime.now(UTC)
            what = "recording and publication of the persona" if publish is True else "recording, no publication"
            statement = f"consent given on the capture page, {now:%Y-%m-%d}: {what}"
            line = ConsentLine(
                given_at=now.isoformat(timespec="seconds"),
                publish=publish,
                language=language,
                text=text,
                statement=statement,
            )
            self._journal.append(line)
            self._consent = line

    def record(self, tab: str, index: int, body: Mapping[str, Any]) -> Stored:
        """Stores a recording; the same one, sent again, is not stored twice.

        Raises:
            InvalidSampleError: A field (named) does not hold what it must.
            RefusalError: The tab does not hold the session, consent is missing, or there is no space.
        """
        picture = self.picture(index)
        own = {"picture": picture.name, "page_version": __version__}
        if given := sorted(own.keys() & body.keys()):
            raise RefusalError("malformed", 422, f"{given[0]} is added by the server: leave it out")
        recording = from_record(Recording, {**body, **own})
        stored = self._made(recording, picture)
        content = line_bytes(recording)
        with self._lock:
            self._check_write(tab)
            if self._consent is None:
                raise RefusalError("consent", 403, "Nothing is recorded before the person has agreed to it.")
            if self._attempts.get(recording.attempt) != content:
                self._journal.append(recording)
                self._keep(stored, content)
            self._write_samples()
        return stored

    def skip(self, tab: str, index: int) -> None:
        """Passes over a picture; what was recorded of it is no sample any more.

        Raises:
            RefusalError: The tab does not hold the session, or there is no space.
        """
        name = self.picture(index).name
        with self._lock:
            self._check_write(tab)
            if name not in self._skipped:
                self._journal.append(SkipLine(picture=name))
                self._pass_over(name)
            self._write_samples()

    def make_persona(self, tab: str) -> tuple[Outcome, int | None]:
        """Makes and saves the persona, and describes a picture that was not recorded: one kept back, if possible.

        Returns:
            The outcome, and the index of the picture; None where all were recorded.

        Raises:
            RefusalError: Nothing was recorded, the tab does not hold the session, or no persona can be made.
        """
        with self._lock:
            self._check_write(tab)
            if not (samples := self.samples):
                raise RefusalError("no-samples", 409, "Nothing has been recorded yet: describe a picture first.")
            ranks = ("kept back", "open", "skipped")
            left = [i for i in range(len(self.pictures)) if self.status(i) != "recorded"]
            index = min(left, key=lambda i: (ranks.index(self.status(i)), i), default=None)
        try:
            outcome = self._maker.make(samples, None if index is None else self.pictures[index].path)
            with self._lock:
                self._check_there()  # what takes a while may be too late
                outcome.persona.save(self.files.persona)
        except RefusalError:
            raise
        except PydeperError as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, PydeperError):
                raise not_written(error.__cause__) from error
            raise RefusalError(
                "persona", 500, f"No persona can be made now ({error}). The recordings are safe on the disk."
            ) from error
        return outcome, index

    def delete(self, tab: str) -> None:
        """Removes all three files; after that every write is refused.

        Raises:
            RefusalError: The tab does not hold the session, or a file cannot be removed.
        """
        with self._lock:
            self._check_write(tab)
            self._journal.close()
            self._deleted = True
            self._consent = None
            self._stored.clear()
            self._skipped.clear()
            self._attempts.clear()
            try:
                for path in attrs.astuple(self.files):
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise RefusalError(
                    "not-deleted", 500, f"{path.name} cannot be removed ({error.strerror}): remove it by hand."
                ) from error
            sync_folder(self.files.journal.parent)

    def close(self) -> None:
        """Lets go of the journal."""
        with self._lock:
            self._journal.close()

    def _check_there(self) -> None:
        if self._deleted:
            raise RefusalError(
                "deleted", 410, "Everything was deleted. To record anew, start the command `pydeper capture` again."
            )

    def _check_write(self, tab: str) -> None:
        self._check_there()
        if self._tab is None:
            self._tab = tab
        if self._tab != tab:
            raise RefusalError(
                "another-tab", 409, "The recording goes on in another tab. Go on there, or take over here."
            )

    def _made(self, recording: Recording, picture: Picture) -> Stored:
        return Stored(recording, sample_from_recording(recording, picture.path, subject=self.about.subject))

    def _apply(self, line: object, pictures: Mapping[str, Picture]) -> None:
        match line:
            case ConsentLine():
                self._consent = line
            case Recording() if line.picture in pictures:
                self._keep(self._made(line, pictures[str(line.picture)]), line_bytes(line))
            case SkipLine() if line.picture in pictures:
                self._pass_over(line.picture)

    def _keep(self, stored: Stored, content: bytes) -> None:
        name = str(stored.recording.picture)
        self._stored[name] = stored
        self._skipped.discard(name)
        self._attempts[stored.recording.attempt] = content

    def _pass_over(self, name: str) -> None:
        self._stored.pop(name, None)
        self._skipped.add(name)

    def _write_samples(self) -> None:
        try:
            if samples := self.samples:
                write_samples(self.files.samples, samples)
            else:
                self.files.samples.unlink(missing_ok=True)
        except OSError as error:
            raise not_written(error) from error
        except PydeperError as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, PydeperError):
                raise not_written(error.__cause__) from error
            raise


def new_session_line(subject: str, folder: str, pictures: list[str], settings: CaptureSettings) -> SessionLine:
    """Returns the first line of a journal that begins now."""
    return SessionLine(
        format_version=1,
        session=secrets.token_hex(8),
        subject=subject,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        images=folder,
        settings=attrs.asdict(settings),
        pictures=settings.ordered(pictures),
        pydeper_version=__version__,
    )
