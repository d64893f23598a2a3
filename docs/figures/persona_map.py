"""Personas of people unseen in training, as points: along their widest directions, and along those of looking."""

from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from docs.figures.drawing import Drawing
from pydeper import DeperModel
from training.config import load_config
from training.tiny.config import TinyConfig
from training.tiny.steps import Seeds, seed_of
from training.tiny.world.people import simulate_people
from training.tiny.world.scenes import ORDERS

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "tiny.toml"
DIRECTIONS = ("rightward", "leftward", "downward", "upward")
SAMPLES = 5  # of a persona
_KNOWN = 120  # people who are enough to find the directions of looking

Vectors = NDArray[np.float64]

_SIDE, _LEFT = 250, (16, 294)
# Light and dark pages show these alike; the marks' shapes say the same as their colours.
_COLOURS = {
    "rightward": "#2f7fd6",
    "leftward": "#d9552b",
    "downward": "#1f9d72",
    "upward": "#b657c9",
    "largest": "#8792a5",
    "smallest": "#8792a5",
    "warmest": "#cf8a17",
    "coolest": "#2b93a8",
}


@attrs.frozen(eq=False)
class Personas:
    """Subject embeddings of personas, (n, 384), and the scanning order of each one's person."""

    vectors: Vectors
    orders: NDArray[np.str_]


def personas() -> tuple[Personas, Personas]:
    """Personas of 5 samples each: of some people who were trained on, and of people who were not."""
    config = load_config(TinyConfig, CONFIG, [])
    people = simulate_people(config.viewers, seed_of(config, Seeds.VIEWERS))
    model = DeperModel.from_pretrained("tiny", threads=1)
    known = [viewer for viewer in people.seen if viewer.order in DIRECTIONS][:_KNOWN]
    samples = {viewer.name: [s for s in people.training if s.subject == viewer.name][:SAMPLES] for viewer in known}
    seen = np.stack([[model.embed(own).mean(0)] for own in samples.values()])
    unseen = np.stack([[model.embed(samples).mean(0) for samples in sets] for sets in people.support])
    return _named(seen, [viewer.order for viewer in known]), _named(unseen, [viewer.order for viewer in people.unseen])


def widest(unseen: Personas) -> Vectors:
    """(n, 2): along the two directions in which the personas differ most (principal components)."""
    centred = unseen.vectors - unseen.vectors.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    directions *= np.sign(directions[np.arange(2), np.abs(directions).argmax(1)])[:, None]
    projected: Vectors = centred @ directions.T
    return projected


def by_looking(seen: Personas, unseen: Personas) -> Vectors:
    """(n, 2): along the two directions that part the four directions of scanning best, among people of the training."""
    fitted = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=2)
    places: Vectors = fitted.fit(seen.vectors, seen.orders).transform(unseen.vectors)
    return places


def draw() -> str:
    """Draws both maps, with one legend."""
    seen, unseen = personas()
    count, people = len(unseen.orders), load_config(TinyConfig, CONFIG).viewers
    groups, group = people.unseen_groups, people.unseen_orders_per_group
    d = Drawing(
        "Personas of unseen people",
        f"Two scatter plots of {count} personas, of {groups * group} simulated people who were not in training. Left, "
        f"along the two widest directions, those of each of {groups} groups lie together: people of a group are alike "
        "in all but their scanning order. Right, along the two directions that part scanning orders best among the "
        "people of the training, people who look rightward, leftward, downward and upward lie in different places; "
        "people who go by size or colour lie between them.",
        436,
    )
    titles = ("the two widest directions", "two directions of looking")
    aside = ("alike in all but scanning order", "found on people of the training")
    for left, title, note, places in zip(_LEFT, titles, aside, (widest(unseen), by_looking(seen, unseen)), strict=True):
        d.text(left, 26, title, style="label")
        d.box(left, 38, _SIDE, _SIDE, kind="quiet")
        for (x, y), order in zip(_inside(places, left), unseen.orders, strict=True):
            d.raw(_mark(x, y, str(order)))
        d.text(left, 308, note, style="small aside")
    for number, order in enumerate(ORDERS):
        x, y = 24 + 135 * (number % 4), 344 + 30 * (number // 4)
        d.raw(_mark(x, y - 5, order))
        d.text(x + 16, y, order, style="small")
    unknown = f"{count} personas of {groups * group} people unseen in training, {SAMPLES} samples each."
    d.text(16, 406, unknown, style="small aside")
    legend = "Right: the axes part the four arrows. Rings go by size, dots by colour."
    d.text(16, 426, legend, style="small aside")
    return d.svg()


def _named(vectors: NDArray[np.floating], orders: list[str]) -> Personas:
    return Personas(vectors.reshape(-1, vectors.shape[-1]).astype(np.float64), np.repeat(orders, vectors.shape[1]))


def _inside(places: Vectors, left: float) -> Vectors:
    """The places inside a panel, on one scale for both axes."""
    low, high = places.min(0), places.max(0)
    scaled = (places - (low + high) / 2) / (high - low).max() * (_SIDE - 36)
    return np.stack([left + _SIDE / 2 + scaled[:, 0], 38 + _SIDE / 2 - scaled[:, 1]], axis=1)


def _mark(x: float, y: float, order: str) -> str:
    """An arrow in the direction of looking; a large or small ring for people who go by size, a dot by colour."""
    colour = _COLOURS[order]
    if order in DIRECTIONS:
        turn = {"rightward": 0, "downward": 90, "leftward": 180, "upward": 270}[order]
        shape = "M-7 -1.6H0V-5L7.5 0 0 5V1.6H-7Z"
        return f'<path d="{shape}" fill="{colour}" transform="translate({x:.1f} {y:.1f}) rotate({turn})"/>'
    if order in ("warmest", "coolest"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    radius = 5 if order == "largest" else 2.5
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
