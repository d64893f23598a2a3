"""The settings of a capture session."""

import json
import random
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.readers.journal_lines import MODES

_TEXTS = Path(__file__).parent / "page" / "texts.json"


def _within(low: float, high: float, unit: str) -> Any:
    def check(_: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if not low <= value <= high:
            raise InvalidArgumentError(f"{field.name} must be from {low:g} to {high:g} {unit}, not {value!r}")

    return check


def _one_of(*choices: str) -> Any:
    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if value not in choices:
            raise InvalidArgumentError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")

    return check


def languages() -> list[str]:
    """Returns the languages that the page has texts in."""
    return sorted(json.loads(_TEXTS.read_bytes()))


def _language(_: object, field: "attrs.Attribute[str]", value: str) -> None:
    if value not in (known := languages()):
        raise InvalidArgumentError(
            f"{field.name} must be one of {', '.join(known)}, not {value!r}; {_TEXTS} has the texts of the page"
        )


@attrs.frozen(kw_only=True)
class CaptureSettings:
    """How pictures are shown and in which order.

    Attributes:
        mode: "viewport", a blurred picture that is sharp around the pointer, or "trace", the plain picture.
        blur: Radius of the blur, in CSS pixels at the shown size. The default leaves the gist of a photograph (where
            things are, not what they are), as the blur of BubbleView does.
        radius: Of the viewport, as a fraction of the picture's shorter side. The default shows about as much as
            a glance does: a face or an object, not the scene.
        time_limit: Seconds that each picture is shown; None: as long as the person likes.
        order: "name" or "random".
        seed: Of the random order.
        instructions: Text that is shown in place of the page's own; None: the page's own.
        language: Of the page, such as "en".
        dictation: Whether the browser's dictation is offered.
        keep_back: Pictures that are kept for the end, where the persona describes one of them. None is kept back where
            there are fewer than three pictures.
    """

    mode: str = attrs.field(default="viewport", validator=_one_of(*MODES))
    blur: float = attrs.field(default=14.0, validator=_within(0, 100, "CSS pixels"))
    radius: float = attrs.field(default=0.12, validator=_within(0.01, 1, "of the picture's shorter side"))
    time_limit: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_within(1, 3600, "seconds"))
    )
    order: str = attrs.field(default="name", validator=_one_of("name", "random"))
    seed: int = 0
    instructions: str | None = None
    language: str = attrs.field(default="en", validator=_language)
    dictation: bool = True
    keep_back: int = attrs.field(default=1, validator=_within(0, 1000, "pictures"))

    def ordered(self, names: list[str]) -> list[str]:
        """Returns the names of the pictures in the order in which they are shown."""
        if self.order == "name":
            return sorted(names)
        return random.Random(self.seed).sample(sorted(names), len(names))

    def kept_back(self, names: list[str]) -> frozenset[str]:
        """Returns those of the ordered names that are kept for the end.

        Raises:
            InvalidArgumentError: None would be left to describe.
        """
        if len(names) < 3 or not self.keep_back:
            return frozenset()
        if self.keep_back >= len(names):
            raise InvalidArgumentError(
                f"keep_back is {self.keep_back}, and there are {len(names)} pictures: keep back fewer, or none"
            )
        return frozenset(names[-self.keep_back :])
