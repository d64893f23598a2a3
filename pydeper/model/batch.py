"""Many descriptions at once: pairs of an image and a persona, in groups that are decoded together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VisionConfig
from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.images import ImageLike, open_image
from pydeper.model.image_cache import size_key
from pydeper.persona.encoder import PersonaEncoder
from pydeper.persona.persona import Persona
from pydeper.runtime.memory import memory_explained
from pydeper.vlm import DecodingOptions, EncodedImage, VisionLanguageModel


@attrs.frozen(eq=False)
class Pair:
    """One description that is asked for: its place, from 0 on, of how many, the image, and the persona or None."""

    place: int
    count: int
    image: ImageLike | EncodedImage
    persona: Persona | None


def read_pairs(
    pairs: Iterable[tuple[ImageLike | EncodedImage, Persona | None]], check_persona: Callable[[Persona], None]
) -> list[Pair]:
    """Returns the pairs as a list.

    Args:
        pairs: Images and personas.
        check_persona: Refuses a persona that cannot be used.

    Raises:
        InvalidArgumentError: They are no pairs.
        PydeperError: What `check_persona` raises, with the number of the pair.
    """
    if isinstance(pairs, str | bytes | Mapping) or not isinstance(pairs, Iterable):
        raise InvalidArgumentError(f"pairs: must be pairs of an image and a persona, got {type(pairs).__name__}")
    listed = list(pairs)
    for number, pair in enumerate(listed, 1):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"{type(pair).__name__} of length {len(pair)}" if hasattr(pair, "__len__") else type(pair).__name__
            raise InvalidArgumentError(
                f"pairs: pair {number} of {len(listed)} must be (image, persona), the persona a Persona or None, "
                f"got {what}"
            )
    read = [Pair(place, len(listed), image, persona) for place, (image, persona) in enumerate(listed)]
    for item in read:
        if item.persona is not None:
            with named_pairs([item]):
                check_persona(item.persona)
    return read


def check_persona(persona: Persona, encoder: PersonaEncoder) -> None:
    """Refuses what a model with this persona encoder cannot be steered by.

    Raises:
        InvalidArgumentError: It is not a persona.
        IncompatiblePersonaError: It was made by another persona encoder; names both.
    """
    if not isinstance(persona, Persona):
        hint = "; read a persona file with Persona.load(path)" if isinstance(persona, str | PathLike) else ""
        raise InvalidArgumentError(f"persona: must be a pydeper.Persona, got {type(persona).__name__}{hint}")
    encoder.check_fingerprint(persona.encoder_fingerprint, name=persona.name, model_id=persona.model_id)


def read_personas(personas: Iterable[Persona]) -> list[Persona]:
    """Returns the personas as a list.

    Raises:
        InvalidArgumentError: They are no list, or a single persona.
    """
    if isinstance(personas, Persona):
        raise InvalidArgumentError("personas: must be a list of personas, got one Persona; use describe for one")
    if isinstance(personas, str | bytes) or not isinstance(personas, Iterable):
        raise InvalidArgumentError(f"personas: must be a list of personas, got {type(personas).__name__}")
    return list(personas)


def image_key(pair: Pair, vision: VisionConfig, check_encoded: Callable[[EncodedImage, Persona | None], None]) -> str:
    """Checks a pair's image, and returns a text that orders images by size and is the same for the same image.

    Args:
        pair: The pair.
        vision: What images are resized to.
        check_encoded: Refuses an encoded image that cannot be described for the persona.

    Raises:
        PydeperError: The image cannot be described; with the number of the pair.
    """
    with named_pairs([pair]):
        if isinstance(pair.image, EncodedImage):
            check_encoded(pair.image, pair.persona)
            return f"encoded {id(pair.image)}"
        with memory_explained("reading an image"):
            return size_key(open_image(pair.image), vision)


def describe_in_groups(
    pairs: Sequence[Pair],
    keys: Sequence[str],
    *,
    rows_at_once: int,
    encode: Callable[[Pair], EncodedImage],
    describe: Callable[[Sequence[Persona], Sequence[EncodedImage]], Sequence[str]],
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Describes pairs in groups, and encodes an image that comes several times once.

    Args:
        pairs: What is described.
        keys: Of each pair's image: equal where the images are, and in order where they are alike in size.
        rows_at_once: The most pairs of a group.
        encode: Encodes a pair's image.
        progress: Called with how many descriptions are done, and of how many.
        describe: Describes encoded images for as many personas, or all without one where there are none.

    Returns:
        The descriptions, in the order of the pairs.
    """
    texts = [""] * len(pairs)
    encoded: dict[str, EncodedImage] = {}
    done = 0
    for group in _groups(keys, rows_at_once):
        # Images that only earlier groups used are let go of before more are encoded.
        encoded = {keys[place]: encoded[keys[place]] for place in group if keys[place] in encoded}
        for place in group:
            if keys[place] not in encoded:
                with named_pairs([pairs[place]]):
                    encoded[keys[place]] = encode(pairs[place])
        for alike in _with_and_without_persona([pairs[place] for place in group]):
            with named_pairs(alike):
                personas = [pair.persona for pair in alike if pair.persona is not None]
                found = describe(personas, [encoded[keys[pair.place]] for pair in alike])
            for pair, text in zip(alike, found, strict=True):
                texts[pair.place] = text
            done += len(alike)
            if progress is not None:
                progress(done, len(pairs))
    return texts


def describe_rows(
    vlm: VisionLanguageModel,
    encoded: EncodedImage | Sequence[EncodedImage],
    style: str,
    soft_tokens: npt.NDArray[np.float32] | None,
    options: DecodingOptions,
) -> list[str]:
    """Returns what `VisionLanguageModel.generate` gives, as texts, and explains where memory runs out."""
    rows = max(*(len(array) for array in (encoded, soft_tokens) if isinstance(array, Sequence | np.ndarray)), 0, 1)
    with memory_explained(f"computing {rows} descriptions at once" if rows > 1 else "describing an image"):
        return [generation.text for generation in vlm.generate(encoded, style, soft_tokens, options)]


@contextmanager
def named_pairs(pairs: Sequence[Pair]) -> Iterator[None]:
    """Puts the pairs' numbers before the message of an error."""
    try:
        yield
    except PydeperError as error:
        numbers = ", ".join(str(pair.place + 1) for pair in pairs)
        what = f"pair{'s' if len(pairs) > 1 else ''} {numbers} of {pairs[0].count}"
        raise type(error)(f"{what}: {error}") from error.__cause__


def _groups(keys: Sequence[str], most: int) -> Iterator[list[int]]:
    """Yields the places of at most so many keys, equal ones together, then neighbouring ones."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for start in range(0, len(order), most):
        yield order[start : start + most]


def _with_and_without_persona(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Returns the pairs with a persona, and those without, where there are any: their prompts differ."""
    groups = [[pair for pair in pairs if (pair.persona is None) == plain] for plain in (False, True)]
    return [group for group in groups if group]
