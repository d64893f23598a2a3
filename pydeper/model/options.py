"""How a description is asked for."""

from collections.abc import Sequence
from typing import Any, TypedDict

from pydeper.errors import InvalidArgumentError
from pydeper.vlm.decoding import DecodingOptions


class DescribeOptions(TypedDict, total=False):
    """The options of `DeperModel.describe`, which explains them at length. In brackets: the defaults.

    Examples:
        >>> from pydeper import DeperModel, DescribeOptions, demo_image
        >>> options: DescribeOptions = {"max_new_tokens": 6, "repetition_penalty": 1.1}
        >>> DeperModel.from_pretrained("tiny").describe(demo_image(), **options)
        'I can see a black circle'
    """

    style: str
    """Which of the model's prompts, one of `DeperModel.styles` ("description")."""
    max_new_tokens: int
    """The most tokens to write (512)."""
    temperature: float
    """0 takes the likeliest token at each step; above 0 samples, the more freely the higher (0)."""
    top_p: float
    """Samples among the likeliest tokens that together have this probability, in (0, 1] (1)."""
    repetition_penalty: float
    """1 is none; above 1 makes tokens that the description already holds less likely (1)."""
    seed: int | None
    """Makes sampling repeatable; None draws anew each time (None)."""
    strength: float
    """0 is the model without the persona, 1 the persona as it is, above 1 more of it (1)."""


def split_options(options: DescribeOptions, styles: Sequence[str], model_id: str) -> tuple[str, DecodingOptions]:
    """Returns the style, checked, and how to decode.

    Args:
        options: The caller's; what is left out has the defaults of `DeperModel.describe`.
        styles: Those that the model knows.
        model_id: The model, for the message.

    Raises:
        TypeError: There is no such option.
        InvalidArgumentError: An option is out of its range, or the model does not know the style.
    """
    decoding: dict[str, Any] = dict(options)
    if unknown := [name for name in decoding if name not in DescribeOptions.__annotations__]:
        raise TypeError(f"{unknown[0]!r} is no option; the options are {', '.join(DescribeOptions.__annotations__)}")
    style = decoding.pop("style", "description")
    check_style(style, styles, model_id)
    return style, DecodingOptions(**decoding)


def check_style(style: str, styles: Sequence[str], model_id: str) -> None:
    """Refuses a style that a model does not know.

    Raises:
        InvalidArgumentError: It is none of `styles`.
    """
    if style not in styles:
        raise InvalidArgumentError(f"style: model {model_id!r} knows {', '.join(map(repr, styles))}, got {style!r}")
