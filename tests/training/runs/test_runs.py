"""Both stages from a configuration and files: small random models in transformers' own layout, drawn samples."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import attrs
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from pydeper.errors import InvalidSampleError
from tests.support.paths import CONFIGS
from tests.support.processes import running_python
from tests.support.training_run import (
    PEOPLE,
    SCENES,
    TRAINING_SCENES,
    log_of,
    read,
    write_drawn_samples,
)
from training.__main__ import main
from training.config import ConfigError
from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import BEST, CHECKPOINT, load_state
from training.loop.logs import LOG
from training.loop.train import NOT_FINITE
from training.runs import standins
from training.runs.frozen_parts import FrozenParts
from training.runs.samples import training_samples, validation_samples
from training.runs.train_stages import train_stage1, train_stage2
from training.stages import stage2
from training.stages.selection import caption_figures
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task

TINY_STAGE1 = (
    "stage1.steps=2",
    "stage1.every_view=true",
    "stage1.modality_dropout=0",
    "stage1.virtual_people.weight=1",
)


def test_both_stages_run_from_files_and_go_on_exactly_after_an_interruption(config_file, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for stage, task, steps in (("stage1", Stage1Task, 6), ("stage2", Stage2Task, 4)):
        assert main([stage, "--config", str(config_file), "--out", str(whole)]) == 0
        assert f"{PEOPLE * TRAINING_SCENES} samples of {TRAINING_SCENES} images by {PEOPLE} people" in (
            capsys.readouterr().out
        )
        with monkeypatch.context() as patch:
            losses = task.losses

            def stop(self, step, part, losses=losses):
                if step == 3:
                    raise KeyboardInterrupt
                return losses(self, step, part)

            patch.setattr(task, "losses", stop)
            assert main([stage, "--config", str(config_file), "--out", str(parts)]) == 130
        assert main([stage, "--config", str(config_file), "--out", str(parts)]) == 0
        name = stage.replace("stage", "stage-")
        assert [line["step"] for line in log_of(whole / name)] == list(range(1, steps + 1))
        assert_same(whole / name, parts / name)


def assert_same(uninterrupted: Path, went_on: Path) -> None:
    assert log_of(went_on) == log_of(uninterrupted)
    first, second = (load_file(folder / CHECKPOINT) for folder in (uninterrupted, went_on))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())


def send(arguments: list[str], log: Path, number: int, rng: random.Random) -> tuple[int, str]:
    """Starts `python -m training` and sends it a signal some steps later, at any moment of one; its code and words."""
    with running_python("-m", "training", *arguments) as process:
        lines = len(logs.read(log)) + rng.randrange(1, 8)
        while process.poll() is None and len(log.read_bytes().splitlines() if log.exists() else ()) < lines:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_the_command_goes_on_bit_by_bit_after_kill_9_and_ctrl_c(config_file, tmp_path, kills):
    steps = 25 + 15 * kills
    changes = [f"--set=stage1.{change}" for change in (f"steps={steps}", "checkpoint_every=3", "evaluate_every=9")]
    arguments = ["stage1", "--config", str(config_file), *changes, "--out"]
    rng, log = random.Random(os.getpid()), tmp_path / "parts/stage-1" / LOG
    for _ in range(kills):
        assert send([*arguments, str(tmp_path / "parts")], log, signal.SIGKILL, rng)[0] == -signal.SIGKILL
    code, told = send([*arguments, str(tmp_path / "parts")], log, signal.SIGINT, rng)
    assert code == 130, told
    step = len(logs.read(log))
    assert f"stage 1: stopped by SIGINT after step {step} of {steps}; saved in" in told
    assert 2 <= step < steps
    for folder in ("parts", "whole"):
        assert main([*arguments, str(tmp_path / folder)]) == 0
    assert_same(tmp_path / "whole/stage-1", tmp_path / "parts/stage-1")
    assert not list((tmp_path / "parts").rglob("*.tmp"))


EVALUATED = ["--set", "stage1.evaluate_every=4", "--set", "stage2.evaluate_every=3"]
EVALUATED += ["--set", "stage2.caption_samples=2", "--set", "stage2.caption_tokens=6"]


def test_validation_chooses_a_step_and_leaves_the_curve_alone(config_file, tmp_path, capsys):
    for stage, steps, figures in (
        ("stage1", [4, 6], ["loss", "contrast", "trajectory", "subject", "accuracy"]),
        ("stage2", [3, 4], ["loss", *stage2.MEANS, "bleu4", "cider", "rouge_l"]),
    ):
        name = stage.replace("stage", "stage-")
        for folder, changes in (("plain", []), ("evaluated", EVALUATED)):
            assert main([stage, "--config", str(config_file), "--out", str(tmp_path / folder), *changes]) == 0
        assert f"{PEOPLE * (SCENES - TRAINING_SCENES)} for validation" in capsys.readouterr().out
        evaluations = logs.read(tmp_path / "evaluated" / name / logs.EVALUATIONS)
        assert [line["step"] for line in evaluations] == steps
        assert list(evaluations[0]) == ["step", *figures, "score", "seconds"]
        best = max(evaluations, key=lambda line: line["score"])
        with safe_open(tmp_path / "evaluated" / name / BEST, "pt") as file:
            assert file.metadata()["step"] == str(best["step"])
        if stage == "stage1":  # stage 2 then stands on the best weights of stage 1, not on the last
            assert log_of(tmp_path / "evaluated" / name) == log_of(tmp_path / "plain" / name)


def test_validation_losses_are_means_over_all_of_it(config_file, tmp_path):
    config = read(config_file, "stage1.evaluate_every=6", "network.dropout=0.0")
    train_stage1(config, tmp_path)
    parts = FrozenParts.load(config)
    samples = training_samples(config.samples)
    held_out = validation_samples(config.samples, {sample.subject for sample in samples})
    data = parts.encode([*samples, *held_out])
    for batch_size in (1, 4, 50):
        settings = attrs.evolve(config.stage1, batch_size=batch_size)
        task = Stage1Task(config.network, settings, data, parts.text_table, 0, held_out=len(held_out))
        load_state(tmp_path / "stage-1", task.state)
        expected = logs.read(tmp_path / "stage-1" / logs.EVALUATIONS)[-1]
        assert task.evaluate() == pytest.approx({key: expected[key] for key in task.evaluate()}, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"split": "train"}, "no sample is of 'val', which evaluate_every needs"),
        (
            lambda record: record | ({"subject": "zoe"} if record["split"] == "val" else {}),
            r"people who are not in 'train' \(zoe\)",
        ),
    ],
)
def test_what_cannot_be_validated_is_said_before_training(config_file, parts, tmp_path, change, message):
    source = parts / "samples/samples.jsonl"
    path = source.with_name(f"{tmp_path.name}.jsonl")
    records = [change(json.loads(line)) for line in source.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(TrainingError, match=message):
        train_stage1(read(config_file, f"samples={path}", "stage1.evaluate_every=2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


METEOR = ["--set", "stage2.selection={meteor = 2.0, loss = -1.0}"]


def test_without_java_meteor_is_missed_before_training(config_file, tmp_path, monkeypatch, capsys):
    run = ["--config", str(config_file), "--out", str(tmp_path)]
    assert main(["stage1", *run, "--set", "stage1.steps=1"]) == 0
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["stage2", *run, *EVALUATED, *METEOR, "--set", "stage1.steps=1"]) == 2
    assert "selection: meteor runs in Java, and there is no `java` on PATH" in capsys.readouterr().err
    assert not (tmp_path / "stage-2").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR runs in Java")
def test_meteor_may_choose_the_step(config_file, tmp_path):
    for stage in ("stage1", "stage2"):
        assert main([stage, "--config", str(config_file), "--out", str(tmp_path), *EVALUATED, *METEOR]) == 0
    for figures in logs.read(tmp_path / "stage-2" / logs.EVALUATIONS):
        assert 0 <= figures["meteor"] <= 1
        assert figures["score"] == pytest.approx(2 * figures["meteor"] - figures["loss"], abs=2e-6)


def test_whoever_describes_as_people_did_has_the_highest_figures():
    texts = ["a red circle, then a blue square", "the star is small"]
    figures = caption_figures(texts, texts, texts)
    assert figures == pytest.approx({"bleu4": 1, "cider": 10, "rouge_l": 1})
    assert all(value < figures[name] for name, value in caption_figures(texts, texts[::-1], texts).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stage1.selection={loss=-1.0, cider=1.0}"], r"selection: unknown figure cider \(known: accuracy, loss"),
        (["stage1.selection={}"], "selection: needs at least one figure"),
        (["stage2.evaluate_every=1", "stage2.caption_samples=0"], "needs caption_samples > 0; or select by losses"),
        (["stage1.keep_checkpoints=0"], "keep_checkpoints: must be > 0"),
    ],
)
def test_a_selection_that_cannot_be_made_is_said_by_the_configuration(config_file, changes, message):
    with pytest.raises(ConfigError, match=message):
        read(config_file, *changes)


def test_a_loss_that_is_not_finite_names_the_samples_of_its_step(config_file, parts, tmp_path):
    with pytest.raises(TrainingError, match=r"not-finite\.json") as caught:
        train_stage1(read(config_file, "stage1.learning_rate=1e30"), tmp_path)
    written = json.loads((tmp_path / "stage-1" / NOT_FINITE).read_text())
    assert f"step {written['step']}: the loss or its gradient is not finite" in str(caught.value)
    assert len(written["samples"]) == 4 * 2  # of all parts
    lines = (parts / "samples/samples.jsonl").read_text().splitlines()
    for sample in written["samples"]:
        file, line = sample["source"].rsplit(":", 1)
        record = json.loads(lines[int(line) - 1])
        assert Path(file).name == "samples.jsonl"
        assert sample["subject"] == record["subject"]
        assert Path(sample["image"]).name == Path(record["image"]).name


def test_the_same_seeds_draw_the_same_batches_whatever_the_processes(config_file, tmp_path):
    config = read(config_file)
    parts = FrozenParts.load(config)
    data = parts.encode(training_samples(config.samples))
    whole = attrs.evolve(config.stage1, batch_size=6)
    half = attrs.evolve(config.stage1, batch_size=3)
    alone = Stage1Task(config.network, whole, data, parts.text_table, 0)
    together = Stage1Task(config.network, half, data, parts.text_table, 0, group=ProcessGroup(1, 2))
    assert [alone.rows(step) for step in range(5)] == [together.rows(step) for step in range(5)]


def test_a_run_is_drawn(config_file, tmp_path, capsys):
    assert main(["plots", "--out", str(tmp_path)]) == 2
    assert "holds no run; train with" in capsys.readouterr().err
    assert main(["stage1", "--config", str(config_file), "--out", str(tmp_path), *EVALUATED]) == 0
    capsys.readouterr()
    assert main(["plots", "--out", str(tmp_path), "--pictures", "2"]) == 0
    drawn = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in drawn] == [
        "stage-1-losses.png",
        "subject-embeddings-pca.png",
        "trajectory-0.png",
        "trajectory-1.png",
    ]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 200


def test_the_subject_token_gets_the_next_free_row(config_file, parts, tokenizer):
    loaded = FrozenParts.load(read(config_file))
    assert loaded.tokenizer.token_to_id("<subj>") == tokenizer.token_to_id("<subj>") < len(loaded.text_table.weight)
    assert loaded.preprocessing.image_mean == (0.485, 0.456, 0.406)


def test_samples_without_splits_are_all_for_training(parts, tmp_path):
    source = parts / "samples/samples.jsonl"
    records = [json.loads(line) for line in source.read_text().splitlines()]
    for record in records:
        record["image"] = str(source.parent / record["image"])
        del record["split"]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert len(training_samples(str(path))) == len(records)
    path.write_text("\n".join(json.dumps(record | {"split": "test"}) for record in records))
    with pytest.raises(TrainingError, match=r"no sample is of the split 'train'; there are 'test' \(18\)"):
        training_samples(str(path))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("samples=nowhere.jsonl", InvalidSampleError, "nowhere.jsonl: cannot be read"),
        ("image_encoder=./nowhere", TrainingError, "image_encoder: './nowhere' cannot be loaded"),
        ("vlm=./nowhere", TrainingError, "vlm: './nowhere' cannot be loaded"),
        ("vlm=standin:gpt", standins.StandinError, "vlm: there is no stand-in 'standin:gpt'"),
        ("image_encoder=standin:resnet", standins.StandinError, "there is no stand-in 'standin:resnet'"),
        ("network.grid_size=14", ConfigError, "network.grid_size is 14, and must be 7"),
        ("network.text_channels=32", ConfigError, "network.text_channels is 32, and must be 64"),
    ],
)
def test_what_does_not_fit_is_named(config_file, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        train_stage1(read(config_file, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_encoder_must_say_how_pixels_are_normalised(config_file, parts, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((parts / "encoder" / name).read_bytes())
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5]}')
    with pytest.raises(TrainingError, match=r"image_mean must be 3 numbers, got \[0.5, 0.5\]"):
        train_stage1(read(config_file, f"image_encoder={folder}"), tmp_path / "out")


def test_stage_2_needs_a_finished_stage_1_and_settings(config_file, tmp_path, capsys):
    arguments = ["stage2", "--config", str(config_file), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "holds no finished stage 1 of 6 steps" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="stage2: missing"):
        train_stage2(attrs.evolve(read(config_file), stage2=None), tmp_path)


def test_an_unknown_key_is_named(config_file, tmp_path, capsys):
    assert main(["stage1", "--config", str(config_file), "--out", str(tmp_path), "--set", "stage1.stepz=3"]) == 2
    assert "unknown key stepz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["deper", "scene_description"])
def test_the_configurations_that_ship_are_whole(name):
    config = read(CONFIGS / f"{name}.toml", "samples=some.jsonl")
    with pytest.raises(ConfigError, match="samples"):
        read(CONFIGS / f"{name}.toml")
    if name == "deper":
        assert attrs.asdict(config.network) == attrs.asdict(type(config.network)())
        assert (config.stage1.batch_size, config.stage1.accumulation, config.stage1.learning_rate) == (64, 4, 5e-4)
        assert config.stage2 is not None


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


def test_identification_needs_both_splits(config_file, parts, tmp_path, capsys):
    source = parts / "samples/samples.jsonl"
    path = source.with_name("training_only.jsonl")
    path.write_text("".join(line + "\n" for line in source.read_text().splitlines() if '"train"' in line))
    code = main(["identify", "--config", str(config_file), "--out", str(tmp_path), "--set", f"samples={path}"])
    assert code == 2
    assert "every sample must be of 'train' or 'val'" in capsys.readouterr().err
