"""`python -m training identify` from files: seen people, new ones, ensembles."""

import json
import shlex

import pytest

from tests.support.training_run import PEOPLE, SHORTEST_IDENTIFICATION, write_drawn_samples
from training.__main__ import main
from training.config import TrainingConfig, load_config
from training.evaluation.bootstrap import Interval
from training.loop.checkpoints import CHECKPOINT
from training.people.experiment import Experiment
from training.people.identify import verdict
from training.people.seen_people import select_model


def test_identification_from_files(config_file, parts, tmp_path, capsys):
    pytest.importorskip("sklearn")
    arguments = ["identify", "--config", str(config_file), "--data", str(parts / "samples"), "--out", str(tmp_path)]
    protocols = ["--selection-folds", "2", "--folds", "3"]
    changes = [word for change in SHORTEST_IDENTIFICATION for word in ("--set", change)]
    assert main([*arguments, *protocols, *changes]) == 0
    for name, held_out in (("small-split", [[12, 6]]), ("small-3-folds", [[12, 6]] * 3)):
        written = json.loads((tmp_path / f"results/{name}.json").read_text())
        assert written["facts"]["samples, training / held out"] == held_out
        assert list(written["results"]) == [
            f"{system}, {modality}"
            for system in ("DEPER", "DEPER + classical", "classical", "difference", "DEPER + classical less classical")
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
    changes = [word for change in SHORTEST_IDENTIFICATION for word in ("--set", change)]
    assert main([*arguments, *protocols, *changes]) == 0
    written = json.loads((tmp_path / "results/small-new-people.json").read_text())
    assert written["facts"]["command"] == " ".join(
        ["python -m training identify --data FOLDER --out FOLDER", *protocols, shlex.join(changes)]
    )
    results = written["results"]
    systems = ("DEPER", "nearest mean", "fitted anew", "DEPER + classical")
    assert all(list(row) == ["1 sample", "2 samples"] for row in results.values())
    for modality in ("text + gaze", "text", "gaze"):
        values = {system: results[f"{system}, {modality}"]["1 sample"]["value"] for system in systems}
        assert all(0 <= value <= 1 for value in values.values())
        for other in systems[1:3]:
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
    arguments += [word for change in SHORTEST_IDENTIFICATION for word in ("--set", change)]

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


def changed(parts, name, change):
    """A file beside the drawn samples, in which `change` has been made to each line."""
    source = parts / "samples/samples.jsonl"
    path = source.with_name(name)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(number, line)) + "\n" for number, line in enumerate(lines)))
    return path


def without(key):
    return lambda line: {name: value for name, value in line.items() if name != key}


def test_rows_leave_out_samples_that_lack_what_they_read(config_file, parts, tmp_path):
    pytest.importorskip("sklearn")
    held_out = []

    def change(number, line):
        if line["split"] == "val":
            held_out.append(number)
            lacking = {0: "trajectory", 1: "description"}.get(len(held_out) - 1)
        else:
            lacking = {0: "trajectory", 4: "description"}.get(number)
        return line if lacking is None else without(lacking)(line)

    samples = changed(parts, "incomplete.jsonl", change)
    changes = [
        word
        for change in (*SHORTEST_IDENTIFICATION, f"samples={json.dumps(str(samples))}")
        for word in ("--set", change)
    ]
    arguments = ["identify", "--config", str(config_file), "--out", str(tmp_path), "--selection-folds", "2"]
    assert main([*arguments, *changes]) == 0
    written = json.loads((tmp_path / "results/small-split.json").read_text())
    assert written["facts"]["held-out samples left out for what they lack, by row"] == {
        "text + gaze": 2,
        "text": 1,
        "gaze": 1,
    }
    assert all(-1 <= figure["1 sample"]["value"] <= 1 for figure in written["results"].values())


def test_people_who_never_looked_are_identified_by_what_they_say(config_file, parts, tmp_path):
    pytest.importorskip("sklearn")
    samples = changed(parts, "silent.jsonl", lambda _, line: without("trajectory")(line))
    changes = [
        *SHORTEST_IDENTIFICATION[:-1],
        f"samples={json.dumps(str(samples))}",
    ]  # virtual people are made of trajectories
    arguments = ["identify", "--config", str(config_file), "--out", str(tmp_path), "--selection-folds", "2"]
    assert main([*arguments, *(word for change in changes for word in ("--set", change))]) == 0
    results = json.loads((tmp_path / "results/small-split.json").read_text())["results"]
    assert results["classical, text"]["1 sample"]["value"] > 0
    for system in ("DEPER", "DEPER + classical", "classical"):
        for modality in ("text + gaze", "gaze"):
            assert results[f"{system}, {modality}"]["1 sample"]["value"] is None


def test_no_held_out_sample_has_a_say_in_any_choice(config_file, parts, tmp_path):
    """Other people, words and trajectories in the split that is measured on: the same choices, to the last figure."""
    pytest.importorskip("sklearn")

    def other(number, line):
        if line["split"] == "train":
            return line
        fixation = {"box": [0.1, 0.1, 0.2, 0.3], "duration": 0.7}
        return {**line, "description": f"nothing of the kind {number} " * 9, "trajectory": [fixation] * 40}

    changes = [*SHORTEST_IDENTIFICATION[4:], "identification.passes=1", "identification.most_passes=2"]
    chosen = []
    for path in (parts / "samples/samples.jsonl", changed(parts, "other.jsonl", other)):
        config = load_config(TrainingConfig, config_file, [*changes, f"samples={json.dumps(str(path))}"])
        chosen.append(select_model(Experiment.load(config), 2, tmp_path / path.stem))
    one, another = chosen
    assert len(one.trials) >= 3
    assert one == another


def test_samples_are_read_as_far_as_the_longest_training_sample(config_file, parts):
    long = [{"box": [0.1, 0.1, 0.2, 0.3], "duration": 0.3}] * 50

    def change(number, line):
        return {**line, "trajectory": long} if number == 0 or line["split"] == "val" else line

    samples = changed(parts, "long.jsonl", change)
    for most, read in ((64, 50), (20, 20)):
        changes = [f"samples={json.dumps(str(samples))}", f"identification.most_fixations={most}"]
        experiment = Experiment.load(load_config(TrainingConfig, config_file, changes))
        assert experiment.config.network.max_fixations == read
        assert max(len(sample.durations) for sample in experiment.data.samples) == read


def test_a_run_that_ends_behind_says_so_in_its_title():
    def rows(deper, both, classical):
        names = {"DEPER": deper, "DEPER + classical": both, "classical": classical}
        return {
            f"{name}, text + gaze": dict(zip(("1 sample", "5 samples"), (Interval(x, 0, 1) for x in own), strict=True))
            for name, own in names.items()
        }

    assert verdict(rows((0.5, 0.9), (0.5, 0.9), (0.5, 0.8)), ["classical"]) == ""
    assert (
        verdict(rows((0.13, 0.9), (0.4, 0.8), (0.368, 0.88)), ["classical"])
        == "; DEPER is behind classical from 1 sample, 0.130 against 0.368"
        "; DEPER + classical is behind classical from 5 samples, 0.800 against 0.880"
    )
