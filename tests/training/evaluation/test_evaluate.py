"""`python -m training evaluate`: predictions from files or from the built-in model, to tables and pictures."""

import json
import shutil
import sys

import attrs
import numpy as np
import pytest
from PIL import Image

from pydeper import DeperModel, Persona, read_samples, write_samples
from training.cli.main import main
from training.evaluation import describe
from training.evaluation.chart import write_chart
from training.evaluation.predictions import read_predictions
from training.metrics.bleu import bleu4
from training.metrics.cider import cider
from training.metrics.human_consistency import human_consistency
from training.metrics.object_sequence_score import object_sequence_score
from training.metrics.requirements import MissingRequirementError
from training.metrics.rouge import rouge_l
from training.metrics.subject_identification import subject_identification
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

WITHOUT_JAVA = ["--tokenizer", "words", "--metrics", "BLEU-4", "CIDEr", "ROUGE-L", "OSS", "CLS", "HC"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two seen and two unseen viewers, with 3 samples to know each and 3 images that both of a kind describe."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    seen = sample_viewers(rng, 1, 2, "seen")
    unseen = sample_viewers(rng, 1, 2, "unseen", avoid=seen)
    samples = []

    def look(viewers, split):
        scene = sample_scene(rng)
        path = folder / f"{len(samples):02d}.png"
        render(scene).save(path)
        samples.extend(attrs.evolve(viewer.sample(scene, rng), image=path, split=split) for viewer in viewers)

    for viewers, known, asked in ((seen, "train", "test"), (unseen, "support", "query")):
        for _ in range(3):
            for viewer in viewers:
                look([viewer], known)
            look(viewers, asked)
    write_samples(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def people_lines(**changes):
    """Three people; two of them described one image."""
    rows = [
        ("x.png", "ana", "a red dog on the grass near a car", "a red dog on the green grass near a car"),
        ("x.png", "ben", "some children play with a ball today", "some children play with a red ball"),
        ("y.png", "cem", "the old house has a big door", "an old house with a big blue door"),
    ]
    names = ("image", "subject", "prediction", "reference")
    return [{**dict(zip(names, row, strict=True)), **changes} for row in rows]


def results(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["results"]


# Files


def test_two_systems_side_by_side_equal_the_plain_functions(tmp_path, capsys):
    good, lines = tmp_path / "good.jsonl", people_lines(dataset="Pets!")
    write_lines(good, *lines)
    write_lines(tmp_path / "bad.jsonl", *({**line, "prediction": "nothing"} for line in lines[::-1]))
    out = tmp_path / "out"
    files = ["--predictions", str(good), str(tmp_path / "bad.jsonl")]
    assert main(["evaluate", *files, "--out", str(out), *WITHOUT_JAVA]) == 0

    images, people, texts, truth = (
        [line[name] for line in lines] for name in ("image", "subject", "prediction", "reference")
    )
    found = results(out, "pets")
    assert list(found) == ["good", "bad", "the people themselves"]
    pair = {"tokenizer": "words"}
    scorers = ("bleu4", "rouge_l", "cider")
    expected = {
        "BLEU-4": bleu4(texts, truth, **pair).corpus,
        "CIDEr": cider(texts, truth, **pair).corpus,
        "ROUGE-L": rouge_l(texts, truth, **pair).corpus,
        "OSS": object_sequence_score(texts, truth).corpus,
        "CLS": subject_identification(images, people, texts, truth, **pair, scorers=scorers).accuracy,
        "HC": human_consistency(images, people, texts, **pair).mean,
    }
    assert {metric: figure["value"] for metric, figure in found["good"].items()} == pytest.approx(expected)
    for metric in ("BLEU-4", "CIDEr", "ROUGE-L", "OSS"):
        assert found["good"][metric]["low"] <= found["good"][metric]["value"] <= found["good"][metric]["high"]
        assert found["bad"][metric]["value"] < 0.01
    assert found["the people themselves"]["HC"]["value"] == pytest.approx(
        human_consistency(images, people, truth, **pair).mean
    )

    by_person = results(out, "pets-people")
    assert by_person["good: ana"]["ROUGE-L"]["value"] == pytest.approx(rouge_l(texts[:1], truth[:1], **pair).corpus)
    assert by_person["good: ana"]["BLEU-4"]["value"] == pytest.approx(bleu4(texts[:1], truth[:1], **pair).corpus)
    assert by_person["good: cem"]["CLS"]["value"] is None  # nobody else described their image
    assert by_person["bad: ben"]["samples"]["value"] == 1
    assert "| good" in capsys.readouterr().out
    with Image.open(out / "pets.png") as picture:
        assert picture.size[0] > 1000


def test_references_are_joined_from_the_samples(tmp_path, world):
    samples = [sample for sample in read_samples(world) if sample.split in ("test", "query")]
    lines = [
        {"image": sample.image.name, "subject": sample.subject, "prediction": sample.description} for sample in samples
    ]
    lines[0]["image"] = str(samples[0].image)  # an absolute path is the same image
    lines[1]["reference"] = samples[1].description
    out = tmp_path / "out"
    file = write_lines(tmp_path / "ours.jsonl", *lines)
    asked = ["--predictions", str(file), "--samples", str(world), "--dataset", "drawn", "--out", str(out)]
    assert main(["evaluate", *asked, *WITHOUT_JAVA]) == 0
    for people in ("seen", "unseen"):
        figures = results(out, f"drawn-{people}")["ours"]
        assert figures["BLEU-4"]["value"] == pytest.approx(1.0)
        assert (figures["ROUGE-L"]["value"], figures["OSS"]["value"]) == (1.0, 1.0)
        assert set(results(out, f"drawn-{people}-people")) == {f"{people}000", f"{people}001"}


def test_one_person_alone_has_figures_without_intervals(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", people_lines(dataset="alone")[0])
    assert main(["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out"), *WITHOUT_JAVA]) == 0
    content = json.loads((tmp_path / "out" / "alone.json").read_text(encoding="utf-8"))
    assert list(content["results"]) == ["a"]
    assert list(content["results"]["a"]) == ["BLEU-4", "ROUGE-L", "OSS"]
    assert all("low" not in figure for figure in content["results"]["a"].values())
    assert content["facts"]["no CLS"] == content["facts"]["no HC"] == "no image was described by 2 people"
    assert "1 reference" in content["facts"]["no CIDEr"]


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and the PTB tokenizer run in Java")
def test_all_metrics_of_a_perfect_system(tmp_path):
    lines = [{**line, "prediction": line["reference"]} for line in people_lines(dataset="d")]
    file = write_lines(tmp_path / "a.jsonl", *lines)
    assert main(["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out")]) == 0
    figures = results(tmp_path / "out", "d")["a"]
    best = {"BLEU-4": 1.0, "CIDEr": 10.0, "METEOR": 1.0, "ROUGE-L": 1.0, "OSS": 1.0, "CLS": 1.0}
    assert {metric: figures[metric]["value"] for metric in best} == pytest.approx(best)
    assert figures["HC"] == results(tmp_path / "out", "d")["the people themselves"]["HC"]


def test_oss_alone_needs_no_java(tmp_path, monkeypatch, capsys):
    file = write_lines(tmp_path / "a.jsonl", *people_lines(dataset="d"))
    arguments = ["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out")]
    monkeypatch.setenv("PATH", "")
    assert main([*arguments, "--metrics", "OSS"]) == 0
    assert main([*arguments, "--metrics", "BLEU-4"]) == 2
    assert "The PTB tokenizer runs in Java" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no predictions"),
        (["{"], "a.jsonl:1: not JSON"),
        (["[1]"], "a.jsonl:1: must be an object"),
        (['{"image": "x", "subject": "s"}'], "a.jsonl:1: prediction: missing"),
        (['{"image": "x", "subject": "s", "prediction": "p"}'], "a.jsonl:1: reference: missing"),
        (
            ['{"image": "x", "subject": 3, "prediction": "p", "reference": "r"}'],
            "a.jsonl:1: subject: must be a text, not 3",
        ),
        (['{"image": " ", "subject": "s", "prediction": "p", "reference": "r"}'], "a.jsonl:1: image: must be a text"),
        (['{"image": "x", "subject": "s", "prediction": "p", "caption": "r"}'], "unknown field 'caption'; known are"),
        (
            [
                '{"image": "x", "subject": "s", "prediction": "p", "reference": "r", "system": "one"}',
                '{"image": "x", "subject": "t", "prediction": "p", "reference": "r", "system": "two"}',
            ],
            "'one' and 'two' were not asked the same: 2 of their 1 and 1",
        ),
    ],
)
def test_bad_predictions_are_refused(tmp_path, capsys, lines, message):
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert main(["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out"), *WITHOUT_JAVA]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "99.png"}, "holds no description of image '99.png' by subject 'seen000'"),
        ({"subject": "nobody"}, "by subject 'nobody'"),
        ({"reference": "something else"}, "reference: is not what"),
    ],
)
def test_a_prediction_of_something_else_is_refused(tmp_path, world, capsys, change, message):
    sample = next(sample for sample in read_samples(world) if sample.subject == "seen000")
    line = {"image": sample.image.name, "subject": sample.subject, "prediction": "a", **change}
    file = write_lines(tmp_path / "a.jsonl", line)
    arguments = ["evaluate", "--predictions", str(file), "--samples", str(world), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"{file}:1: " in error
    assert message in error


def test_two_descriptions_of_one_image_by_one_person_are_told_apart_by_the_reference(tmp_path, world):
    first = next(sample for sample in read_samples(world) if sample.split == "test")
    second = attrs.evolve(first, description="Another day, another star.")
    write_samples(tmp_path / "twice.jsonl", [first, second])
    line = {"image": str(first.image), "subject": first.subject, "prediction": "a star"}
    out = ["--samples", str(tmp_path / "twice.jsonl"), "--out", str(tmp_path / "out"), *WITHOUT_JAVA]
    file = write_lines(tmp_path / "a.jsonl", line)
    assert main(["evaluate", "--predictions", str(file), *out]) == 2
    write_lines(file, *({**line, "reference": sample.description} for sample in (first, second)))
    assert main(["evaluate", "--predictions", str(file), *out]) == 0
    assert results(tmp_path / "out", "twice-seen-people")[first.subject]["samples"]["value"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["--bundle", "tiny"], "name one (--samples)"),
        (["--predictions", "nowhere.jsonl"], "cannot be read"),
        (["--predictions", "FILE", "--metrics", "SPICE"], "choose one or more of BLEU-4"),
        (["--predictions", "FILE", "--metrics", "CLS", "OSS"], "metrics names none"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, capsys, arguments, message):
    file = write_lines(tmp_path / "a.jsonl", *people_lines())
    arguments = [str(file) if argument == "FILE" else argument for argument in arguments]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_data_sets_that_would_share_a_file_are_refused(tmp_path, capsys):
    file = write_lines(tmp_path / "a.jsonl", *people_lines(dataset="a b"), *people_lines(dataset="a, b"))
    assert main(["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out"), *WITHOUT_JAVA]) == 2
    assert "would share a file name" in capsys.readouterr().err


