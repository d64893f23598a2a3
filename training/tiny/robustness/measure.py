"""Measures the built-in model on drawings by other programs and on changed drawings."""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.report import Figure
from training.tiny.robustness.changed_drawings import sample_changes
from training.tiny.robustness.drawings import Renderer, sample_drawings
from training.tiny.robustness.foreign_drawings import RENDERERS
from training.tiny.robustness.naming import Naming, compare, score
from training.tiny.world.viewers import mentioned_objects

SEED = 20_000

Results = dict[str, dict[str, Figure]]


def score_drawings(
    describe: Callable[[Image.Image], str], count: int, renderers: Mapping[str, Renderer] = RENDERERS
) -> Results:
    """How right the objects are that a model names in drawings by renderers that it never learned from.

    Args:
        describe: A picture -> its description by nobody in particular.
        count: Number of drawings.
        renderers: Who draws them, in turn.

    Returns:
        Rows are the renderers and all together; see `naming.score` for the columns.
    """
    drawings = sample_drawings(renderers, count, np.random.default_rng(SEED))
    rows: dict[str, list[tuple[Naming, str]]] = {}
    for number, drawing in enumerate(drawings):
        naming = compare(describe(drawing.render()), [thing.name for thing in drawing.shapes])
        for row in (drawing.renderer, "all"):
            rows.setdefault(row, []).append((naming, f"drawing {number}"))
    return {
        row: score([naming for naming, _ in own], [drawing for _, drawing in own]) | {"drawings": len(own)}
        for row, own in sorted(rows.items(), key=lambda item: item[0] == "all")
    }


def score_changes(describe: Callable[[Image.Image], str], count: int) -> Results:
    """How often a description that names as many objects as there are changes as the picture did.

    Args:
        describe: A picture -> its description by nobody in particular.
        count: Number of pairs of pictures.

    Returns:
        Rows are the kinds of change and all together.
    """
    rows: dict[str, list[float]] = {}
    for change in sample_changes(count, np.random.default_rng(SEED + 1)):
        before, after = (mentioned_objects(describe(picture)) for picture in (change.before, change.after))
        for row in (change.kind, "all"):
            rows.setdefault(row, []).append(float(len(before) == change.objects and after == change.follow(before)))
    return {
        row: {"changed as the picture": bootstrap_mean(own, range(len(own))), "pairs": len(own)}
        for row, own in sorted(rows.items(), key=lambda item: item[0] == "all")
    }
