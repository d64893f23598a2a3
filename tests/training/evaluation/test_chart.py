"""Charts: lines over numbers of samples."""

from pathlib import Path

import pytest
from PIL import Image

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval
from training.evaluation.chart import write_curves

AXIS = {"x": [1, 10.5], "labels": ["1", "all"], "x_label": "samples"}


def test_lines_may_have_gaps_and_points_without_intervals(tmp_path: Path) -> None:
    curves = {
        "both": [{"BLEU-4": Interval(0.2, 0.1, 0.3), "CLS": None}, {"BLEU-4": Interval(0.4, 0.3, 0.5), "CLS": 0.5}],
        "text": [{"BLEU-4": 0.1}, {"BLEU-4": None, "CLS": 1}],
    }
    write_curves(tmp_path / "curves.png", curves, **AXIS, title="curves")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > picture.size[1] > 100


def test_lines_without_a_figure_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no figure to draw"):
        write_curves(tmp_path / "curves.png", {"both": [{"CLS": None}, {}]}, **AXIS)
    assert not list(tmp_path.iterdir())