# A model


@pytest.fixture(scope="module")
def model():
    return DeperModel.from_pretrained("tiny")


def describing(world, out, *more):
    # One metric: what is tested here is who describes what.
    return ["evaluate", "--bundle", "tiny", "--samples", str(world), "--out", str(out), "--metrics", "OSS", *more]


@pytest.fixture(scope="module")
def described(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("described")
    assert main(describing(world, out, "--zero-shot")) == 0
    return out


def test_a_model_describes_for_seen_and_unseen_people(world, described, model):
    samples = read_samples(world)
    predictions = read_predictions(described / "predictions.jsonl")
    assert len(predictions) == 2 * 12
    for prediction in predictions:
        known = [s for s in samples if s.subject == prediction.subject and s.split in ("train", "support")]
        assert len(known) == 3
        persona = Persona.from_samples(known, model=model) if prediction.system == "tiny" else None
        assert prediction.prediction == model.describe(world.parent / prediction.image, persona)
        own = next(s for s in samples if (s.image.name, s.subject) == (prediction.image, prediction.subject))
        assert prediction.reference == own.description
        assert prediction.dataset.endswith(", seen" if own.split == "test" else ", unseen")
    dataset = world.parent.name.lower()
    for part in ("seen", "unseen"):
        found = json.loads((described / f"{dataset}-{part}.json").read_text(encoding="utf-8"))
        assert list(found["results"]) == ["tiny", "tiny, no persona"]
        assert "2 seen people, from 3 train samples each; 2 unseen people, from 3 support" in found["facts"]["personas"]
    assert not (described / "predictions.partial.jsonl").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(world, described, tmp_path, monkeypatch, capsys):
    asked = []
    describe_batch = DeperModel.describe_batch

    def interrupted(self, pairs, **options):
        asked.append(len(pairs))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return describe_batch(self, pairs, **options)

    monkeypatch.setattr(describe, "BATCH_SIZE", 5)
    monkeypatch.setattr(DeperModel, "describe_batch", interrupted)
    assert main(describing(world, tmp_path, "--zero-shot")) == 130
    assert not (tmp_path / "predictions.jsonl").exists()
    partial = tmp_path / "predictions.partial.jsonl"
    whole_lines = partial.read_bytes()
    assert whole_lines.count(b"\n") == 10
    partial.write_bytes(whole_lines[:-7])  # stopped within a line
    assert main(describing(world, tmp_path, "--zero-shot")) == 0
    assert (tmp_path / "predictions.jsonl").read_bytes() == (described / "predictions.jsonl").read_bytes()
    assert len(asked) == 3 + 3  # 15 of 24 were left

    before = list(asked)
    assert main(describing(world, tmp_path, "--zero-shot")) == 0
    assert asked == before
    capsys.readouterr()
    assert main(describing(world, tmp_path)) == 2
    assert "were made with zero_shot True, not False" in capsys.readouterr().err
    (tmp_path / "predictions.settings.json").unlink()
    assert main(describing(world, tmp_path, "--zero-shot")) == 2
    assert "not how they were made" in capsys.readouterr().err


def test_a_seen_person_is_the_mean_of_the_first_training_samples(world, tmp_path, monkeypatch, model):
    monkeypatch.setattr(describe, "TRAINING_SAMPLES", 1)
    assert main(describing(world, tmp_path, "--splits", "test")) == 0
    samples = read_samples(world)
    for prediction in read_predictions(tmp_path / "predictions.jsonl"):
        first = next(s for s in samples if s.subject == prediction.subject and s.split == "train")
        persona = Persona.from_samples([first], model=model)
        assert prediction.prediction == model.describe(world.parent / prediction.image, persona)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda s: attrs.evolve(s, split="val"), [], "holds no described sample of split 'test' or 'query'"),
        (lambda s: None if s.split == "train" else s, [], "'seen000' has no sample of split 'train'"),
        (lambda s: None if s.split == "support" else s, [], "'unseen000' has no sample of split 'support'"),
        (lambda s: attrs.evolve(s, subject="ana"), [], "'ana' has samples of split 'train' and 'support'"),
        (lambda s: attrs.evolve(s, subject=None), [], "subject: missing"),
        (
            lambda s: attrs.evolve(s, split="dev") if s.split == "val" else s,
            ["--splits", "train"],
            "'train' is none of",
        ),
        (lambda s: attrs.evolve(s, split="dev") if s.split == "train" else s, [], "split: 'dev' is none of"),
        (lambda s: s, ["--style", "poem"], "'poem'"),
        (lambda s: s, ["--max-new-tokens", "0"], "max_new_tokens"),
    ],
)
def test_samples_that_a_model_cannot_be_asked_about_are_refused(world, tmp_path, capsys, change, arguments, message):
    samples = [changed for sample in read_samples(world) if (changed := change(sample)) is not None]
    write_samples(tmp_path / "samples.jsonl", samples)
    assert main(describing(tmp_path / "samples.jsonl", tmp_path / "out", *arguments)) == 2
    assert message in capsys.readouterr().err


def test_samples_without_a_description_are_counted(world, tmp_path):
    samples = read_samples(world)
    number = next(i for i, sample in enumerate(samples) if sample.split == "test")
    samples[number] = attrs.evolve(samples[number], description=None)
    write_samples(tmp_path / "few.jsonl", samples)
    assert main(describing(tmp_path / "few.jsonl", tmp_path / "out", "--splits", "test")) == 0
    facts = json.loads((tmp_path / "out" / "few-seen.json").read_text(encoding="utf-8"))["facts"]
    assert facts["left out"] == "1 sample without a description"
    assert facts["descriptions"] == 5


# Pictures


def test_a_chart_without_figures_or_without_matplotlib_is_an_error(tmp_path, monkeypatch):
    from training.evaluation.chart import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match="no figure to draw"):
        write_chart(tmp_path / "a.png", {"a": {"b": None}})
    write_chart(tmp_path / "a.png", {"a": {"b": 0.5}, "c": {"b": None}}, title="one")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingRequirementError, match="pip install"):
        write_chart(tmp_path / "b.png", {"a": {"b": 0.5}})
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
