"""Privacy: what a persona gives away, measured with the built-in model, on simulated people that it has never seen.

Whoever holds a persona file holds 384 numbers and the model's name. Four questions, each a way to attack it:

- **Identity**: is a new sample, or another persona, of the same person?
- **Traits**: which ways of looking and wording can a linear probe read?
- **Content**: which shapes do the descriptions mention that the persona was made of?
- **Membership**: was this very sample among those that the persona was made of? Answered by the cosine to the persona,
  and by non-negative least squares: a persona is a mean, so a pool of candidates that holds all of its samples can be
  solved for those that were used.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydeper import DeperModel, Sample
from pydeper.drawing.shapes import SHAPES
from training.config import load_config
from training.evaluation.bootstrap import Interval, bootstrap_mean
from training.evaluation.probes import transfer_probe
from training.evaluation.report import Figure, check_reports, write_report
from training.metrics.requirements import MissingRequirementError
from training.people.nearest_centroid import Vectors, unit
from training.seeding import step_generator
from training.tiny.config import TinyConfig
from training.tiny.evaluation import without_trajectory
from training.tiny.world.people import draw_samples
from training.tiny.world.viewers import COUNTS, TRAITS, Viewer, mentioned_shapes, sample_viewers

SUPPORT = 5  # samples of a persona, as in the paper
OTHERS = 10  # samples of each person that no persona is made of
GROUPS, ORDERS = (
    15,
    6,
)  # people who are tested: groups differ in all traits, within one the scanning order alone differs
FITTED_GROUPS = 40  # people whom the probes are fitted to
POOLS = (20, 200)  # candidates that least squares chooses among
RIDGE = 0.1

_REPORT = "privacy"

Table = dict[str, dict[str, Figure]]


def run(tiny_config: Path, report: Path, seed: int = 0) -> tuple[Path, Path]:
    """Measures the built-in model and writes `privacy.json` and `privacy.md`.

    Args:
        tiny_config: What the built-in model was made with; the people of its training are left out.
        report: Folder of the results.
        seed: Of people and samples.

    Returns:
        The two files.

    Raises:
        MissingRequirementError: SciPy or scikit-learn is not installed.
        OutputError: Files of these names are something else.
    """
    check_reports(report, [_REPORT])
    tiny = load_config(TinyConfig, tiny_config, [])
    seen = sample_viewers(step_generator(tiny.seed, 0), tiny.viewers.groups, tiny.viewers.orders_per_group, "seen")
    rng = step_generator(seed, 100)
    tested = sample_viewers(rng, GROUPS, ORDERS, "tested", avoid=seen)
    fitted = sample_viewers(rng, FITTED_GROUPS, ORDERS, "fitted", avoid=[*seen, *tested])

    model = DeperModel.from_pretrained("tiny")
    samples = [draw_samples(viewer, SUPPORT + OTHERS, seed, 101, i) for i, viewer in enumerate(tested)]
    fitted_samples = [draw_samples(viewer, SUPPORT, seed, 102, i) for i, viewer in enumerate(fitted)]
    vectors, known = _embed(model, samples), _embed(model, fitted_samples).mean(axis=1)
    personas = vectors[:, :SUPPORT].mean(axis=1)
    results = {
        **identity(vectors),
        **traits(known, fitted, personas, tested),
        **content(known, fitted_samples, personas, [own[:SUPPORT] for own in samples], tested),
        **membership(vectors, vectors, "the whole sample"),
        **membership(vectors, _embed(model, without_trajectory(samples)), "picture and words without the gaze"),
    }
    facts = {
        "command": "python -m training privacy",
        "people": f"{len(tested)} simulated, none of them in the model's training; in {GROUPS} groups of {ORDERS}, who "
        "differ in their scanning order alone",
        "samples of a persona": SUPPORT,
        "probes fitted to": f"{len(fitted)} other simulated people",
        "least squares": f"non-negative; the candidates are the persona's {SUPPORT}, up to {OTHERS} others of the same "
        "person, and other people's",
        "seed": seed,
        "intervals": "95 %, bootstrap over people (content: over shapes)",
    }
    return write_report(report, _REPORT, results, title="What a persona gives away", facts=facts)


def identity(vectors: Vectors) -> Table:
    """Who is it, of all people? Each is enrolled with `SUPPORT` samples and identified by others.

    Args:
        vectors: (people, samples, d).
    """
    personas = unit(vectors[:, :SUPPORT].mean(axis=1))
    people = len(personas)
    table: Table = {}
    for count in (1, SUPPORT):
        cosines = unit(vectors[:, SUPPORT : SUPPORT + count].mean(axis=1)) @ personas.T
        hits = cosines.argmax(axis=1) == np.arange(people)
        apart = [_auc(row[[person]], np.delete(row, person)) for person, row in enumerate(cosines)]
        whose = f"identity, from {count} new sample{'s' * (count > 1)}"
        table[f"{whose}: nearest of {people} personas, share right"] = _row(1 / people, hits)
        table[f"{whose}: this person's persona or another's, AUC"] = _row(0.5, apart)
    return table


def traits(known: Vectors, known_people: Sequence[Viewer], tested: Vectors, tested_people: Sequence[Viewer]) -> Table:
    """Accuracy of linear probes of every trait: fitted to some people's personas, tested on others'."""
    names = [viewer.name for viewer in tested_people]
    table: Table = {}
    for trait, values in TRAITS.items():
        fitted_values, test_values = ([getattr(v, trait) for v in side] for side in (known_people, tested_people))
        found = transfer_probe(known, fitted_values, tested, test_values, people=names)
        table[f"trait: {trait}, of {len(values)}, share right"] = {"chance": 1 / len(values), "found": found}
    return table


def content(
    known: Vectors,
    known_samples: Sequence[Sequence[Sample]],
    tested: Vectors,
    tested_samples: Sequence[Sequence[Sample]],
    tested_people: Sequence[Viewer],
) -> Table:
    """Does a linear probe tell whether a shape is mentioned in the samples behind a persona?

    People are compared only with those who mention as many objects: how many is a trait, and gives away how likely a
    shape is.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-9
    fitted, queries = (known - mean) / spread, (tested - mean) / spread
    gram = fitted.T @ fitted + RIDGE * len(fitted) * np.eye(fitted.shape[1])
    known_shapes, tested_shapes = _mentioned(known_samples), _mentioned(tested_samples)
    scores = queries @ np.linalg.solve(gram, fitted.T @ (known_shapes - known_shapes.mean(axis=0)))
    counts = np.array([viewer.count for viewer in tested_people])
    cells = []
    for shape in range(len(SHAPES)):
        for count in COUNTS:
            there, rows = tested_shapes[:, shape] > 0, counts == count
            if (rows & there).any() and (rows & ~there).any():
                cells.append((shape, _auc(scores[rows & there, shape], scores[rows & ~there, shape])))
    found = bootstrap_mean([auc for _, auc in cells], [shape for shape, _ in cells])
    return {"content: is a shape mentioned in the samples, AUC": {"chance": 0.5, "found": found}}


