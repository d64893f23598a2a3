"""The VLM as it is: the prompt without a persona, the same words for everybody."""

from training.baselines.targets import Person
from training.vlm.generation import Prompt, SeenImage, image_ids
from training.vlm.steered_vlm import SteeredVLM


class ZeroShot:
    """The same prompt for everybody.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
    """

    def __init__(self, vlm: SteeredVLM, style: str) -> None:
        self.vlm, self._prompt = vlm, vlm.template.without_persona(style)

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        return Prompt([*image_ids(self.vlm, image), *self._prompt], [image])
