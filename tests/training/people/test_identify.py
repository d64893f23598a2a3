"""`python -m training identify` from files: seen people, new ones, ensembles."""

import json

import pytest

from tests.support.training_run import (
    PEOPLE,
    write_drawn_samples,
)
from training.__main__ import main
from training.config import TrainingConfig, load_config
from training.loop.checkpoints import CHECKPOINT
from training.people.experiment import Experiment

TINY_STAGE1 = (
    "stage1.steps=2",
    "stage1.every_view=true",
    "stage1.modality_dropout=0",
    "stage1.virtual_people.weight=1",
)


def test_identification_from_files(config_file, parts, tmp_path, capsys):
    pytest.importorskip("sklearn")
    arguments = ["identify", "--config", str(config_file), "--data", str(parts / "samples"), "--out", str(tmp_path)]
    protocols = ["--selection-folds", "2", "--folds", "3"]
    changes = [word for change in TINY_STAGE1 for word in ("--set", change)]
    assert main([*arguments, *protocols, *changes]) == 0
    for name, held_out in (("small-split", [[12, 6]]), ("small-3-folds", [[12, 6]] * 3)):
        written = json.loads((tmp_path / f"results/{name}.json").read_text())
        assert written["facts"]["samples, training / held out"] == held_out
        assert list(written["results"]) == [
            f"{system}, {modality}"
            for system in ("DEPER", "classical", "difference")
            for modality in ("text + gaze", "text", "gaze")
        ] + ["DEPER, text + gaze less text"]
        for modality in ("text + gaze", "text", "gaze"):
            deper, classical, difference = (
                written["results"][f"{system}, {modality}"]["1 sample"]["value"]
                for system in ("DEPER", "classical", "difference")
            )
            assert difference == pytest.approx(deper - classical)
    # The drawn viewers word things so differently that a text classifier cannot miss them all.
    assert written["results"]["classical, text"]["1 sample"]["value"] > 1 / PEOPLE


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_new_people_are_identified_from_files(config_file, tmp_path):
    pytest.importorskip("sklearn")
    write_drawn_samples(tmp_path / "samples", people=4, scenes=7, training_scenes=5)
    arguments = ["identify", "--config", str(config_file), "--data", str(tmp_path / "samples"), "--out", str(tmp_path)]
    protocols = ["--selection-folds", "2", "--new-people", "2", "--draws", "3"]
    changes = [word for change in TINY_STAGE1 for word in ("--set", change)]
    assert main([*arguments, *protocols, *changes]) == 0
    written = json.loads((tmp_path / "results/small-new-people.json").read_text())
    assert written["facts"]["command"] == " ".join(
        ["python -m training identify --data FOLDER --out FOLDER", *protocols, *changes]
    )
    results = written["results"]
    systems = ("DEPER", "nearest mean", "fitted anew")
    assert all(list(row) == ["1 sample", "2 samples"] for row in results.values())
    for modality in ("text + gaze", "text", "gaze"):
        values = {system: results[f"{system}, {modality}"]["1 sample"]["value"] for system in systems}
        assert all(0 <= value <= 1 for value in values.values())
        for other in systems[1:]:
            difference = results[f"DEPER less {other}, {modality}"]["1 sample"]["value"]
            assert difference == pytest.approx(values["DEPER"] - values[other])
    assert results["nearest mean, text"]["1 sample"]["value"] > 1 / 2


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.slow
def test_an_ensemble_is_reported_beside_one_training(config_file, tmp_path):
    pytest.importorskip("sklearn")
    write_drawn_samples(tmp_path / "samples", people=4, scenes=7, training_scenes=5)
    arguments = ["identify", "--config", str(config_file), "--data", str(tmp_path / "samples"), "--out", str(tmp_path)]
    arguments += ["--selection-folds", "2", "--new-people", "2", "--draws", "3"]
    arguments += [word for change in TINY_STAGE1 for word in ("--set", change)]

    def rows(name, *more):
        assert main([*arguments, *more]) == 0
        return json.loads((tmp_path / f"results/small-{name}.json").read_text())["results"]

    ensemble = rows("new-people", "--trainings", "2")
    assert list(ensemble)[:6] == [
        f"{system}, {modality}" for system in ("DEPER", "one training") for modality in ("text + gaze", "text", "gaze")
    ]
    assert "one training, gaze" in json.loads((tmp_path / "results/small-split.json").read_text())["results"]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(CHECKPOINT)}
    alone = [rows("new-people", "--set", f"seed={seed}") for seed in (0, 1)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(CHECKPOINT)} == kept  # the ensemble's trainings
    for modality in ("text + gaze", "text", "gaze"):
        values = [table[f"DEPER, {modality}"]["1 sample"]["value"] for table in alone]
        assert ensemble[f"one training, {modality}"]["1 sample"]["value"] == pytest.approx(sum(values) / 2)


