"""What commands of training may replace, and what a failed one leaves behind."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from training.cli.main import main
from training.evaluation.predictions import Prediction, PredictionsFile
from training.evaluation.report import check_reports, write_report
from training.loop.train import check_folder
from training.outputs import OutputError, output_folder


def fail_in(folder: Path, written: str | None = None) -> None:
    """Writes a file into an output's folder, or nothing, and fails then."""
    with suppress(RuntimeError), output_folder(folder):
        if written is not None:
            (folder / written).write_text("a finished step")
        raise RuntimeError


def test_a_failed_run_leaves_no_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in ("a/b/c", "there", "there/new"):
        fail_in(tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    fail_in(tmp_path / "a" / "b", written="step.json")
    assert (tmp_path / "a" / "b" / "step.json").exists()


def test_reports_replace_earlier_reports_and_nothing_else(tmp_path: Path) -> None:
    for value in (0.5, 0.25):
        write_report(tmp_path, "people", {"DEPER": {"accuracy": value}}, title="People")
    assert json.loads((tmp_path / "people.json").read_text())["results"]["DEPER"]["accuracy"]["value"] == 0.25
    for name, text in (("mine.json", '{"mine": true}'), ("notes.md", "# By hand\n"), ("people.png", "a photograph")):
        (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match=r"holds mine.json, which this command would replace and has not written"):
        write_report(tmp_path, "mine", {"DEPER": {"accuracy": 0.5}})
    with pytest.raises(OutputError, match=r"holds notes\.md, .* name another folder"):
        check_reports(tmp_path, ["people", "notes"])
    (tmp_path / "people.md").write_text("# Our people, described by hand\n")
    with pytest.raises(OutputError, match=r"holds people\.md"):
        write_report(tmp_path, "people", {"DEPER": {"accuracy": 0.5}}, title="People")
    assert (tmp_path / "mine.json").read_text() == '{"mine": true}'


def test_predictions_do_not_replace_the_settings_of_another_program(tmp_path: Path) -> None:
    pending = [Prediction("d", "s", "1.png", "ana", "", "A star.")]
    (tmp_path / "predictions.settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(OutputError, match=r"predictions\.settings\.json"):
        PredictionsFile(tmp_path, {"style": "caption"}, pending)
    (tmp_path / "predictions.settings.json").write_text('{"style": "description"}')  # an earlier run's, with no answer
    file = PredictionsFile(tmp_path, {"style": "caption"}, pending)
    file.append(["A circle."])
    file.finish()
    assert json.loads((tmp_path / "predictions.settings.json").read_text()) == {"style": "caption"}


def test_a_training_replaces_the_files_of_trainings_only(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    for name, text in (("log.jsonl", '{"step": 1, "loss": 2.0}\n'), ("evaluations.jsonl", '{"ste'), ("x.tmp", "mine")):
        (tmp_path / name).write_text(text)
    check_folder(tmp_path)
    (tmp_path / "best.safetensors").write_text("not a checkpoint")
    with pytest.raises(OutputError, match=r"holds best\.safetensors, which"):
        check_folder(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"event": "door opened"}\n')
    with pytest.raises(OutputError, match=r"holds best\.safetensors, log\.jsonl, which"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["shard", "missing.jsonl"],
        ["evaluate", "--bundle", "tiny", "--samples", "missing.jsonl"],
        ["evaluate", "--predictions", "missing.jsonl"],
        ["prepare", "localized-narratives", "missing.jsonl", "--images", "."],
    ],
)
def test_a_command_that_fails_makes_no_folder(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--out", "deep/out"]) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_shards_replace_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "000003.tar").write_text("a backup")
    assert main(["shard", str(tmp_path / "missing.jsonl"), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds 000003.tar already; name another folder" in capsys.readouterr().err


def test_results_are_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "privacy.md").write_text("# What we promise\n")
    assert main(["privacy", "--report", str(tmp_path)]) == 2
    assert "holds privacy.md" in capsys.readouterr().err
    line = {"image": "1.png", "subject": "ana", "prediction": "A star.", "reference": "A star.", "dataset": "pets"}
    (tmp_path / "pets.json").write_text(json.dumps(line) + "\n")
    command = ["evaluate", "--predictions", str(tmp_path / "pets.json"), "--metrics", "BLEU-4", "--tokenizer", "words"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "holds pets.json, which this command would replace" in capsys.readouterr().err
