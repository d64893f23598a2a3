"""What a persona file holds, and the attacks by which `training/people/privacy.py` measures what it gives away."""

import itertools
import json
from pathlib import Path

import attrs
import numpy as np
import pytest

import pydeper
from pydeper import DeperModel, Persona, Sample
from pydeper.bundle.layout import BUILTIN
from pydeper.drawing.shapes import SHAPES
from tests.support.paths import ROOT
from training.evaluation.page import refreshed
from training.people.privacy import OTHERS, SUPPORT, content, identity, membership, traits
from training.tiny.world.viewers import Viewer

DEMO = BUILTIN / "tiny" / "demo"


@pytest.mark.parametrize("who", ["ana", "ben"])
def test_a_persona_file_holds_nothing_of_its_samples(who, tmp_path):
    samples = pydeper.read_samples(DEMO / f"{who}.jsonl")
    marked = [attrs.evolve(sample, description=f"{sample.description} Zq{i}xw") for i, sample in enumerate(samples)]
    persona = Persona.from_samples(marked, model=DeperModel.from_pretrained("tiny", threads=1), name="somebody")
    data = persona.save(tmp_path / "p.safetensors").read_bytes()
    assert len(data) < 4096
    for sample in marked:
        text = str(sample.description)
        pieces = [text, *(text[i : i + 12] for i in range(len(text) - 11)), str(sample.image), Path(sample.image).name]
        pieces += [str(sample.subject), "Zq", sample.source or who]
        assert not [piece for piece in pieces if piece.encode() in data]
        arrays = [sample.trajectory.boxes, sample.trajectory.durations, sample.trajectory.boxes.astype(np.float64)]
        rows = itertools.chain.from_iterable(np.atleast_2d(array) for array in arrays)
        assert not [row for row in rows if row.tobytes() in data]
        picture = Path(sample.image).read_bytes()
        assert not any(picture[i : i + 16] in data for i in range(0, len(picture) - 16, 4))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header) == {"subject_embedding", "__metadata__"}
    assert set(header["__metadata__"]) == {
        *("format_version", "model_id", "encoder_fingerprint", "num_samples", "created", "pydeper_version", "name")
    }


def people(spread: float, count: int = 12, width: int = 40) -> np.ndarray:
    """(people, samples, d): samples scatter around each person's own place as `spread` says."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 1, width)) + spread * rng.standard_normal((count, SUPPORT + OTHERS, width))


def found(table, *parts):
    (row,) = (row for name, row in table.items() if all(part in name for part in parts))
    return row["found"].estimate


def test_people_who_differ_are_recognised_and_people_who_do_not_are_not():
    apart, alike = identity(people(0.1)), identity(people(1e6))
    assert found(apart, "5 new samples", "nearest of 12") == 1
    assert found(apart, "1 new sample:", "AUC") == 1
    assert found(alike, "5 new samples", "nearest") < 0.4
    assert found(alike, "1 new sample:", "AUC") == pytest.approx(0.5, abs=0.2)


def test_least_squares_finds_the_samples_of_a_mean_and_nothing_where_they_are_others():
    vectors = people(1.0, count=20, width=120)
    table = membership(vectors, vectors, "all")
    assert found(table, "20 candidates") == 1
    assert 0.6 < found(table, "cosine") < 1
    strangers = membership(vectors, vectors[:, :, ::-1], "others")
    assert found(strangers, "20 candidates") == pytest.approx(0.5, abs=0.2)


VIEWERS = [
    Viewer(f"p{i}", order, count, dwell, "guide", "lister", "common")
    for i, (order, count, dwell) in enumerate(
        itertools.product(("rightward", "leftward"), ("pair", "trio"), ("glance", "look", "study"))
    )
]


def test_a_trait_that_is_in_the_numbers_is_read_and_one_that_is_not_is_not():
    opened = [attrs.evolve(v, opening="artist", connector="narrator", lexicon="technical") for v in VIEWERS]
    viewers = [*VIEWERS, *opened] * 4
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(viewers), 6))
    codes = np.array([[viewer.order == "leftward", viewer.opening == "artist"] for viewer in viewers]) * 20.0
    vectors = np.concatenate([codes, noise], axis=1)
    named = [attrs.evolve(viewer, name=str(i)) for i, viewer in enumerate(viewers)]
    table = traits(vectors, named, vectors[::-1], named[::-1])
    assert found(table, "order") == found(table, "lexicon") == 1
    fresh = np.concatenate([codes, rng.standard_normal(noise.shape)], axis=1)
    assert found(traits(vectors, named, fresh, named), "dwell") < 0.6


def test_what_is_mentioned_is_read_where_it_is_in_the_numbers():
    rng = np.random.default_rng(0)
    shapes = rng.random((40, len(SHAPES))) < 0.5
    viewers = [attrs.evolve(VIEWERS[i % len(VIEWERS)], name=str(i)) for i in range(40)]
    samples = [
        [Sample(image=b"-", description="I see " + " and ".join(np.array(list(SHAPES))[row]) + ".")]
        for row in shapes | (~shapes.any(axis=1, keepdims=True))
    ]
    told = shapes + 0.1 * rng.standard_normal(shapes.shape)
    silent = rng.standard_normal((40, 30))
    assert found(content(told, samples, told, samples, viewers), "content") > 0.95
    asked = rng.standard_normal((40, 30))
    assert found(content(silent, samples, asked, samples, viewers), "content") == pytest.approx(0.5, abs=0.15)


def test_the_page_shows_the_results():
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert page == refreshed(page, ROOT / "docs" / "results"), (
        "run `python -m training page docs/privacy.md --results docs/results`"
    )
