"""Samples of the person in the prompt: earlier turns of the conversation, each an image and what they said of it."""

from collections.abc import Sequence

from pydeper.bundle.tokenizer import token_id
from training.baselines.targets import Person
from training.preparation.splits import SUPPORT_SAMPLES
from training.seeding import step_generator
from training.vlm.generation import Prompt, SeenImage, image_ids, see
from training.vlm.steered_vlm import SteeredVLM


class FewShot:
    """The prompt of `ZeroShot`, after the same prompt and the person's own description for a few other images.

    Of a person with more samples than that, a few are drawn, the same for all their targets. Where the context is too
    short for all of them, the first ones are left out; `shortened` counts such prompts.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
        max_new_tokens: What has to fit behind the prompt.
        max_description_tokens: Longer descriptions are cut.
        shots: Samples in a prompt (paper: 5).
        seed: Of the draw.
    """

    def __init__(
        self,
        vlm: SteeredVLM,
        style: str,
        *,
        max_new_tokens: int,
        max_description_tokens: int = 256,
        shots: int = SUPPORT_SAMPLES,
        seed: int = 0,
    ) -> None:
        self.vlm, self._prompt = vlm, vlm.template.without_persona(style)
        self._longest = vlm.config.max_positions - max_new_tokens
        self._max_description_tokens, self._shots, self._seed = max_description_tokens, shots, seed
        self._drawn: tuple[str, list[tuple[SeenImage, list[int]]]] | None = None
        self.shortened = 0

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        shots = self._shots_of(person)
        for left_out in range(len(shots) + 1):
            kept = shots[left_out:]
            ids = self._conversation(kept, image)
            if len(ids) <= self._longest:
                break
        self.shortened += left_out > 0
        return Prompt(ids, [*(seen for seen, _ in kept), image])

    def _conversation(self, shots: Sequence[tuple[SeenImage, list[int]]], image: SeenImage) -> list[int]:
        ids: list[int] = []
        for seen, answer in shots:
            ids += [*self._turn(seen, first=not ids), *answer, self.vlm.config.tokens.end[0]]
        return [*ids, *self._turn(image, first=not ids)]

    def _turn(self, image: SeenImage, *, first: bool) -> list[int]:
        """The user's turn, up to where the assistant's words begin; the first has the system turn before it."""
        if first:
            return [*image_ids(self.vlm, image), *self._prompt]
        tokens = self.vlm.config.tokens
        start = token_id(self.vlm.tokenizer, "<|im_start|>")
        slots = [tokens.vision_start, *[tokens.image] * len(image.features), tokens.vision_end]
        return [*self.vlm.text_ids("\n"), start, *self.vlm.text_ids("user\n"), *slots, *self._prompt]

    def _shots_of(self, person: Person) -> list[tuple[SeenImage, list[int]]]:
        # One person at a time: their targets come one after the other, and images of everybody would fill memory.
        if self._drawn is None or self._drawn[0] != person.name:
            rng = step_generator(self._seed, *person.name.encode())
            count = min(self._shots, len(person.known))
            chosen = [person.known[i] for i in sorted(rng.choice(len(person.known), count, replace=False))]
            answers = [self.vlm.text_ids(str(sample.description)) for sample in chosen]
            seen = see(self.vlm, [sample.open_image() for sample in chosen])
            cut = [answer[: self._max_description_tokens] for answer in answers]
            self._drawn = person.name, list(zip(seen, cut, strict=True))
        return self._drawn[1]
