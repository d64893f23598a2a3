"""The tiny world: drawn scenes, and simulated viewers who look at and describe them each in their own way.

A viewer has six traits. Three say how they *look*: in which order they visit the objects, how many they visit, and for
how long they stay on each. Three say how they *word* what they saw: the opening, the connector and the lexicon. Looking
shows twice: in the trajectory, and in the description, which names the visited objects in the visited order, and in
more detail the longer each was looked at.

Viewers come in groups that share every trait but the order (`sample_viewers`). Within such a group the wording, the
number of objects and the amount of detail tell nobody apart; only the scanning order does. An encoder that is to tell
these viewers apart has to read the trajectory.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

import attrs
import numpy as np
from PIL import Image, ImageDraw

from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory

# --- scenes

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (238, 205, 40),
    "green": (50, 150, 70),
    "blue": (40, 90, 200),
    "purple": (130, 60, 170),
    "brown": (125, 80, 45),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring", "moon", "arrow")
SIZES = {"small": 0.25, "large": 0.40}  # half extent of an object, as a share of a grid cell

GRID = 3
SCENE_PIXELS = 336
_SUPERSAMPLING = 2
_BACKGROUNDS = ((250, 248, 240), (240, 245, 250), (245, 240, 245), (240, 248, 240))


@attrs.frozen
class SceneObject:
    """One drawn object: what it is, its cell (row, column) of the grid, its centre and half extent in image sides."""

    shape: str
    colour: str
    size: str
    cell: tuple[int, int]
    centre: tuple[float, float]
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box (x1, y1, x2, y2), normalised to the image."""
        (x, y), r = self.centre, self.radius
        return (x - r, y - r, x + r, y + r)


@attrs.frozen
class Scene:
    """A drawing of objects of different shapes, at most one in a cell."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]

    def draw(self) -> Image.Image:
        """Draws the scene as an RGB image of 336×336 pixels."""
        side = SCENE_PIXELS * _SUPERSAMPLING
        image = Image.new("RGB", (side, side), self.background)
        pen = ImageDraw.Draw(image)
        for thing in self.objects:
            x, y = (side * value for value in thing.centre)
            _OUTLINES[thing.shape](pen, x, y, side * thing.radius, COLOURS[thing.colour], self.background)
        return image.reduce(_SUPERSAMPLING)


def sample_scene(rng: np.random.Generator, objects: tuple[int, int] = (4, 5)) -> Scene:
    """Draws a random scene.

    Args:
        rng: Source of randomness.
        objects: Fewest and most objects, both included; at most 9.
    """
    count = int(rng.integers(objects[0], objects[1] + 1))
    cells = rng.choice(GRID * GRID, size=count, replace=False)
    shapes = rng.choice(SHAPES, size=count, replace=False)
    things = []
    for cell, shape in zip(cells, shapes, strict=True):
        row, column = divmod(int(cell), GRID)
        size = str(rng.choice(list(SIZES)))
        jitter = rng.uniform(-0.08, 0.08, size=2) / GRID
        things.append(
            SceneObject(
                shape=str(shape),
                colour=str(rng.choice(list(COLOURS))),
                size=size,
                cell=(row, column),
                centre=((column + 0.5) / GRID + float(jitter[0]), (row + 0.5) / GRID + float(jitter[1])),
                radius=SIZES[size] * float(rng.uniform(0.95, 1.05)) / GRID,
            )
        )
    return Scene(tuple(things), _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))])


_Colour = tuple[int, int, int]
_Outline = Callable[[ImageDraw.ImageDraw, float, float, float, _Colour, _Colour], None]


def _polygon(points: Sequence[tuple[float, float]]) -> _Outline:
    """A filled polygon given in units of the object's half extent."""

    def draw(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, _background: _Colour) -> None:
        pen.polygon([(x + r * u, y + r * v) for u, v in points], fill=colour)

    return draw


def _ellipse(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, _background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)
    _ellipse(pen, x, y, 0.55 * r, background)


