"""An experiment from its data to its table, with small random models and drawn people."""

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from pydeper.errors import InvalidArgumentError
from pydeper.readers import write_samples
from training import reproduce
from training.cli.main import main
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

pytestmark = pytest.mark.usefixtures("wide_context")

LIMITS = ["--max-new-tokens", "4", "--metrics", "BLEU-4", "CIDEr", "--tokenizer", "words"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two seen people and two unseen ones, prepared; everybody described the last two scenes."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    samples = []
    for number, viewer in enumerate(sample_viewers(rng, groups=4, orders_per_group=1, prefix="viewer")):
        known, asked = (TRAIN, TEST) if number < 2 else (SUPPORT, QUERY)
        for scene_number in range(6):
            scene = sample_scene(np.random.default_rng(scene_number))
            path = folder / f"{scene_number}.png"
            render(scene).save(path)
            sample = viewer.sample(scene, rng, path)
            samples.append(attrs.evolve(sample, split=known if scene_number < 4 else asked))
    write_samples(folder / "samples.jsonl", samples)
    return folder


def run(config: Path, data: Path, out: Path, *more: str) -> int:
    small = ["prompt_tuning.steps=2", "prompt_tuning.unseen_steps=1", "prompt_tuning.batch_size=2"]
    small += ["mitr.steps=2", "mitr.unseen_steps=1", "mitr.epochs_without_val=1", "mitr.hidden_size=16"]
    small += ["mitr.min_count=1", "mitr.max_words=4"]
    changes = [part for change in small for part in ("--set", change)]
    arguments = ["reproduce", str(config), "--data", str(data), "--out", str(out), *LIMITS, *changes, *more]
    return main(arguments)


def test_an_experiment_runs_from_data_to_table_and_only_once(config_file, data, tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    tuned = ["prompt-tuning", "prompt-tuning with LoRA"]
    mitr = ["MITR", "MITR, fine-tuned per person"]
    systems = ["zero-shot", "few-shot", "text-statistics", *tuned, *mitr, "DEPER", "DEPER, no FiLM"]
    assert run(config_file, data, tmp_path, "--systems", *systems) == 0
    printed = capsys.readouterr().out
    assert "stage 1: 6 steps of 8 samples, 6.0 epochs of 8 on one device" in printed
    assert "held fewer samples" not in printed
    for people in ("seen", "unseen"):
        table = json.loads((tmp_path / f"results/small-{people}-beside-paper.json").read_text())["results"]
        assert [row for row in table if row != "the people themselves"] == systems
        assert all({"BLEU-4", "CIDEr"} <= set(table[row]) for row in systems)
    whole, ablated = (
        [json.loads(line) for line in (tmp_path / folder / "predictions.jsonl").read_text().splitlines()]
        for folder in ("DEPER", "DEPER-no-FiLM")
    )
    assert len(whole) == len(ablated) == 8
    assert {row["system"] for row in ablated} == {"DEPER, no FiLM"}

    # A second run trains and describes nothing.
    def fail(*_, **__):
        raise AssertionError("done already")

    for name in ("train_stage1", "train_stage2", "soft_tokens"):
        monkeypatch.setattr(f"training.reproduce.{name}", fail)
    before = (tmp_path / "results/small-seen.json").read_bytes()
    assert run(config_file, data, tmp_path, "--systems", *systems) == 0
    assert (tmp_path / "results/small-seen.json").read_bytes() == before


def test_settings_of_lora_are_those_of_its_own_row_alone(config_file, data, tmp_path, capsys):
    for number, rank in enumerate((8, 2)):
        systems = ["prompt-tuning", "prompt-tuning with LoRA"][: 2 - number]
        more = ["--systems", *systems, "--set", f"prompt_tuning.lora.rank={rank}"]
        assert run(config_file, data, tmp_path, *more) == 0
    capsys.readouterr()
    more = ["--systems", "prompt-tuning with LoRA", "--set", "prompt_tuning.lora.rank=2"]
    assert run(config_file, data, tmp_path, *more) == 2
    assert "were made with prompt_tuning.lora {'rank': 8" in capsys.readouterr().err


def test_one_baseline_by_itself(config_file, data, tmp_path, capsys):
    arguments = ["baseline", "zero-shot", "--config", str(config_file), "--out", str(tmp_path), "--max-new-tokens", "3"]
    assert main([*arguments, "--set", f"samples={data / 'samples.jsonl'}"]) == 0
    assert "python -m training evaluate --predictions" in capsys.readouterr().out
    score = ["evaluate", "--predictions", str(tmp_path / "predictions.jsonl"), "--out", str(tmp_path / "scores")]
    assert main([*score, "--metrics", "BLEU-4", "--tokenizer", "words"]) == 0
    assert main([*arguments[:2], "--config", str(config_file), "--out", str(tmp_path)]) == 2
    assert "no described sample of split 'test' or 'query'" in capsys.readouterr().err


def test_the_papers_figures_stand_below_ours(tmp_path, capsys):
    results = {"DEPER": {"BLEU-4": {"value": 0.25, "low": 0.2, "high": 0.3, "level": 0.95}, "CIDEr": {"value": None}}}
    (tmp_path / "coco-ln-unseen.json").write_text(json.dumps({"facts": {}, "results": results}))
    reproduce.compare_with_paper(tmp_path, ["coco-ln, unseen"])
    table = json.loads((tmp_path / "coco-ln-unseen-beside-paper.json").read_text())["results"]
    assert list(table) == ["DEPER", "DEPER (paper)", "few-shot (paper)"]
    assert table["DEPER"]["BLEU-4"] == results["DEPER"]["BLEU-4"]
    assert table["DEPER (paper)"] == {
        metric: {"value": value}
        for metric, value in {"BLEU-4": 0.164, "CIDEr": 0.453, "OSS": 0.33, "CLS": 0.445}.items()
    }
    assert "0.250 [0.200, 0.300]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("experiment", "systems", "message"),
    [
        ("flickr", [], "there is no experiment 'flickr'; there are coco-ln, flickr30k-ln"),
        ("coco-ln", ["DEPER, no film"], "systems: 'DEPER, no film' is none of 'zero-shot'"),
        ("coco-ln", [], r"holds neither samples.jsonl nor coco_\*localized_narratives\*.jsonl"),
        ("kollenda", [], "holds neither samples.jsonl nor fixations.csv; put the table there, or say by --fixations"),
    ],
)
def test_what_is_missing_is_named(tmp_path, experiment, systems, message):
    with pytest.raises(InvalidArgumentError, match=message):
        reproduce.run(experiment, tmp_path, tmp_path / "out", systems=systems or reproduce.SYSTEMS)
