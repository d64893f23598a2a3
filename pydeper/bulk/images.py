"""Images described together, each for any number of people; an image that cannot be described keeps no other one up."""

import math
from collections.abc import Iterable, Sequence

import attrs

from pydeper.errors import InvalidArgumentError, InvalidImageError, PydeperError
from pydeper.images import ImageLike
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions
from pydeper.persona.persona import Persona
from pydeper.runtime.memory import OutOfMemoryError
from pydeper.vlm import EncodedImage

# Options and personas were checked before, so an argument that is refused is the image: it takes more tokens than the
# context of the model has.
_OF_THE_IMAGE = (InvalidImageError, InvalidArgumentError, OutOfMemoryError)


@attrs.frozen(eq=False)
class ImageRequest:
    """One image, and the people who are to describe it; without people, the vision-language model alone does."""

    image: ImageLike
    personas: Sequence[Persona] = ()


def images_at_once(people: int, rows_at_once: int) -> int:
    """Returns the fewest images whose descriptions fill the decoder's batches.

    Args:
        people: How many describe each image.
        rows_at_once: How many descriptions the model computes together; batches of eight are about twice as fast as
            single descriptions (`python -m benchmarks.bulk`).
    """
    return rows_at_once // math.gcd(rows_at_once, max(1, people))


def check_request(model: DeperModel, personas: Iterable[Persona], options: DescribeOptions) -> None:
    """Refuses personas and options that no image can be described with.

    Raises:
        IncompatiblePersonaError: A persona was made by another persona encoder than the model's.
        InvalidArgumentError: An option is out of its range, or not one of the model's.
    """
    for persona in personas:
        model.check_persona(persona)
    model.describe_batch([], **options)


def describe_images(
    model: DeperModel, requests: Sequence[ImageRequest], options: DescribeOptions
) -> list[list[str] | PydeperError]:
    """Describes images in common passes of the decoder; each image is encoded once for all of its people.

    Args:
        model: Describes.
        requests: The images.
        options: Those of `DeperModel.describe`; they and the personas have passed `check_request`.

    Returns:
        For each image one description a persona (or a single one without persona), or the error that is its own: it
        cannot be read, has more tokens than the context, or needs more memory than there is.

    Raises:
        PydeperError: Something that concerns all images, such as a model elsewhere that cannot be reached.
    """
    outcomes: dict[int, list[str] | PydeperError] = {}
    encoded: dict[int, EncodedImage] = {}
    for place, request in enumerate(requests):
        try:
            encoded[place] = model.encode_image(request.image)
        except _OF_THE_IMAGE as error:
            outcomes[place] = error
    nobody: Sequence[Persona | None] = [None]
    rows = [(place, persona) for place in encoded for persona in requests[place].personas or nobody]
    try:
        texts = model.describe_batch([(encoded[place], persona) for place, persona in rows], **options)
    except _OF_THE_IMAGE:
        # One of them is too large: by themselves, the others can be described.
        for place, image in encoded.items():
            outcomes[place] = _describe_one(model, image, requests[place].personas, options)
    else:
        for place in encoded:
            outcomes[place] = [text for (other, _), text in zip(rows, texts, strict=True) if other == place]
    return [outcomes[place] for place in range(len(requests))]


def _describe_one(
    model: DeperModel, image: EncodedImage, personas: Sequence[Persona], options: DescribeOptions
) -> list[str] | PydeperError:
    try:
        return model.describe_each(image, personas, **options) if personas else [model.describe(image, **options)]
    except _OF_THE_IMAGE as error:
        return error
