"""What all systems have in common: they prompt the frozen VLM, each in its own way, for one person's description."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from training.baselines.targets import Person
from training.vlm.generation import Prompt, SeenImage, image_ids
from training.vlm.steered_vlm import SteeredVLM


class System(Protocol):
    """A way to prompt the frozen VLM for one person's description."""

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """The prompt that asks for this person's description of an image."""
        ...


class SoftTokens:
    """A soft token a person in the persona's prompt, wherever it comes from: DEPER's adapter, or tuning.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
        people: Those who are described for.
        soft_tokens: (people, hidden).
    """

    def __init__(self, vlm: SteeredVLM, style: str, people: Sequence[Person], soft_tokens: Tensor) -> None:
        self._vlm, self._prompt = vlm, vlm.steered_prompt(style)
        self._soft_tokens = dict(zip((person.name for person in people), soft_tokens, strict=True))

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        return Prompt([*image_ids(self._vlm, image), *self._prompt], [image], self._soft_tokens[person.name])
