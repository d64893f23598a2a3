"""The tiny world's viewers: simulated people who look at scenes and describe them, each in their own way.

A viewer has six traits. Three say how they *look*: in which order they visit the objects, how many they visit, and for
how long they stay on each. Three say how they *word* what they saw: the opening, the connector and the lexicon. Looking
shows twice: in the trajectory, and in the description, which names the visited objects in the visited order, and in
more detail the longer each was looked at: the shape, then its colour as well, then also its size and whether only its
outline is drawn.

Viewers come in groups that share every trait but the order (`sample_viewers`). Within such a group the wording, the
number of objects and the amount of detail tell nobody apart; only the scanning order does. An encoder that is to tell
these viewers apart has to read the trajectory.
"""

import itertools
from collections.abc import Iterable

import attrs
import numpy as np
from PIL import Image

from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory
from training.tiny.world.rendering import render
from training.tiny.world.scenes import MAX_MENTIONED, ORDERS, Scene, SceneObject

COUNTS = {"pair": 2, "trio": 3, "everything": MAX_MENTIONED}
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
        "oval": "ellipse",
        "square": "box",
        "rectangle": "block",
        "triangle": "wedge",
        "diamond": "rhombus",
        "star": "spark",
        "cross": "plus",
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

NOTHING = "A drawing without shapes that I know."
"""What everybody says where there is nothing to name."""

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
        return tuple(scene.ranked(self.order)[: COUNTS[self.count]])

    def describe(self, scene: Scene) -> str:
        """What the viewer says about the scene; who mentions everything stops after the sixth object, and says so."""
        visited = self.visit(scene)
        if not visited:
            return NOTHING
        phrases = [self._phrase(thing) for thing in visited]
        if self.count == "everything" and len(scene.objects) > len(visited):
            phrases.append("more")
        return f"{OPENINGS[self.opening]} {f'{CONNECTORS[self.connector]} '.join(phrases)}."

    def _phrase(self, thing: SceneObject) -> str:
        words = [thing.shape]
        if self.dwell != "glance":
            words.insert(0, thing.colour)
        if self.dwell == "study":
            words = [*([] if thing.size == "medium" else [thing.size]), *(["outlined"] * thing.outlined), *words]
        lexicon = LEXICONS[self.lexicon]
        said = " ".join(lexicon.get(word, word) for word in words)
        return f"{'an' if said[0] in 'aeiou' else 'a'} {said}"

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
            image=render(scene) if image is None else image,
            description=self.describe(scene),
            trajectory=self.look(scene, rng),
            subject=self.name,
        )


def _gaze_box(thing: SceneObject, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box around the object, as coarse as a gaze tracker: shifted and scaled at random, kept inside the image."""
    x1, y1, x2, y2 = thing.box
    scale = float(rng.uniform(0.9, 1.3)) / 2
    x, y = (x1 + x2) / 2 + float(rng.normal(0.0, 0.015)), (y1 + y2) / 2 + float(rng.normal(0.0, 0.015))
    width, height = scale * (x2 - x1), scale * (y2 - y1)
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x - width, y - height, x + width, y + height))
    return (x1, y1, x2, y2)


PLAIN = Viewer("", "rightward", "everything", "look", "speaker", "lister", "common")
"""How scenes are described for nobody in particular: everything, from left to right, by colour and shape."""


def said_words() -> list[str]:
    """Everything that viewers say, and the words for their traits, in pieces that a tokenizer can learn from."""
    words = {*SHAPES, *COLOURS, "small", "large", "outlined", "more", "a", "an"}
    words |= {word for lexicon in LEXICONS.values() for word in lexicon.values()}
    words |= {value for values in TRAITS.values() for value in values}
    return [*(f" {word}" for word in sorted(words)), *OPENINGS.values(), *CONNECTORS.values(), NOTHING]


def mentioned_objects(description: str) -> list[tuple[str | None, str]]:
    """The colour (None where none is said) and the shape of every object that a description names, in order."""
    objects: list[tuple[str | None, str]] = []
    colour = None
    for word in (word.strip(".,").lower() for word in description.split()):
        if word in COLOURS:
            colour = word
        elif word in _CANONICAL_SHAPE:
            objects.append((colour, _CANONICAL_SHAPE[word]))
            colour = None
    return objects


def mentioned_shapes(description: str) -> list[str]:
    """The shapes a description names, in order, in either lexicon; where a scene has each once, they name objects."""
    return [shape for _, shape in mentioned_objects(description)]


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