def membership(vectors: Vectors, candidates: Vectors, what: str) -> Table:
    """Was a sample among the persona's?

    Args:
        vectors: (people, samples, d) of the samples as they are; the first `SUPPORT` of each person make the persona.
        candidates: The same of the samples as the attacker has them.
        what: What that is, for the rows' names.
    """
    try:
        from scipy.optimize import nnls
    except ImportError as error:
        raise MissingRequirementError('least squares needs SciPy: pip install -e ".[eval]"') from error

    # As in a file: a persona's numbers are float32.
    personas = vectors[:, :SUPPORT].mean(axis=1).astype(np.float32).astype(np.float64)
    cosines = np.einsum("psd,pd->ps", unit(candidates), unit(personas))
    table: Table = {
        f"membership, {what}: cosine, among the person's own samples, AUC": _row(
            0.5, [_auc(row[:SUPPORT], row[SUPPORT:]) for row in cosines]
        )
    }
    for size in POOLS:
        rng = np.random.default_rng(size)
        found = []
        for person, own in enumerate(candidates):
            # Half of the others are the person's own as far as there are so many, the rest anybody's.
            near = own[SUPPORT : SUPPORT + (size - SUPPORT) // 2]
            foreign = np.delete(candidates, person, axis=0).reshape(-1, own.shape[1])
            far = foreign[rng.choice(len(foreign), size - SUPPORT - len(near), replace=False)]
            weights, _ = nnls(np.concatenate([own[:SUPPORT], near, far]).T, personas[person])
            found.append(_auc(weights[:SUPPORT], weights[SUPPORT:]))
        table[f"membership, {what}: least squares, {size} candidates, AUC"] = _row(0.5, found)
    return table


def _embed(model: DeperModel, samples: Sequence[Sequence[Sample]]) -> Vectors:
    """(people, samples, d)."""
    flat = model.embed([sample for own in samples for sample in own])
    return flat.reshape(len(samples), -1, flat.shape[1]).astype(np.float64)


def _mentioned(samples: Sequence[Sequence[Sample]]) -> Vectors:
    """(people, shapes): 1 where any of a person's samples mentions the shape."""
    texts = [" ".join(str(sample.description) for sample in own) for own in samples]
    return np.array([[shape in mentioned_shapes(text) for shape in SHAPES] for text in texts], np.float64)


def _row(chance: float, values: Sequence[float] | NDArray[np.bool_]) -> dict[str, Figure]:
    """A row of the table; `values` are one a person."""
    found: Interval = bootstrap_mean(np.asarray(values, np.float64), range(len(values)))
    return {"chance": chance, "found": found}


def _auc(positive: Vectors, negative: Vectors) -> float:
    """The fraction of pairs in which the positive one scores higher; ties are half a win (Mann and Whitney 1947)."""
    differences = positive[:, None] - negative[None, :]
    return float((np.sign(differences).mean() + 1) / 2)
