"""`python -m training table` at a toy budget: every system, two seeds, and nothing done twice."""

import json
from pathlib import Path

import attrs
import pytest

from training.cli.main import main
from training.evaluation.predictions import Prediction
from training.evaluation.scores import PEOPLE
from training.tiny import table, table_scores
from training.tiny.config import ViewersConfig
from training.tiny.recipe import VARIANTS

pytestmark = pytest.mark.timeout(900)

METRICS = ["BLEU-4", "CIDEr", "ROUGE-L", "OSS", "CLS", "HC"]  # without METEOR no Java is needed
SMALL = [
    *("mitr.steps=2", "mitr.unseen_steps=1", "mitr.epochs_without_val=1", "mitr.hidden_size=16", "mitr.min_count=1"),
    *("vision.steps=1", "vision.batch_size=4", "language.scenes=16", "language.steps=1", "language.batch_size=8"),
    *("larger_vision.steps=1", "larger_vision.batch_size=4", "larger_language.scenes=16", "larger_language.steps=1"),
    *("larger_language.batch_size=8", "vlm.image_side=96", "vlm.first_image_side=72", "vlm.close_up_side=48"),
    *("sketches.steps=1", "sketches.batch_size=2"),
    *("encoder.steps=1", "encoder.batch_size=4", "stage1.steps=2", "stage2.steps=2", "stage2.batch_size=4"),
    *("stage1.batch_size=8", "prompt_tuning.steps=2", "prompt_tuning.unseen_steps=1", "prompt_tuning.batch_size=4"),
    *("csmn.steps=2", "csmn.batch_size=4", "csmn.word_size=8", "csmn.memory_size=8", "csmn.channels=4"),
    *("viewers.groups=2", "viewers.orders_per_group=2", "viewers.samples=3", "viewers.support=2"),
    *("viewers.scenes=8", "image_encoder.image_size=96", "network.grid_size=3"),
    *("viewers.support_draws=1", "viewers.unseen_groups=1", "viewers.unseen_orders_per_group=2"),
    *("viewers.test_scenes=2", "vlm.layers=1", "vlm.vision_depth=1"),
]


def run(folder: Path, *more: str) -> int:
    changes = [part for change in SMALL for part in ("--set", change)]
    places = ["--frozen", str(folder / "frozen"), "--out", str(folder / "table"), "--report", str(folder / "report")]
    return main(["table", *places, *changes, "--metrics", *METRICS, *more])


def result(folder: Path, name: str) -> dict[str, dict[str, dict[str, float]]]:
    return json.loads((folder / f"report/{name}.json").read_text())["results"]


@pytest.mark.slow
def test_every_system_and_seed_is_in_the_table_and_is_made_once(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, "--seeds", "2") == 0
    metrics = [*METRICS, "first object", "pairwise order"]
    for people in ("seen", "unseen"):
        rows = result(tmp_path, f"tiny-table-{people}")
        assert list(rows.pop(PEOPLE)) == ["HC"]
        assert list(rows) == list(table.SYSTEMS)
        assert all(list(figures) == metrics for figures in rows.values())
        differences = result(tmp_path, f"tiny-table-{people}-differences")
        assert list(differences) == [system for system in table.SYSTEMS if system != table.DEPER]
    assert "DEPER, no FiLM" in result(tmp_path, "tiny-table-seeds")
    assert "zero-shot" not in result(tmp_path, "tiny-table-seeds")
    predictions = {path.parent: path.read_bytes() for path in (tmp_path / "table").glob("*/seed-*/predictions.jsonl")}
    assert len(predictions) == 2 * len(table.SYSTEMS) - len(table.SEEDLESS)
    before = (tmp_path / "report/tiny-table-unseen.json").read_bytes()

    def fail(*_, **__):
        raise AssertionError("done already")

    monkeypatch.setattr(table, "train", fail)
    assert run(tmp_path, "--seeds", "2") == 0
    assert (tmp_path / "report/tiny-table-unseen.json").read_bytes() == before
    # Other settings are another table.
    assert run(tmp_path, "--systems", "DEPER", "--seeds", "1", "--set", "stage1.steps=3") == 2
    assert "were made with stage1 {" in capsys.readouterr().err
    other_vlm = ["--frozen", str(tmp_path / "other"), "--set", "larger_language.steps=2"]
    assert run(tmp_path, "--systems", "zero-shot", "--seeds", "1", *other_vlm) == 2
    assert "were made with larger_language {" in capsys.readouterr().err
    assert run(tmp_path, "--systems", "zero-shot", "--seeds", "1", "--name", "other", "--set", "stage1.steps=3") == 0
    assert (tmp_path / "report/tiny-table-unseen.json").read_bytes() == before
    facts = json.loads((tmp_path / "report/other-seen.json").read_text())["facts"]
    assert facts["people"] == "4 seen in training, 2 not"
    words = f"table --seeds 1 --systems zero-shot --metrics {' '.join(METRICS)} --name other --set {SMALL[0]}"
    assert facts["command"].startswith(f"python -m training {words}")


