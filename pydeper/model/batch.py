"""Many descriptions at once: what is asked for, and in which groups it is worked off."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.images import ImageLike
from pydeper.persona.persona import Persona
from pydeper.vlm import EncodedImage

ROWS_AT_ONCE = 8
"""Every row of a batch has a KV cache of its own; from some 8 on a step costs as much as two smaller ones."""


@attrs.frozen(eq=False)
class Pair:
    """One description that is asked for: its place, from 0 on, of how many, the image, and the persona or None."""

    place: int
    count: int
    image: ImageLike | EncodedImage
    persona: Persona | None


def read_pairs(pairs: Iterable[tuple[ImageLike | EncodedImage, Persona | None]]) -> list[Pair]:
    """Returns the pairs as a list.

    Raises:
        InvalidArgumentError: They are no pairs.
    """
    try:
        listed = list(pairs)
    except TypeError as error:
        raise InvalidArgumentError(
            f"pairs: must be pairs of an image and a persona, got {type(pairs).__name__}"
        ) from error
    for number, pair in enumerate(listed, 1):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"{type(pair).__name__} of length {len(pair)}" if hasattr(pair, "__len__") else type(pair).__name__
            raise InvalidArgumentError(
                f"pairs: pair {number} of {len(listed)} must be (image, persona), the persona a Persona or None, "
                f"got {what}"
            )
    return [Pair(place, len(listed), image, persona) for place, (image, persona) in enumerate(listed)]


def steered_and_plain(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Returns the pairs with a persona, and those without, where there are any: their prompts are different ones."""
    groups = [[pair for pair in pairs if (pair.persona is None) == plain] for plain in (False, True)]
    return [group for group in groups if group]


def in_groups(keys: Sequence[str]) -> Iterator[list[int]]:
    """Groups what has these keys into groups of at most `ROWS_AT_ONCE`, equal keys together, then neighbouring ones.

    Returns:
        The places of each group.
    """
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for start in range(0, len(order), ROWS_AT_ONCE):
        yield order[start : start + ROWS_AT_ONCE]


@contextmanager
def named_pairs(pairs: Sequence[Pair]) -> Iterator[None]:
    """Puts the pairs' numbers before the message of an error."""
    try:
        yield
    except PydeperError as error:
        numbers = ", ".join(str(pair.place + 1) for pair in pairs)
        what = f"pair{'s' if len(pairs) > 1 else ''} {numbers} of {pairs[0].count}"
        raise type(error)(f"{what}: {error}") from error.__cause__
