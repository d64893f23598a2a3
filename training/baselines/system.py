"""What all systems have in common: each describes images as one person would, most by a prompt to the frozen VLM."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from training.baselines.targets import Person, Target
from training.vlm.generation import Prompt, SeenImage, greedy, image_ids, see
from training.vlm.steered_vlm import SteeredVLM

Describe = Callable[[Sequence[tuple[Person, Target]]], list[str]]
"""Describes the image of each target as that person would: n people and targets -> n texts."""


class System(Protocol):
    """A way to prompt a VLM for one person's description.

    Attributes:
        vlm: The VLM that the prompts are for: the frozen one, or one that was adapted.
    """

    vlm: SteeredVLM

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """The prompt that asks for this person's description of an image."""
        ...


class SoftTokens:
    """A soft token a person in the persona's prompt, wherever it comes from: DEPER's adapter, or tuning.

    Args:
        vlm: The VLM.
        style: The prompt's style.
        people: Those who are described for.
        soft_tokens: (people, hidden).
    """

    def __init__(self, vlm: SteeredVLM, style: str, people: Sequence[Person], soft_tokens: Tensor) -> None:
        self.vlm, self._prompt = vlm, vlm.steered_prompt(style)
        self._soft_tokens = dict(zip((person.name for person in people), soft_tokens, strict=True))

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        return Prompt([*image_ids(self.vlm, image), *self._prompt], [image], self._soft_tokens[person.name])


def by_prompts(system: System, max_new_tokens: int) -> Describe:
    """The greedy descriptions of a system's VLM after the system's prompts.

    Args:
        system: Makes the prompts.
        max_new_tokens: The most tokens of a description.
    """
    vlm = system.vlm

    def describe(targets: Sequence[tuple[Person, Target]]) -> list[str]:
        distinct = {target.pending.image: target.sample for _, target in targets}
        images = see(vlm, [sample.open_image() for sample in distinct.values()])
        seen = dict(zip(distinct, images, strict=True))
        prompts = [system.prompt(person, seen[target.pending.image]) for person, target in targets]
        generated = greedy(vlm, prompts, max_new_tokens, batch_size=len(prompts))
        return [vlm.tokenizer.decode(ids).strip() for ids in generated]

    return describe
