"""Drawing a picture that the built-in model can describe."""

from collections.abc import Sequence

import attrs
from PIL import Image, ImageColor, ImageDraw

from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES
from pydeper.errors import InvalidArgumentError

_SUPERSAMPLING = 4


@attrs.frozen(kw_only=True)
class DrawnObject:
    """One object of a drawing.

    Attributes:
        shape: What it is, one of `pydeper.drawing.shapes.SHAPES`.
        colour: Name of a colour, one of `pydeper.drawing.colours.COLOURS`, or whatever Pillow takes for a colour, such
            as ``"#ff8800"``.
        centre: Centre of its box (x, y), from 0 to 1 from the left and from the top.
        size: Longer side of its box, as a fraction of the shorter side of the picture.
        angle: Degrees by which it is turned clockwise.
        outlined: Draw its outline alone.

    Examples:
        >>> from pydeper import DrawnObject, draw_scene
        >>> star = DrawnObject(shape="star", colour="red", centre=(0.3, 0.4), angle=20.0)
        >>> draw_scene([star], background="yellow").size
        (336, 336)
    """

    shape: str
    colour: str
    centre: tuple[float, float]
    size: float = 0.25
    angle: float = 0.0
    outlined: bool = False


def draw_scene(
    objects: Sequence[DrawnObject], *, size: tuple[int, int] = (336, 336), background: str = "white"
) -> Image.Image:
    """Draws a picture of coloured shapes, the kind of picture that the built-in model "tiny" knows.

    Args:
        objects: What is drawn, the first one first: where two overlap, the later one covers the earlier.
        size: Width and height of the picture in pixels.
        background: Colour of the paper, as in `DrawnObject`.

    Returns:
        An RGB image, to be given to `pydeper.describe` or to a `Sample`.

    Raises:
        InvalidArgumentError: A shape or a colour is not known, or a size is not positive.

    Examples:
        >>> from pydeper import DeperModel, DrawnObject, draw_scene
        >>> star = DrawnObject(shape="star", colour="red", centre=(0.3, 0.4))
        >>> circle = DrawnObject(shape="circle", colour="blue", centre=(0.7, 0.6), size=0.35)
        >>> DeperModel.from_pretrained("tiny").describe(draw_scene([star, circle]))
        'I can see a red star and a blue circle.'
    """
    width, height = size
    if min(width, height) < 1:
        raise InvalidArgumentError(f"size: {width}×{height} pixels: both must be at least 1")
    image = Image.new("RGB", size, _rgb(background, "background"))
    for number, thing in enumerate(objects):
        where = f"objects[{number}]"
        if thing.shape not in SHAPES:
            raise InvalidArgumentError(f"{where}.shape: must be one of {', '.join(SHAPES)}, got {thing.shape!r}")
        if not thing.size > 0:
            raise InvalidArgumentError(f"{where}.size: must be above 0, got {thing.size}")
        image.paste(Image.new("RGB", size, _rgb(thing.colour, f"{where}.colour")), mask=_mask(thing, size))
    return image


def _mask(thing: DrawnObject, size: tuple[int, int]) -> Image.Image:
    """Where the object is, (height, width), with smooth edges."""
    fine = (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    mask = Image.new("L", fine)
    pen = ImageDraw.Draw(mask)
    half = thing.size * min(fine) / 2
    for hole, points in enumerate(SHAPES[thing.shape].polygons(angle=thing.angle)):
        corners = [
            (float(x), float(y)) for x, y in points * half + (thing.centre[0] * fine[0], thing.centre[1] * fine[1])
        ]
        if thing.outlined:
            pen.line([*corners, *corners[:2]], fill=255, width=max(round(half / 6), 1), joint="curve")
        else:
            pen.polygon(corners, fill=0 if hole else 255)
    return mask.reduce(_SUPERSAMPLING)


def _rgb(colour: str, where: str) -> tuple[int, int, int]:
    if colour in COLOURS:
        return COLOURS[colour]
    try:
        red, green, blue, *_ = ImageColor.getrgb(colour)
    except ValueError:
        known = ", ".join(COLOURS)
        raise InvalidArgumentError(
            f"{where}: {colour!r} is no colour: give one of {known}, or a colour as Pillow names it, such as '#ff8800'"
        ) from None
    return (red, green, blue)
