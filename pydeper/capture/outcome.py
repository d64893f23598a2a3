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
        warning: What to know about it, or None.
    """

    persona: Persona
    described: str | None
    plain: str | None
    warning: str | None


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
        return Outcome(persona, described, plain, _warning(samples))


def _warning(samples: Sequence[Sample]) -> str | None:
    found = []
    if len(samples) < RECOMMENDED:
        found.append(f"It is made of {len(samples)}; with {RECOMMENDED} or more it says more about you.")
    if without := sum(sample.trajectory is None for sample in samples):
        found.append(f"{without} of {len(samples)} recordings hold no stop to look, and count as text alone.")
    return " ".join(found) or None
