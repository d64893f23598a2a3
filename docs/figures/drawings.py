"""The shapes and the colours that the built-in model knows."""

from docs.figures.drawing import Drawing
from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES

_SHAPE_COLOURS = [name for name in COLOURS if name != "white"]  # a white shape would be lost on a light page
_COLUMNS, _HALF = 5, 32
_SHAPE_ROW, _COLOUR_ROW = 106, 62  # heights


def draw() -> str:
    """Draws each shape once, and a field of each colour."""
    rows = -(-len(SHAPES) // _COLUMNS)
    colour_top = rows * _SHAPE_ROW + 24
    colour_rows = -(-len(COLOURS) // _COLUMNS)
    d = Drawing(
        "Shapes and colours",
        f"The shapes that the built-in model knows: {', '.join(SHAPES)}; and its names of colours, each with its "
        f"clearest example: {', '.join(COLOURS)}.",
        colour_top + colour_rows * _COLOUR_ROW + 8,
    )
    for number, (name, shape) in enumerate(SHAPES.items()):
        x, y = _place(number, 42, _SHAPE_ROW)
        path = "".join(
            "M" + "L".join(f"{x + _HALF * px:.1f} {y + _HALF * py:.1f}" for px, py in points) + "Z"
            for points in shape.polygons()
        )
        red, green, blue = COLOURS[_SHAPE_COLOURS[number % len(_SHAPE_COLOURS)]]
        d.raw(f'<path d="{path}" fill-rule="evenodd" fill="#{red:02x}{green:02x}{blue:02x}" stroke="#808080"/>')
        d.text(x, y + _HALF + 22, name, style="small", align="middle")
    for number, (name, (red, green, blue)) in enumerate(COLOURS.items()):
        x, y = _place(number, colour_top + 22, _COLOUR_ROW)
        d.raw(
            f'<rect x="{x - 36}" y="{y - 18}" width="72" height="26" rx="5" fill="#{red:02x}{green:02x}{blue:02x}" '
            'stroke="#808080"/>'
        )
        d.text(x, y + 26, name, style="small", align="middle")
    return d.svg()


def _place(number: int, top: int, height: int) -> tuple[int, int]:
    """The middle of a cell, in rows of a height whose first has its middle at `top`."""
    row, column = divmod(number, _COLUMNS)
    return 60 + column * 110, top + row * height
