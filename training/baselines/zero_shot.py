"""The VLM as it is: the prompt without a persona, the same words for everybody."""

from training.baselines.people import Person
from training.vlm.generation import Prompt, SeenImage, image_ids
from training.vlm.steered_vlm import SteeredVLM


class ZeroShot:
    """Nothing is known of anybody.

    Args:
        vlm: The frozen VLM.
        style: The prompt's style.
    """

    def __init__(self, vlm: SteeredVLM, style: str) -> None:
        self._vlm, self._question = vlm, vlm.template.without_persona(style)

    def prompt(self, person: Person, image: SeenImage) -> Prompt:
        """See `System`."""
        return Prompt([*image_ids(self._vlm, image), *self._question], [image])
