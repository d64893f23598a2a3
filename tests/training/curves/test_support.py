"""`python -m training curve support`: the built-in model with personas of few and of many samples."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

from pydeper import DeperModel, Persona, read_samples, write_samples
from training.baselines.targets import people_of
from training.cli.main import main
from training.curves.support import Describer, SupportSettings, withhold
from training.evaluation.predictions import Prediction, References, read_predictions
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

INPUTS = ["text + gaze", "text only", "gaze only"]
SCORES = ["--metrics", "BLEU-4", "CLS", "--tokenizer", "words"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seen viewers with 4 samples to know each, two unseen ones with 3; both of a kind describe 2 images."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    seen = sample_viewers(rng, 1, 2, "seen")
    unseen = sample_viewers(rng, 1, 2, "unseen", avoid=seen)
    samples = []
    for viewers, known, asked, count in ((seen, "train", "test", 4), (unseen, "support", "query", 3)):
        for number in range(count + 2):
            scene = sample_scene(rng)
            path = folder / f"{known}-{number}.png"
            render(scene).save(path)
            split = known if number < count else asked
            samples += [attrs.evolve(viewer.sample(scene, rng), image=path, split=split) for viewer in viewers]
    write_samples(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


def curve(samples: Path, out: Path, *more: str) -> int:
    arguments = ["curve", "support", "--bundle", "tiny", "--samples", str(samples), "--dataset", "drawn"]
    return main([*arguments, "--out", str(out), "--max-new-tokens", "8", "--draws", "2", *SCORES, *more])


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    assert curve(world, out) == 0
    return out


def results(out: Path, people: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / f"results/drawn-{people}-support-curve.json").read_text())
    return report


def predictions(out: Path, people: str, count: int, draw: int) -> list[Prediction]:
    return read_predictions(out / f"drawn-{people}/{count}-samples/draw-{draw}/predictions.jsonl")


def test_every_number_that_everybody_has_is_a_point_with_all_inputs(made):
    for people in ("seen", "unseen"):
        report = results(made, people)
        assert list(report["results"]) == [
            f"{name}, {count}" for name in INPUTS for count in ("1 sample", "2 samples", "3 samples")
        ]
        for figures in report["results"].values():
            assert list(figures) == ["BLEU-4", "CLS"]
            assert figures["BLEU-4"]["low"] <= figures["BLEU-4"]["value"] <= figures["BLEU-4"]["high"]
        assert report["facts"]["draws"] == "2 of each number of samples, seed 0; 1 where it is all of them"
        with Image.open(made / f"results/drawn-{people}-support-curve.png") as picture:
            assert picture.size[0] > 600
        assert (made / f"results/drawn-{people}-support-curve.md").exists()


def test_a_persona_is_the_mean_of_the_samples_that_were_drawn(made, world):
    """Of all three samples there is one draw, and the persona is that of `evaluate`."""
    model = DeperModel.from_pretrained("tiny")
    assert not (made / "drawn-unseen/3-samples/draw-1").exists()
    samples = read_samples(world)
    without = {"text + gaze": None, "text only": "trajectory", "gaze only": "text"}
    for row in predictions(made, "unseen", 3, 0):
        own = [withhold(s, without[row.system]) for s in samples if s.subject == row.subject and s.split == "support"]
        persona = Persona.from_samples(own, model=model)
        assert row.prediction == model.describe(world.parent / row.image, persona, max_new_tokens=8)


def test_draws_differ_and_more_samples_hold_the_fewer(world):
    model, samples = DeperModel.from_pretrained("tiny"), read_samples(world)
    people = people_of(samples, References.of(world, samples))
    describer = Describer(model, {}, SupportSettings(draws=8), people, 3)
    for person in people:
        single = model.embed(person.known)
        firsts = set()
        for draw in range(8):
            drawn: list[int] = []
            for count in (1, 2, 3):
                mean = describer.persona(person.name, "text + gaze", draw, count).subject_embedding
                rest = count * mean - single[drawn].sum(axis=0)
                drawn.append(int(np.abs(single - rest).max(axis=1).argmin()))
                np.testing.assert_allclose(rest, single[drawn[-1]], atol=1e-4)
            assert len(set(drawn)) == 3  # without replacement
            firsts.add(drawn[0])
        assert len(firsts) > 1


def test_nothing_is_described_twice_and_points_can_be_added(made, world, monkeypatch, tmp_path):
    before = {path: path.read_bytes() for path in sorted(made.rglob("*.jsonl"))}

    def fail(*_, **__):
        raise AssertionError("described already")

    with monkeypatch.context() as patch:
        patch.setattr(DeperModel, "describe_batch", fail)
        assert curve(world, made, "--splits", "query", "--report", str(tmp_path / "again")) == 0
    assert curve(world, made, "--splits", "test", "--counts", "4", "--report", str(tmp_path / "more")) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (made / "drawn-seen/4-samples/draw-0/predictions.jsonl").exists()
    found = json.loads((tmp_path / "again/drawn-unseen-support-curve.json").read_text())
    assert found == results(made, "unseen")


def test_an_interrupted_point_goes_on_with_its_next_line(made, world, tmp_path):
    out = tmp_path / "run"
    point = Path("drawn-unseen/3-samples/draw-0")
    (out / point).mkdir(parents=True)
    whole = (made / point / "predictions.jsonl").read_bytes()
    (out / point / "predictions.partial.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:5]) + b'{"im')
    (out / point / "predictions.settings.json").write_bytes((made / point / "predictions.settings.json").read_bytes())
    assert curve(world, out, "--splits", "query", "--counts", "3") == 0
    assert (out / point / "predictions.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--counts", "1", "4"], "counts: 4 is not from 1 to 3: 'unseen"),
        (["--counts", "0"], "counts: 0 is not from 1 to"),
        (["--splits", "val"], "splits: 'val' is none of test, query"),
        (["--draws", "0"], "draws"),
        (["--metrics", "SPICE"], "metrics: 'SPICE' is none of BLEU-4"),
        (["--style", "poem"], "poem"),
        (["--bundle", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_what_cannot_be_a_curve_is_refused(world, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert curve(world, tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_samples_without_a_trajectory_are_left_out_and_somebody_with_no_other_is_named(world, tmp_path, capsys):
    samples = read_samples(world)
    for number, sample in enumerate(samples):
        if sample.split == "support" and sample.subject == "unseen000":
            samples[number] = attrs.evolve(sample, trajectory=None)
    write_samples(tmp_path / "samples.jsonl", samples)
    assert curve(tmp_path / "samples.jsonl", tmp_path / "run", "--splits", "query") == 2
    assert "trajectory: missing in all samples that 'unseen000' is known from" in capsys.readouterr().err
    first = next(i for i, s in enumerate(samples) if s.split == "support" and s.subject == "unseen000")
    samples[first] = next(s for s in read_samples(world) if s.split == "support" and s.subject == "unseen000")
    write_samples(tmp_path / "samples.jsonl", samples)
    assert curve(tmp_path / "samples.jsonl", tmp_path / "run", "--splits", "query") == 0
    report = results(tmp_path / "run", "unseen")
    assert list(report["results"]) == [f"{name}, 1 sample" for name in INPUTS]
    assert report["facts"]["left out"] == "2 samples that have no trajectory to make a persona from"


def test_predictions_of_other_settings_are_refused(made, world, capsys):
    assert curve(world, made, "--seed", "1") == 2
    assert "were made with seed 0, not 1" in capsys.readouterr().err


def test_the_tiny_worlds_people_give_as_many_samples_as_a_curve_asks_for(tmp_path):
    pytest.importorskip("spacy")
    small = ["unseen_groups=1", "unseen_orders_per_group=2", "test_scenes=1", "groups=1", "samples=1", "scenes=1"]
    changes = [word for change in small for word in ("--set", f"viewers.{change}")]
    more = ["--counts", "1", "21", "--draws", "1", "--metrics", "CLS", "BLEU-4"]
    assert main(["curve", "tiny-support", "--out", str(tmp_path), *more, *changes]) == 0
    report = json.loads((tmp_path / "results/tiny-unseen-support-curve.json").read_text())
    assert list(report["results"]) == [f"{name}, {count}" for name in INPUTS for count in ("1 sample", "21 samples")]
    assert list(report["results"]["gaze only, 21 samples"]) == ["BLEU-4", "CLS", "first object", "pairwise order"]
    assert report["facts"]["command"].startswith("python -m training curve tiny-support --counts 1 21 --set viewers.")
