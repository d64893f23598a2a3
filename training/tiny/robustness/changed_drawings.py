"""Whether descriptions change as the picture did, and not otherwise: shifted, mirrored and recoloured drawings."""

import itertools
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from PIL import Image, ImageOps

from pydeper.drawing.colours import colour_name
from training.tiny.robustness.drawings import Drawing, sample_drawings
from training.tiny.robustness.foreign_drawings import RENDERERS
from training.tiny.robustness.naming import Named
from training.tiny.world.colours import contrast

_APART = 0.07  # of the picture's width: from left to right, nobody could be in doubt
_PALETTE = ((255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 215, 0), (128, 0, 128))


@attrs.frozen(eq=False)
class Change:
    """A picture, a changed one, and what a description of the second must name.

    Attributes:
        kind: What was done.
        before: The picture.
        after: The changed picture.
        objects: How many objects both hold.
        follow: What the description of `before` names, left to right -> what that of `after` has to name.
    """

    kind: str
    before: Image.Image
    after: Image.Image
    objects: int
    follow: Callable[[Sequence[Named]], list[Named]]


def sample_changes(count: int, rng: np.random.Generator) -> list[Change]:
    """Changed drawings, each kind in turn."""
    kinds = (_shifted, _mirrored, _recoloured)
    changes: list[Change] = []
    while len(changes) < count:
        (drawing,) = sample_drawings(RENDERERS, 1, rng, objects=(2, 4))
        if _lie_apart(drawing):
            changes.append(kinds[len(changes) % len(kinds)](drawing, rng))
    return changes


def _lie_apart(drawing: Drawing) -> bool:
    centres = sorted(thing.left + thing.side / 2 for thing in drawing.shapes)
    return all(second - first > _APART * drawing.size[0] for first, second in itertools.pairwise(centres))


def _shifted(drawing: Drawing, rng: np.random.Generator) -> Change:
    """Everything moves by a few pixels, as far as the paper reaches."""
    left = min(thing.left for thing in drawing.shapes)
    top = min(thing.top for thing in drawing.shapes)
    right = drawing.size[0] - max(thing.left + thing.side for thing in drawing.shapes)
    bottom = drawing.size[1] - max(thing.top + thing.side for thing in drawing.shapes)
    x, y = rng.uniform(max(-left, -20), min(right, 20)), rng.uniform(max(-top, -20), min(bottom, 20))
    shapes = tuple(attrs.evolve(thing, left=thing.left + x, top=thing.top + y) for thing in drawing.shapes)
    return Change("shifted", drawing.render(), attrs.evolve(drawing, shapes=shapes).render(), len(shapes), list)


def _mirrored(drawing: Drawing, _rng: np.random.Generator) -> Change:
    before = drawing.render()
    return Change("mirrored", before, ImageOps.mirror(before), len(drawing.shapes), lambda named: list(reversed(named)))


def _recoloured(drawing: Drawing, rng: np.random.Generator) -> Change:
    """One object gets another colour; which place it has, from left to right, tells where the description changes."""
    ordered = sorted(drawing.shapes, key=lambda thing: thing.left + thing.side / 2)
    place = int(rng.integers(len(ordered)))
    own = ordered[place]
    choices = [rgb for rgb in _PALETTE if colour_name(rgb) != own.name[0] and contrast(rgb, drawing.paper) > 0.25]
    rgb = choices[int(rng.integers(len(choices)))]
    shapes = tuple(attrs.evolve(thing, rgb=rgb) if thing is own else thing for thing in drawing.shapes)

    def follow(named: Sequence[Named]) -> list[Named]:
        return [
            (colour_name(rgb), shape) if at == place else (colour, shape) for at, (colour, shape) in enumerate(named)
        ]

    return Change("recoloured", drawing.render(), attrs.evolve(drawing, shapes=shapes).render(), len(shapes), follow)
