"""Where an image is in the units of a report's positions, and how large the box of a fixation is there."""

import math
from pathlib import Path
from typing import Literal

import attrs

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.images import upright_size
from pydeper.readers.trajectories import one_of


@attrs.frozen(kw_only=True)
class Placement:
    """Where on the screen the images were shown: one rectangle for all, or each centred, in its own size or scaled.

    Attributes:
        rectangle: (left, top, width, height) in screen pixels; the image fills it.
        screen: (width, height) of the screen in pixels; each image is centred.
        scale: How large an image is on the screen: "none" (one of its pixels to one of the screen), "fit" (as large as
            fits, in its own proportions) or "shrink" (the same, but only images larger than the screen).

    Examples:
        >>> from pydeper.readers import Placement
        >>> Placement(screen=(1920, 1080), scale="fit")
        Placement(rectangle=None, screen=(1920, 1080), scale='fit')
    """

    rectangle: tuple[float, float, float, float] | None = None
    screen: tuple[float, float] | None = None
    scale: Literal["none", "fit", "shrink"] = "none"

    def __attrs_post_init__(self) -> None:
        if (self.rectangle is None) == (self.screen is None):
            raise InvalidArgumentError("a placement is a rectangle or a screen: give one of them")
        width, height = self.rectangle[2:] if self.rectangle is not None else self.screen or (0, 0)
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise InvalidArgumentError(f"{self} has no area; give width and height above 0")
        one_of("scale", self.scale, ("none", "fit", "shrink"))
        if self.rectangle is not None and self.scale != "none":
            raise InvalidArgumentError(
                f"scale {self.scale!r} is of images centred on a screen; one fills its rectangle"
            )

    def on_screen(self, image: Path) -> tuple[float, float, float, float]:
        """The image's (left, top, width, height) in screen pixels.

        Raises:
            InvalidImageError: The image's size cannot be read.
            InvalidSampleError: The image is larger than the screen and is not said to have been scaled.

        Examples:
            >>> from pydeper import demo_image
            >>> from pydeper.readers import Placement
            >>> Placement(screen=(1920, 1080)).on_screen(demo_image())
            (720.0, 300.0, 480.0, 480.0)
        """
        if self.rectangle is not None:
            return self.rectangle
        assert self.screen is not None
        width, height = map(float, upright_size(image))
        factor = min(self.screen[0] / width, self.screen[1] / height)
        if self.scale == "none" and factor < 1:
            raise InvalidSampleError(
                f"the image is {width:g}×{height:g} and the screen {self.screen[0]:g}×{self.screen[1]:g}, so it was "
                "not shown in its own size: say how it was scaled, such as Placement(screen=…, scale='fit'), or give "
                "its rectangle"
            )
        if self.scale == "fit" or (self.scale == "shrink" and factor < 1):
            width, height = width * factor, height * factor
        return ((self.screen[0] - width) / 2, (self.screen[1] - height) / 2, width, height)


@attrs.frozen
class BoxRadius:
    """How far a fixation's box reaches from its position to each side.

    Attributes:
        value: The length.
        unit: "fraction" (of the image's width, and of its height), or "px" (of what x and y count: the screen's pixels
            or the image's; the image's own where they are fractions).

    Examples:
        >>> from pydeper.readers import BoxRadius
        >>> BoxRadius(40, "px")
        BoxRadius(value=40, unit='px')
    """

    value: float = 0.035
    unit: Literal["fraction", "px"] = "fraction"

    def __attrs_post_init__(self) -> None:
        one_of("unit", self.unit, ("fraction", "px"))
        if not 0 < self.value < math.inf:
            raise InvalidArgumentError(f"a box's radius must be above 0, not {self.value!r}")

    @classmethod
    def degrees(cls, value: float, *, distance: float, pixel: float) -> "BoxRadius":
        """A radius in degrees of visual angle, seen from `distance`, where a pixel is `pixel` wide (in one unit).

        Examples:
            >>> from pydeper.readers import BoxRadius
            >>> radius = BoxRadius.degrees(1, distance=600, pixel=0.27)
            >>> round(radius.value, 1), radius.unit
            (38.8, 'px')
        """
        return cls(math.tan(math.radians(value)) * distance / pixel, "px")


@attrs.frozen
class Area:
    """Where the image is in the units of x and y, and the radius of a box as fractions of the image."""

    left: float
    top: float
    width: float
    height: float
    radius: tuple[float, float]

    @classmethod
    def of(cls, image: Path, units: str, placement: Placement | None, radius: BoxRadius) -> "Area":
        """The area of one image, whose size is read from its file where it matters."""
        if placement is not None:
            left, top, width, height = placement.on_screen(image)
        else:
            left, top = 0.0, 0.0
            width, height = (1.0, 1.0) if units == "normalised" else upright_size(image)
        if radius.unit == "fraction":
            return cls(left, top, width, height, (radius.value, radius.value))
        across, down = upright_size(image) if units == "normalised" else (width, height)
        return cls(left, top, width, height, (radius.value / across, radius.value / down))
