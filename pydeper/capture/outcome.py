"""What a capture session ends with: the persona, and a picture described with and without it."""

import threading
from collections.abc import Sequence
from pathlib import Path

import attrs

from pydeper.model.model import DeperModel
from pydeper.persona.persona import Persona
from pydeper.samples.sample import Sample

RECOMMENDED = 5
"""Samples that make a good persona; the paper uses as many for people unseen in training."""


@attrs.frozen
class Outcome:
    """A persona and what it changes.

    Attributes:
        persona: Made of all samples.
        described: The picture, described as the person would; None where no picture was left.
        plain: The same picture, described without a persona.
    """

    persona: Persona
    described: str | None
    plain: str | None


class OutcomeMaker:
    """Makes outcomes with one model, which is loaded when it is first needed; one at a time."""

    def __init__(self, model: str) -> None:
        """Names the model, as `DeperModel.from_pretrained` takes it."""
        self._name = model
        self._lock = threading.Lock()
        self._model: DeperModel | None = None

    def make(self, samples: Sequence[Sample], picture: Path | None) -> Outcome:
        """Makes the persona of the samples, and describes a picture that is not among them.

        Raises:
            PydeperError: The model cannot be loaded, or does not take such samples.
        """
        with self._lock:
            if self._model is None:
                self._model = DeperModel.from_pretrained(self._name)
            persona = Persona.from_samples(samples, model=self._model)
            described = plain = None
            if picture is not None:
                seen = self._model.encode_image(picture)
                described, plain = self._model.describe(seen, persona), self._model.describe(seen)
        return Outcome(persona, described, plain)
