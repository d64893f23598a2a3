"""What is where in a scene, and where it stands in every order: targets for each token of an image."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES
from training.tiny.world.scenes import MAX_MENTIONED, ORDERS, SMALL, Scene, SceneObject

_SHAPES, _COLOURS, _SIZES = list(SHAPES), list(COLOURS), ["small", "medium", "large"]

# Targets and their numbers of classes; class 0 is "nothing here".
THINGS: dict[str, int] = {
    "shape": len(_SHAPES) + 1,
    "colour": len(_COLOURS) + 1,
    "size": len(_SIZES) + 1,
    "outlined": 3,
}
"""What an object is; told by all of its tokens."""

# The image precedes the text of the prompt, so its tokens cannot depend on it: they have to hold every order. The last
# class of an order is "after everything that is mentioned".
PLACES: dict[str, int] = {"centre": 2} | dict.fromkeys(ORDERS, MAX_MENTIONED + 2)
"""That an object's centre is here, and its place in each order ("the second from the right"); told by one token each.

A text that names the objects one after another then has exactly one token to look at for the next.
"""

TARGETS = THINGS | PLACES

MEASURES = ("centre from token, across", "centre from token, down", "log of extent")
"""Numbers that each of an object's tokens tells; lengths are in shorter sides of the picture."""


def dense_targets(scene: Scene, rows: int, columns: int, names: Sequence[str] = tuple(TARGETS)) -> np.ndarray:
    """Class of every token of a grid over the scene: (len(names), rows·columns) int64, 0 where nothing is.

    A token belongs to an object whose box holds its centre, or that has its own centre in the token; where several do,
    to the one whose centre is nearest in terms of its extent.
    """
    owner = _owners(scene, rows, columns)
    ranks = {order: {id(thing): place for place, thing in enumerate(scene.ranked(order))} for order in ORDERS}
    classes = np.zeros((len(names), len(scene.objects) + 1), np.int64)  # the last column: nothing
    for number, thing in enumerate(scene.objects):
        own = _classes(thing) | {order: min(places[id(thing)], MAX_MENTIONED) for order, places in ranks.items()}
        classes[:, number] = [own[name] + 1 for name in names]
    targets = classes[:, owner]
    elsewhere = np.ones(rows * columns, bool)
    elsewhere[[_central_token(thing, rows, columns) for thing in scene.objects]] = False
    targets[np.ix_(np.array([name in PLACES for name in names]), elsewhere)] = 0
    return targets


def dense_measures(scene: Scene, rows: int, columns: int) -> np.ndarray:
    """`MEASURES` of every token's object: (len(MEASURES), rows·columns) float32, 0 where nothing is."""
    owner = _owners(scene, rows, columns)
    width, height = scene.canvas
    x = np.tile((np.arange(columns) + 0.5) * width / columns, rows)
    y = np.repeat((np.arange(rows) + 0.5) * height / rows, columns)
    measures = np.zeros((len(MEASURES), rows * columns), np.float32)
    for number, thing in enumerate(scene.objects):
        own = owner == number
        measures[:2, own] = thing.centre[0] - x[own], thing.centre[1] - y[own]
        measures[2, own] = math.log(thing.extent / SMALL)
    return measures


def _central_token(thing: SceneObject, rows: int, columns: int) -> int:
    (x, y), (width, height) = thing.centre, thing.canvas
    return min(int(y / height * rows), rows - 1) * columns + min(int(x / width * columns), columns - 1)


def _classes(thing: SceneObject) -> dict[str, int]:
    return {
        "shape": _SHAPES.index(thing.shape),
        "colour": _COLOURS.index(thing.colour),
        "size": _SIZES.index(thing.size),
        "outlined": int(thing.outlined),
        "centre": 0,
    }


def _owners(scene: Scene, rows: int, columns: int) -> np.ndarray:
    """(rows·columns,) the number of each token's object; -1 for none."""
    if not scene.objects:
        return np.full(rows * columns, -1)
    boxes = np.array([thing.box for thing in scene.objects])  # (n, 4)
    x, y = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2
    reach = np.maximum(halves, (0.5 / columns, 0.5 / rows))
    dx = np.abs(x - centres[:, :1]) / reach[:, :1]  # (n, columns)
    dy = np.abs(y - centres[:, 1:]) / reach[:, 1:]
    distance = np.maximum(dx[:, None, :], dy[:, :, None]).reshape(len(boxes), -1)
    return np.where(distance.min(axis=0) <= 1, distance.argmin(axis=0), -1)


_MEASURED = 10.0  # errors are some hundredths, cross-entropies some tenths


class DenseHeads(nn.Module):
    """Throw-away linear heads that tell, for every token, what is there.

    Args:
        channels: C of the tokens.
        names: Which of `TARGETS`; the first also has to tell where nothing is.
    """

    def __init__(self, channels: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.heads = nn.ModuleDict({name: nn.Linear(channels, TARGETS[name]) for name in names})
        self.measures = nn.Linear(channels, len(MEASURES))

    def losses(self, tokens: Tensor, targets: Tensor, measures: Tensor) -> dict[str, Tensor]:
        """Cross-entropies, the error of what is measured, and the fractions that are right.

        Whether a token has an object, or its centre, counts as much where there is one as where there is none, however
        little of the picture objects cover; what an object is counts where there is one.

        Args:
            tokens: (B, N, C).
            targets: (B, len(names), N) int64.
            measures: (B, len(MEASURES), N).
        """
        loss, logged = tokens.new_zeros((), dtype=torch.float32), {}
        in_order = []
        for index, name in enumerate(self.names):
            logits, own = self.heads[name](tokens).float(), targets[:, index]
            there = own > 0
            if bool(there.any()):
                loss = loss + F.cross_entropy(logits[there], own[there])
                right = (logits[there].argmax(-1) == own[there]).float().mean()
                if name in ORDERS:
                    in_order.append(right)
                else:
                    logged[f"{name} right"] = right
            if (index == 0 or name in PLACES) and not bool(there.all()):
                loss = loss + F.cross_entropy(logits[~there], own[~there])
                if index == 0:
                    logged["invented"] = (logits[~there].argmax(-1) > 0).float().mean()
        if in_order:
            logged["places in orders right"] = torch.stack(in_order).mean()
        there = targets[:, 0] > 0
        if bool(there.any()):
            error = F.smooth_l1_loss(self.measures(tokens).float()[there], measures.mT[there], beta=0.05)
            logged["error of measures"] = error
            loss = loss + _MEASURED * error
        return {"loss": loss, **logged}
