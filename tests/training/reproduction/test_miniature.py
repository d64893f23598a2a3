"""`python -m training reproduce` for every data set of the paper, from its published layout to its table."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.reproduction import published
from tests.training.reproduction.conftest import Reproduce
from training.reproduction.prepared import prepared
from training.reproduction.sources import EXPERIMENTS, DataOptions


@pytest.mark.parametrize(
    ("experiment", "write", "more", "seen", "unseen"),
    [
        ("coco-ln", published.write_coco, [], 2, 19),
        ("flickr30k-ln", published.write_flickr30k, [], 2, 10),
        ("kollenda", published.write_kollenda, ["--unseen", "k0", "k3"], 2, 2),
        ("he", published.write_capgaze, [], 2, 0),
        ("flickr30k-ln", published.write_released, [], 3, 10),
        ("coco-ln", published.write_released, ["--unseen", "3", "--test-split", "val"], 12, 1),
    ],
)
def test_an_experiment_runs_from_the_published_files_to_its_table(
    reproduce: Reproduce,
    tmp_path: Path,
    experiment: str,
    write: Callable[[Path], Path | None],
    more: list[str],
    seen: int,
    unseen: int,
) -> None:
    data = write(tmp_path / "data") or tmp_path / "data"
    assert reproduce(experiment, data, *more) == 0
    predictions = (tmp_path / "run/DEPER/predictions.jsonl").read_text().splitlines()
    people: dict[str, set[str]] = {}
    for row in map(json.loads, predictions):
        people.setdefault(row["dataset"], set()).add(row["subject"])
    expected = {f"{experiment}, seen": seen, f"{experiment}, unseen": unseen}
    assert {dataset: len(names) for dataset, names in people.items()} == {k: v for k, v in expected.items() if v}
    for dataset in people:
        table = json.loads((tmp_path / f"run/results/{dataset.replace(', ', '-')}-beside-paper.json").read_text())
        assert "BLEU-4" in table["results"]["DEPER"]


def test_columns_are_named_on_the_command_line(
    reproduce: Reproduce, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    published.write_kollenda(data, columns=("who", "picture", "x", "y", "duration"))
    (data / "captions.csv").rename(data / "said.csv")
    more = ["--captions", "said.csv", "--column", "image=picture", "--unseen", "k1"]
    assert reproduce("kollenda", data, *more) == 2
    assert "has no column 'subject'" in capsys.readouterr().err
    assert reproduce("kollenda", data, *more, "--column", "subject=who") == 0


def test_data_that_cannot_be_used_are_refused_before_anything_is_trained(
    reproduce: Reproduce, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_kollenda(tmp_path / "data", people=2)
    for more, message in (
        (["--unseen", "k9"], "unseen: 1 of 1 people are not in the data, such as 'k9'; there are 'k0', 'k1'"),
        (["--unseen", "k0"], "are of one person, 'k1'; there is nobody to tell them from: add samples of others"),
    ):
        assert reproduce("kollenda", tmp_path / "data", *more) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run/DEPER").exists()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "no sample is of the split 'train'; there is nothing to train on ('query' (2), "),
        ("test", "no sample is of the split 'test' or 'query'; there is nothing to report on ('support' (10), "),
        ("val", "'val', on which the training step is chosen"),
    ],
)
def test_prepared_data_without_a_split_are_refused(
    reproduce: Reproduce, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, message: str
) -> None:
    published.write_kollenda(tmp_path / "data")
    options = DataOptions(unseen=("k1", "k2"))
    samples = prepared(EXPERIMENTS["kollenda"], tmp_path / "data", tmp_path / "prepared", options)
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    gone = {"test": ("test", "query")}.get(split, (split,))
    samples.write_text("\n".join(json.dumps(line) for line in lines if line["split"] not in gone))
    assert reproduce("kollenda", samples.parent) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run/DEPER").exists()


def test_prepared_data_without_their_images_are_refused(
    reproduce: Reproduce, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_kollenda(tmp_path / "data")
    prepared(EXPERIMENTS["kollenda"], tmp_path / "data", tmp_path / "prepared", DataOptions(unseen=("k1",)))
    (tmp_path / "data/images/3.jpg").unlink()
    assert reproduce("kollenda", tmp_path / "prepared") == 2
    assert "data/images/3.jpg); give a path relative to this file" in capsys.readouterr().err
