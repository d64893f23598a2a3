"""Pictures of a run: that they show what they say, and say what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from pydeper import Trajectory
from training.__main__ import main
from training.errors import TrainingError
from training.loop.logs import EVALUATIONS, LOG
from training.runs import plots


def write_log(folder: Path, name: str, lines: list[dict[str, float]]) -> None:
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def ink(path: Path) -> int:
    return int((np.asarray(Image.open(path).convert("L")) < 200).sum())


def test_losses_of_training_and_validation_are_drawn(tmp_path):
    lines = [{"step": step, "loss": 3 / step, "subject": 1 / step, "seconds": step} for step in range(1, 9)]
    write_log(tmp_path, LOG, lines)
    plots.plot_losses(tmp_path, tmp_path / "train.png")
    write_log(tmp_path, EVALUATIONS, [{"step": 4, "loss": 2.0}, {"step": 8, "loss": 1.5, "score": 0.1}])
    plots.plot_losses(tmp_path, tmp_path / "deeper/both.png")
    assert ink(tmp_path / "deeper/both.png") > ink(tmp_path / "train.png") > 0
    assert not list(tmp_path.glob(".*"))


def test_a_log_without_a_step_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"log\.jsonl: holds no step yet"):
        plots.plot_losses(tmp_path, tmp_path / "x.png")


def test_pca_keeps_the_widest_directions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 6)).astype(np.float32) * np.array([9, 5, 1, 1, 0.1, 0.1], np.float32)
    points = plots.project(vectors)
    expected = PCA(2, svd_solver="full").fit_transform(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), rtol=1e-4, atol=1e-4)


def test_tsne_keeps_neighbours():
    rng = np.random.default_rng(0)
    centers = np.repeat(10 * rng.normal(size=(3, 8)), 8, axis=0)
    points = plots.project((centers + rng.normal(size=centers.shape)).astype(np.float32), "tsne")
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert (distances.argmin(1) // 8 == np.arange(24) // 8).all()


@pytest.mark.parametrize(("method", "count"), [("pca", 1), ("tsne", 3)])
def test_too_few_vectors_are_an_error(method, count):
    with pytest.raises(TrainingError, match=f"{method} needs more than {count} samples"):
        plots.project(np.zeros((count, 4), np.float32), method)


@pytest.mark.parametrize("people", [2, 25])
def test_everybody_has_a_colour(tmp_path, people):
    vectors = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    plots.plot_embeddings(vectors, [f"viewer {i % people}" for i in range(50)], tmp_path / "x.png")
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).reshape(-1, 3)}
    hues = {max(c) - min(c) for c in colours}
    assert len(colours) > people
    assert max(hues) > 100


def test_real_and_predicted_trajectories_stand_side_by_side():
    image = Image.new("RGB", (700, 640), "white")
    real = Trajectory.from_arrays([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.8]], [0.2, 0.4])
    boxes = np.array([[0.5, 0.1, 0.9, 0.4], [0.4, 0.4, 0.4, 0.6]], np.float32)  # the second has no area
    picture = plots.trajectory_picture(image, real, boxes)
    left, right = (np.asarray(picture.crop((x, 0, x + 700, 640)).convert("L")) < 250 for x in (0, picture.width - 700))
    assert picture.size == (2 * 700 + 12, 640)
    assert left[:320, :350].any()
    assert not right[:, :300].any()
    assert right[:320, 350:].any()
    nothing = plots.trajectory_picture(image, real, boxes[:0])
    assert np.asarray(nothing.crop((712, 0, 1412, 640))).min() == 255


def test_a_run_is_drawn(config_file, tmp_path, capsys):
    assert main(["plots", "--out", str(tmp_path)]) == 2
    assert "holds no run; train with" in capsys.readouterr().err
    assert (
        main(["stage1", "--config", str(config_file), "--out", str(tmp_path), "--set", "stage1.evaluate_every=4"]) == 0
    )
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
