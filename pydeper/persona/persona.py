"""A persona: the subject embedding of one person, with what is needed to use it with the right model."""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

from pydeper import hub
from pydeper.errors import IncompatiblePersonaError, InvalidArgumentError, PersonaError
from pydeper.files.atomic import atomic_path
from pydeper.persona import repository
from pydeper.persona.encoder import HasPersonaEncoder, PersonaEncoder, default_encoder, short_fingerprint
from pydeper.persona.fields import check_created, check_num_samples, check_text, embedding, optional_text
from pydeper.persona.file import (
    MAX_FILE,
    check_replaceable,
    parse_persona,
    persona_bytes,
)
from pydeper.samples.sample import Sample, checked_samples
from pydeper.untrusted import is_address, shown
from pydeper.version import __version__


@attrs.frozen(kw_only=True, repr=False)
class Persona:
    """One person's way of looking and describing, as a vector that steers a model's descriptions.

    Immutable; made by `from_samples`, `load` or `from_pretrained` and used by `DeperModel.describe`. It holds no image,
    text or gaze of the person, only the mean of their subject embeddings (z_s, section "subject embedding extractor"
    of the paper) and where it came from.

    Attributes:
        subject_embedding: (384,) float32, read-only: the mean z_s of the person's samples.
        encoder_fingerprint: Identity of the persona encoder that made it; only models with the same one can use it.
        model_id: The model that made it: a Hub id, or a bundle's own name.
        model_revision: That model's commit on the Hub, or None where there is none.
        num_samples: How many samples the mean is over.
        name: What to call the person, or None.
        created: When it was made, with its time zone.
        pydeper_version: The version of pydeper that made it.

    Examples:
        >>> from pydeper import Persona, demo_samples
        >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
        >>> ana.name, ana.num_samples, ana.subject_embedding.shape
        ('ana', 5, (384,))
    """

    subject_embedding: npt.NDArray[np.float32] = attrs.field(
        converter=embedding, eq=attrs.cmp_using(eq=np.array_equal), hash=False
    )
    encoder_fingerprint: str = attrs.field(validator=check_text)
    model_id: str = attrs.field(validator=check_text)
    model_revision: str | None = attrs.field(default=None, validator=optional_text)
    num_samples: int = attrs.field(validator=check_num_samples)
    name: str | None = attrs.field(default=None, validator=optional_text)
    created: datetime = attrs.field(factory=lambda: datetime.now(UTC).replace(microsecond=0), validator=check_created)
    pydeper_version: str = attrs.field(default=__version__, validator=check_text)

    @classmethod
    def from_samples(
        cls,
        samples: Iterable[Sample],
        model: HasPersonaEncoder | str | PathLike[str] | None = None,
        name: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> "Persona":
        """Makes a persona from a few samples of one person: the mean of their subject embeddings.

        Args:
            samples: The person's samples; about 5 are enough (the paper uses 5 for people unseen in training).
            model: A loaded model, whose persona encoder is used, or what `DeperModel.from_pretrained` takes, of which
                the persona encoder alone is loaded; None is the default model.
            name: What to call the person; by default the `subject` that all samples share, if they have one.
            progress: Called with how many samples are read, and of how many.

        Raises:
            InvalidArgumentError: There are no samples, or they are not `Sample`s, or they are of several subjects.
            InvalidSampleError: The model does not accept samples of that kind; names the sample.
            InvalidImageError: A sample's image cannot be read; names the sample.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> Persona.from_samples(demo_samples("ana"), model="tiny")
            Persona('ana', 5 samples, model='tiny', encoder='096fa1763f6f')
        """
        samples = _at_least_one(samples)
        if len(subjects := sorted({sample.subject for sample in samples if sample.subject is not None})) > 1:
            raise InvalidArgumentError(
                f"the samples are of {len(subjects)} subjects ({', '.join(map(repr, subjects[:5]))}"
                f"{', …' if len(subjects) > 5 else ''}), but a persona is one person's: make one for each, and mix "
                "them with Persona.blend where a mixture is wanted"
            )
        encoder = _encoder_of(model)
        return cls(
            subject_embedding=_mean(encoder.embed(samples, progress=progress)),
            encoder_fingerprint=encoder.config.fingerprint,
            model_id=encoder.bundle.model_id,
            model_revision=encoder.bundle.revision,
            num_samples=len(samples),
            name=name if name is not None else (subjects[0] if subjects else None),
        )

    def add(
        self, more_samples: Iterable[Sample], model: HasPersonaEncoder | str | PathLike[str] | None = None
    ) -> "Persona":
        """Returns a new persona whose mean goes on over `more_samples`, as if all samples had been given at once.

        Args:
            more_samples: Further samples of the same person.
            model: As in `from_samples`; its persona encoder must be the one that made this persona.

        Raises:
            IncompatiblePersonaError: The model has another persona encoder.
            InvalidArgumentError: There are no samples, or they are not `Sample`s.
            InvalidSampleError: The model does not accept samples of that kind; names the sample.
            InvalidImageError: A sample's image cannot be read; names the sample.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> samples = demo_samples("ana")
            >>> ana = Persona.from_samples(samples[:3], model="tiny")
            >>> ana.add(samples[3:], model="tiny").num_samples
            5
        """
        more = _at_least_one(more_samples)
        encoder = _encoder_of(model)
        encoder.check_fingerprint(self.encoder_fingerprint, name=self.name, model_id=self.model_id)
        total = self.num_samples + len(more)
        so_far = self.subject_embedding.astype(np.float64) * (self.num_samples / total)
        return attrs.evolve(
            self,
            subject_embedding=so_far + _mean(encoder.embed(more)) * (len(more) / total),
            num_samples=total,
            created=datetime.now(UTC).replace(microsecond=0),
            pydeper_version=__version__,
        )

    def similarity(self, other: "Persona") -> float:
        """Cosine of the angle between two personas' subject embeddings, in [-1, 1].

        Raises:
            IncompatiblePersonaError: The two were made by different persona encoders.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana, ben = (Persona.from_samples(demo_samples(name), model="tiny") for name in ("ana", "ben"))
            >>> ana.similarity(ben) < 0.5
            True
        """
        _check_same_encoder([self, other])
        a, b = (persona.subject_embedding.astype(np.float64) for persona in (self, other))
        return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))

    @staticmethod
    def blend(
        personas: Sequence["Persona"], weights: Sequence[float] | None = None, name: str | None = None
    ) -> "Persona":
        """Mixes personas: the weighted mean of their subject embeddings.

        Args:
            personas: At least one, all made by the same persona encoder.
            weights: One a persona, finite and not negative, not all 0; divided by their sum. None: all alike.
            name: What to call the mixture.

        Returns:
            A persona whose `num_samples` is the sum of theirs.

        Raises:
            InvalidArgumentError: There are no personas, or the weights do not fit.
            IncompatiblePersonaError: They were made by different persona encoders.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana, ben = (Persona.from_samples(demo_samples(name), model="tiny") for name in ("ana", "ben"))
            >>> mixture = Persona.blend([ana, ben], weights=[0.8, 0.2], name="mostly ana")
            >>> mixture.similarity(ana) > mixture.similarity(ben)
            True
        """
        personas = list(personas)
        if not personas or not all(isinstance(persona, Persona) for persona in personas):
            raise InvalidArgumentError(
                f"personas: must be at least one Persona, got {[type(item).__name__ for item in personas][:5]}"
            )
        _check_same_encoder(personas)
        shares = _normalised([1.0] * len(personas) if weights is None else weights, len(personas))
        stacked = np.stack([persona.subject_embedding.astype(np.float64) for persona in personas])
        return attrs.evolve(
            personas[0],
            subject_embedding=shares @ stacked,
            num_samples=sum(persona.num_samples for persona in personas),
            name=name,
            created=datetime.now(UTC).replace(microsecond=0),
            pydeper_version=__version__,
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the persona into one safetensors file; the file appears whole or not at all.

        Raises:
            PersonaError: The file cannot be written, or is there already and is not a persona's.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> ana.save("ana.safetensors").name
            'ana.safetensors'
        """
        path = Path(path)
        check_replaceable(path)
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(self.to_bytes())
        except OSError as error:
            raise PersonaError(f"{path}: cannot be written: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Persona":
        """Reads a persona file. The file need not be trusted: it is checked whole, and nothing in it can run.

        Raises:
            PersonaError: There is no such file, or it is not a persona file, or it is damaged; says what to do.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> Persona.load(ana.save("ana.safetensors")) == ana
            True
        """
        if is_address(path):
            raise PersonaError(
                f"{shown(str(path))} is an address, and none is fetched here: use Persona.from_pretrained for a "
                "persona on the Hugging Face Hub, or download the file first"
            )
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise PersonaError(
                f"{path}: cannot be read: {error.strerror or error}; give the path of a file that Persona.save wrote"
            ) from error
        try:
            return cls(**parse_persona(data))
        except PersonaError as error:
            raise PersonaError(f"{path}: {error}") from (error.__cause__ or error)

    @classmethod
    def from_pretrained(
        cls, repo_id: str, name: str, *, revision: str | None = None, local_files_only: bool = False
    ) -> "Persona":
        """Reads the persona `name` from a Hugging Face Hub repository of personas.

        Args:
            repo_id: The repository, as in ``"org/personas"``.
            name: The persona's name; its file is ``f"{name}.safetensors"``.
            revision: A branch, tag or commit; None is the main branch.
            local_files_only: Use the local cache alone, without any connection.

        Raises:
            PersonaError: It cannot be had, or the file is not a sound persona file.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> address = ana.push_to_hub("org/personas", synthetic=True)
            >>> Persona.from_pretrained("org/personas", "ana") == ana
            True
        """
        repository.check_repo_id(repo_id)
        filename = repository.file_name(name)
        return cls.load(
            hub.fetch_file(repo_id, filename, revision=revision, local_files_only=local_files_only, error=PersonaError)
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        consent: str | None = None,
        synthetic: bool = False,
        name: str | None = None,
        private: bool = False,
        revision: str | None = None,
    ) -> str:
        """Writes the persona into a Hugging Face Hub repository of personas, with its list and its card, in one commit.

        A persona is personal data, so either `consent` or `synthetic` must be given; the repository's card shows it.

        Args:
            repo_id: The repository, as in ``"org/personas"``; it is made if it does not exist.
            consent: How the person agreed to this publication, in one line, as in ``"written consent, 2026-11-22"``.
            synthetic: There is no such person: the persona was simulated, say.
            name: The name to publish it under; by default the persona's own. One of that name is replaced.
            private: Whether a repository that has to be made is private; one that exists must be so already.
            revision: The branch to publish on, made where it does not exist; None is the main branch.

        Returns:
            The address of the commit.

        Raises:
            PersonaError: It has no name, or nothing is said about consent, or the Hub refused.

        Examples:
            >>> from pydeper import Persona, demo_samples
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> ana.push_to_hub("org/personas", consent="written consent, 2026-11-22")
            'https://huggingface.co/org/personas/commit/...'
        """
        repository.check_repo_id(repo_id)
        if (name := name or self.name) is None:
            raise PersonaError("this persona has no name to publish it under: give push_to_hub a name")
        entry = repository.PublishedPersona(
            name=name,
            consent=repository.checked_consent(consent, synthetic),
            model_id=self.model_id,
            model_revision=self.model_revision,
            encoder_fingerprint=self.encoder_fingerprint,
            num_samples=self.num_samples,
            created=self.created,
            pydeper_version=self.pydeper_version,
        )
        data = attrs.evolve(self, name=name).to_bytes()
        return repository.publish_persona(entry, data, repo_id, private=private, revision=revision)

    def to_bytes(self) -> bytes:
        """Returns the content of the persona's file.

        Examples:
            >>> from pathlib import Path
            >>> from pydeper import Persona, demo_samples
            >>> ana = Persona.from_samples(demo_samples("ana"), model="tiny")
            >>> _ = Path("ana.safetensors").write_bytes(ana.to_bytes())
            >>> Persona.load("ana.safetensors") == ana
            True
        """
        return persona_bytes(attrs.asdict(self))

    def __repr__(self) -> str:
        samples = f"{self.num_samples} sample" + ("s" if self.num_samples > 1 else "")
        name = repr(self.name) if self.name else "unnamed"
        encoder = short_fingerprint(self.encoder_fingerprint)
        return f"Persona({name}, {samples}, model={self.model_id!r}, encoder={encoder!r})"


def _at_least_one(samples: Iterable[Sample]) -> list[Sample]:
    if not (samples := checked_samples(samples)):
        raise InvalidArgumentError("samples: got none; a persona needs at least 1 sample, and about 5 to be good")
    return samples


def _encoder_of(model: HasPersonaEncoder | str | PathLike[str] | None) -> PersonaEncoder:
    """Returns the persona encoder of a loaded model, or opens that of a named one, and nothing else of it."""
    if model is None:
        return default_encoder()
    if isinstance(model, str | PathLike):
        return PersonaEncoder.from_pretrained(model)
    if not isinstance(encoder := getattr(model, "persona_encoder", None), PersonaEncoder):
        raise InvalidArgumentError(
            f"model: must be a pydeper.DeperModel, or what DeperModel.from_pretrained takes, got {type(model).__name__}"
        )
    return encoder


def _mean(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    mean: npt.NDArray[np.float64] = vectors.mean(axis=0, dtype=np.float64)
    return mean


def _check_same_encoder(personas: Sequence[Persona]) -> None:
    first = personas[0]
    for other in personas[1:]:
        if other.encoder_fingerprint != first.encoder_fingerprint:
            raise IncompatiblePersonaError(
                f"{first!r} and {other!r} were made by different persona encoders ({first.encoder_fingerprint!r} and "
                f"{other.encoder_fingerprint!r}), whose numbers cannot be compared: make both with one model"
            )


def _normalised(weights: Sequence[float], count: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(list(weights), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"weights: must be numbers, one a persona: {error}") from error
    if array.shape != (count,):
        raise InvalidArgumentError(f"weights: must be {count} numbers, one a persona, got shape {array.shape}")
    if not (np.isfinite(array) & (array >= 0)).all() or not array.any():
        raise InvalidArgumentError(f"weights: must be finite, not negative and not all 0, got {array.tolist()}")
    # By the largest first: the sum of very large weights would overflow, and very small ones are not exact.
    array = array / array.max()
    shares: npt.NDArray[np.float64] = array / math.fsum(array)
    return shares