@pytest.mark.parametrize("trainings", ["0", "-1"])
def test_identification_needs_a_training(config_file, parts, tmp_path, capsys, trainings):
    arguments = ["identify", "--config", str(config_file), "--data", str(parts / "samples"), "--out", str(tmp_path)]
    assert main([*arguments, "--trainings", trainings]) == 2
    assert f"trainings is {trainings}; at least 1 is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (["--selection-folds", "99"], "99 folds of 4 photographs"),
        (["--folds", "3", "1"], "1 folds of 6 photographs; give 2 to 6"),
        (["--new-people", "30"], "people in groups of 30: at least 2 groups"),
        (["--new-people", "-1"], "people in groups of -1"),
        (["--new-people", "2", "--draws", "0"], "draws is 0; at least 1 is needed"),
    ],
)
def test_what_cannot_be_identified_is_refused_before_anything_is_trained(
    config_file, tmp_path, capsys, asked, complaint
):
    pytest.importorskip("sklearn")
    write_drawn_samples(tmp_path / "samples", people=4, scenes=6, training_scenes=4)
    arguments = ["identify", "--config", str(config_file), "--data", str(tmp_path / "samples"), "--out", str(tmp_path)]
    assert main([*arguments, *asked]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.rglob(CHECKPOINT))


def test_identification_takes_the_splits_that_prepare_makes(config_file, parts, capsys):
    """Seen people's "test" is measured on, their "val" learned from; unseen people are left out."""
    source = parts / "samples/samples.jsonl"
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    images = sorted({line["image"] for line in lines if line["split"] == "train"})
    prepared = [
        {**line, "split": "test" if line["split"] == "val" else "val" if line["image"] == images[0] else "train"}
        for line in lines
    ]
    stranger = [{**line, "subject": "a stranger", "split": "support"} for line in lines[:2]]
    stranger.append({**lines[2], "subject": "a stranger", "split": "query"})
    path = source.with_name("prepared.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in [*prepared, *stranger]))
    before, after = (
        Experiment.load(load_config(TrainingConfig, config_file, [f"samples={json.dumps(str(file))}"]))
        for file in (source, path)
    )
    assert [(s.subject, s.split) for s in after.samples] == [(s.subject, s.split) for s in before.samples]
    assert after.is_training.tolist() == before.is_training.tolist()
    assert "3 samples of unseen people (support, query) are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ('"train"', "the samples' splits are 'train'."),
        ('"val"', "the samples' splits are 'val'."),
        ("", "the samples' splits are 'later', 'train', 'val'."),
    ],
)
def test_identification_needs_samples_to_learn_from_and_others(config_file, parts, tmp_path, capsys, keep, said):
    source = parts / "samples/samples.jsonl"
    lines = [line for line in source.read_text().splitlines() if keep in line]
    if not keep:
        lines[0] = lines[0].replace('"split": "train"', '"split": "later"')
        assert "later" in lines[0]
    path = source.with_name("divided_otherwise.jsonl")
    path.write_text("".join(line + "\n" for line in lines))
    code = main(["identify", "--config", str(config_file), "--out", str(tmp_path), "--set", f"samples={path}"])
    assert code == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert "Let `python -m training prepare` divide them" in complaint