def answers(*texts: str, people: str = "ab") -> list[Prediction]:
    """Everybody describes two scenes; `texts` are in the order of people, then scenes."""
    rows = [(person, scene) for person in people for scene in range(2)]
    return [
        Prediction(
            "seen", "x", f"scene-{scene}", person, text, f"I can see a {'red' if person == 'a' else 'blue'} star."
        )
        for (person, scene), text in zip(rows, texts, strict=True)
    ]


def test_trainings_of_a_system_are_pooled():
    pytest.importorskip("spacy")
    right = answers(*["I can see a red star."] * 2, *["I can see a blue star."] * 2)
    wrong = answers(*["I can see a blue star."] * 2, *["I can see a red star."] * 2)
    scores = table_scores.score({"good": [right, right], "mixed": [right, wrong], "bad": [wrong, wrong]}, METRICS)
    assert scores.pop(PEOPLE)["HC"].estimate < scores["bad"]["BLEU-4"].estimate < 1
    cls = {system: scores[system]["CLS"].estimate for system in scores}
    assert cls == {"good": 1.0, "mixed": 0.5, "bad": 0.0}
    assert scores["good"]["BLEU-4"].estimate == pytest.approx(1.0, abs=1e-6)
    assert scores["bad"]["first object"].estimate == 1.0


def test_the_lead_over_each_system_has_an_interval_of_its_own(tmp_path):
    pytest.importorskip("spacy")
    right = answers(*["I can see a red star."] * 2, *["I can see a blue star."] * 2)
    wrong = answers(*["I can see a blue star."] * 2, *["I can see a red star."] * 2)
    unseen = [[attrs.evolve(row, dataset="unseen") for row in rows] for rows in (right, wrong)]
    everything = {"good": [right + unseen[0]], "same": [right + unseen[0]], "bad": [wrong + unseen[1]]}
    report = tmp_path / "report"
    table_scores.write_tables(report, table.NAME, everything, {}, METRICS, reference="good")
    lead = result(tmp_path, "tiny-table-unseen-differences")
    assert list(lead) == ["same", "bad"]
    assert set(lead["same"]["CLS"].values()) == {0.0, 0.95}
    assert lead["bad"]["CLS"] == {"value": 1.0, "low": 1.0, "high": 1.0, "level": 0.95}
    assert lead["bad"]["first object"]["value"] == 0.0
    table_scores.write_tables(tmp_path / "without", table.NAME, everything, {}, METRICS, reference="DEPER")
    assert {path.name for path in (tmp_path / "without").glob("*.json")} == {
        "tiny-table-seen.json",
        "tiny-table-unseen.json",
    }


def test_variants_with_fewer_people_have_about_as_many_each():
    viewers = ViewersConfig(groups=24, orders_per_group=8)
    chosen = {
        name: [number for number in range(24 * 8) if variant.people(viewers, number)]
        for name, variant in VARIANTS.items()
        if variant.people
    }
    groups = {name: [number // 8 for number in numbers] for name, numbers in chosen.items()}
    assert groups == {
        "an eighth of the people, in groups": [group for group in range(3) for _ in range(8)],
        "an eighth of the people, one of each group": list(range(24)),
    }


@pytest.mark.slow
def test_the_recipe_is_taken_apart(tmp_path):
    assert run(tmp_path, "--recipe", "--seeds", "1") == 0
    rows = result(tmp_path, "tiny-recipe-unseen")
    assert [row for row in rows if row != PEOPLE] == list(VARIANTS)
    assert list(result(tmp_path, "tiny-recipe-unseen-differences")) == list(VARIANTS)[1:]
    facts = json.loads((tmp_path / "report/tiny-recipe-unseen.json").read_text())["facts"]
    assert facts["command"].startswith("python -m training table --recipe --seeds 1")
    assert not (tmp_path / "report/tiny-recipe-seen.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipe", "--systems", "DEPER"], "--systems: --recipe has its own; leave one of the two out"),
        (["--recipe", "--name", "other"], "--name: --recipe has its own; leave one of the two out"),
        (["--name", "../tiny"], "name is '../tiny'; files begin with it, so it cannot be a path"),
        (["--name", ".."], "name is '..'; files begin with it"),
        (["--recipe", "--seeds", "0"], "seeds is 0; at least 1 is needed"),
        (["--systems", "DEPER, no film"], "systems: 'DEPER, no film' is none of 'zero-shot'"),
        (["--seeds", "0"], "seeds is 0; at least 1 is needed"),
        (["--metrics", "CIDEr", "SPICE"], "metrics: 'SPICE' is none of BLEU-4, CIDEr"),
    ],
)
def test_what_there_is_not_is_named(tmp_path, capsys, more, message):
    assert run(tmp_path, *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "frozen").exists()
