"""Which of eleven names a colour gets: the basic colour terms of English, told apart by hue, saturation and value."""

import colorsys
from collections.abc import Sequence

# The clearest example of each name.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 135, 25),
    "yellow": (245, 215, 40),
    "green": (45, 155, 70),
    "blue": (40, 90, 210),
    "purple": (125, 55, 170),
    "pink": (250, 130, 180),
    "brown": (125, 75, 40),
    "black": (20, 20, 20),
    "grey": (130, 130, 130),
    "white": (255, 255, 255),
}

# Upper ends of the hues, in degrees on the colour circle; from the last one on it is red again.
_HUES = ((14, "red"), (44, "orange"), (68, "yellow"), (172, "green"), (255, "blue"), (318, "purple"), (345, "pink"))


def colour_name(rgb: Sequence[float]) -> str:
    """Returns the name of a colour, one of `COLOURS`.

    Hue is an angle on the colour circle (red 0°, green 120°, blue 240°), saturation and value lie between 0 and 1:

    1. Value under .20: black. Hardly any colour (saturation under .15, or value times saturation under .10): white from
       value .88 on, black under .27, grey between them.
    2. Else the hue decides: red up to 14°, orange to 44°, yellow to 68°, green to 172°, blue to 255°, purple to 318°,
       pink to 345°, then red.
    3. Bright pale red (value over .75, saturation under .55) is pink. Brown is dull red (saturation under .55, or
       under .8 where the value is under .72), dark orange (value under .72) and dull orange (saturation under .5 and
       value under .87). Dark yellow is green from 57° on (value under .76), brown before (value under .6). Bright
       purple from 296° on (value over .8) is pink; dark pink (value under .55) is purple.

    Args:
        rgb: Red, green and blue, 0 to 255.

    Examples:
        >>> from pydeper.drawing.colours import colour_name
        >>> colour_name((255, 136, 0)), colour_name((90, 60, 30))
        ('orange', 'brown')
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
    hue *= 360
    if value < 0.20:
        return "black"
    if saturation < 0.15 or saturation * value < 0.10:
        return "white" if value >= 0.88 else "black" if value < 0.27 else "grey"
    name = next((name for end, name in _HUES if hue < end), "red")
    return _lightness(name, hue, saturation, value)


def _lightness(name: str, hue: float, saturation: float, value: float) -> str:
    """Pink and brown, which share their hues with red, orange and purple, and what dark colours are called."""
    if name == "red" and saturation < (0.8 if value < 0.72 else 0.55):
        return "pink" if value > 0.75 else "brown"
    if name == "orange" and (value < 0.72 or (saturation < 0.5 and value < 0.87)):
        return "brown"
    if name == "yellow" and value < (0.76 if hue >= 57 else 0.6):
        return "green" if hue >= 57 else "brown"
    if name == "purple" and hue >= 296 and value > 0.8:
        return "pink"
    if name == "pink" and value < 0.55:
        return "purple"
    return name