def _moon(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)
    _ellipse(pen, x + 0.5 * r, y - 0.1 * r, 0.85 * r, background)


def _star_points() -> list[tuple[float, float]]:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _heart_points() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [(float(u), float(v)) for u, v in zip(x, y, strict=True)]


_OUTLINES: dict[str, _Outline] = {
    "circle": _circle,
    "square": _polygon([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
    "triangle": _polygon([(0, -1), (1, 0.8), (-1, 0.8)]),
    "star": _polygon(_star_points()),
    "heart": _polygon(_heart_points()),
    "cross": _polygon(
        [
            *[(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)],
            *[(0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)],
        ]
    ),
    "diamond": _polygon([(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]),
    "ring": _ring,
    "moon": _moon,
    "arrow": _polygon([(-1, -0.25), (0.15, -0.25), (0.15, -0.75), (1, 0), (0.15, 0.75), (0.15, 0.25), (-1, 0.25)]),
}

# --- viewers

# Each order sorts the objects of a scene; ties in the first key are broken by the second, so every order is total.
ORDERS: dict[str, Callable[[SceneObject], tuple[float, ...]]] = {
    "rightward": lambda o: (o.cell[1], o.cell[0]),
    "leftward": lambda o: (-o.cell[1], o.cell[0]),
    "downward": lambda o: (o.cell[0], o.cell[1]),
    "upward": lambda o: (-o.cell[0], o.cell[1]),
    "largest": lambda o: (o.size != "large", o.cell[0], o.cell[1]),
    "smallest": lambda o: (o.size != "small", o.cell[0], o.cell[1]),
}
COUNTS = {"pair": 2, "trio": 3, "everything": 9}
DWELLS = {"glance": 0.15, "look": 0.35, "study": 0.80}  # median seconds on one object
OPENINGS = {
    "speaker": "I can see",
    "reporter": "There is",
    "artist": "The drawing shows",
    "guide": "Here we have",
}
CONNECTORS = {"lister": " and", "narrator": ", then", "assembler": ", together with"}
LEXICONS: dict[str, dict[str, str]] = {
    "common": {},
    "technical": {
        "circle": "disc",
        "square": "box",
        "triangle": "wedge",
        "star": "spark",
        "cross": "plus",
        "diamond": "rhombus",
        "ring": "hoop",
        "moon": "crescent",
        "arrow": "pointer",
        "small": "little",
        "large": "big",
    },
}

# Trait -> its values. A value's name is also the word that tells the language model about it (see `Viewer.words`).
TRAITS: dict[str, tuple[str, ...]] = {
    "order": tuple(ORDERS),
    "count": tuple(COUNTS),
    "dwell": tuple(DWELLS),
    "opening": tuple(OPENINGS),
    "connector": tuple(CONNECTORS),
    "lexicon": tuple(LEXICONS),
}
LOOKING_TRAITS = ("order", "count", "dwell")

_CANONICAL_SHAPE = {shape: shape for shape in SHAPES} | {
    word: shape for lexicon in LEXICONS.values() for shape, word in lexicon.items() if shape in SHAPES
}


@attrs.frozen
class Viewer:
    """A simulated person: one value for each of `TRAITS`."""

    name: str
    order: str
    count: str
    dwell: str
    opening: str
    connector: str
    lexicon: str

    def words(self) -> tuple[str, ...]:
        """The viewer's traits as words, in the order of `TRAITS`."""
        return tuple(getattr(self, trait) for trait in TRAITS)

    def visit(self, scene: Scene) -> tuple[SceneObject, ...]:
        """The objects the viewer looks at and talks about, in order."""
        return tuple(sorted(scene.objects, key=ORDERS[self.order])[: COUNTS[self.count]])

    def describe(self, scene: Scene) -> str:
        """What the viewer says about the scene."""
        phrases = [self._phrase(thing) for thing in self.visit(scene)]
        return f"{OPENINGS[self.opening]} {f'{CONNECTORS[self.connector]} '.join(phrases)}."

    def _phrase(self, thing: SceneObject) -> str:
        lexicon = LEXICONS[self.lexicon]
        words = [lexicon.get(thing.shape, thing.shape)]
        if self.dwell != "glance":
            words.insert(0, thing.colour)
        if self.dwell == "study":
            words.insert(0, lexicon.get(thing.size, thing.size))
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"

    def look(self, scene: Scene, rng: np.random.Generator) -> Trajectory:
        """How the viewer's gaze moves over the scene.

        One fixation on each visited object; now and then a second one on the same object, or a stray glance at another.
        Durations are log-normal around the viewer's dwell time.
        """
        fixations: list[Fixation] = []
        for thing in self.visit(scene):
            if rng.random() < 0.08:
                stray = scene.objects[int(rng.integers(len(scene.objects)))]
                fixations.append(Fixation(_gaze_box(stray, rng), float(rng.uniform(0.05, 0.12))))
            visits = 2 if rng.random() < 0.12 else 1
            dwell = DWELLS[self.dwell] * float(np.exp(rng.normal(0.0, 0.25)))
            fixations += [Fixation(_gaze_box(thing, rng), dwell / visits) for _ in range(visits)]
        return Trajectory(tuple(fixations))

    def sample(self, scene: Scene, rng: np.random.Generator, image: Image.Image | None = None) -> Sample:
        """The triplet (image, description, trajectory) of this viewer and scene."""
        return Sample(
            image=scene.draw() if image is None else image,
            description=self.describe(scene),
            trajectory=self.look(scene, rng),
            subject=self.name,
        )


def _gaze_box(thing: SceneObject, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box around the object, as coarse as a gaze tracker: shifted and scaled at random, kept inside the image."""
    (x, y), r = thing.centre, thing.radius * float(rng.uniform(0.9, 1.3))
    x, y = x + float(rng.normal(0.0, 0.015)), y + float(rng.normal(0.0, 0.015))
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x - r, y - r, x + r, y + r))
    return (x1, y1, x2, y2)


def mentioned_shapes(description: str) -> list[str]:
    """The shapes a description names, in order, in either lexicon; a scene has each once, so they name objects."""
    words = (word.strip(".,").lower() for word in description.split())
    return [_CANONICAL_SHAPE[word] for word in words if word in _CANONICAL_SHAPE]


def sample_viewer(rng: np.random.Generator, name: str = "") -> Viewer:
    """A viewer with every trait drawn uniformly."""
    return Viewer(name, **{trait: str(rng.choice(values)) for trait, values in TRAITS.items()})


def sample_viewers(
    rng: np.random.Generator,
    groups: int,
    orders_per_group: int,
    prefix: str,
    avoid: Iterable[Viewer] = (),
) -> list[Viewer]:
    """Draws groups of viewers who differ, within a group, in their scanning order alone.

    Args:
        rng: Source of randomness.
        groups: Number of groups; each has its own combination of all other traits.
        orders_per_group: Viewers in a group, each with another order; at most the number of orders.
        prefix: Viewers are named prefix + running number.
        avoid: Viewers whose group (all traits but the order) must not be used again: held-out people are truly new.

    Returns:
        groups × orders_per_group viewers, group after group.

    Raises:
        ValueError: There are not that many orders.
    """
    if not 1 <= orders_per_group <= len(ORDERS):
        raise ValueError(f"orders_per_group is {orders_per_group}, but there are {len(ORDERS)} orders")
    others = [trait for trait in TRAITS if trait != "order"]
    taken = {tuple(getattr(viewer, trait) for trait in others) for viewer in avoid}
    free = [combination for combination in itertools.product(*(TRAITS[t] for t in others)) if combination not in taken]
    chosen = rng.choice(len(free), size=groups, replace=False)
    viewers: list[Viewer] = []
    for index in chosen:
        fixed = dict(zip(others, free[int(index)], strict=True))
        orders = rng.permutation(list(ORDERS))[:orders_per_group]
        viewers += [
            Viewer(f"{prefix}{len(viewers) + i:03d}", order=str(order), **fixed) for i, order in enumerate(orders)
        ]
    return viewers
