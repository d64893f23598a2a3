"""Pictures of a run: its losses, its people as points, recorded trajectories beside decoded ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pydeper.files.atomic import atomic_path
from pydeper.samples.overlay import draw_trajectory
from pydeper.samples.trajectory import Trajectory
from training.config import TrainingConfig, structure_config
from training.data.encoded import EncodedDataset
from training.data.shards import read_samples
from training.distributed.device import device_of
from training.errors import TrainingError
from training.loop import logs
from training.loop.checkpoints import load_state
from training.network.deper import Deper
from training.network.text_table import TextTable
from training.outputs import exists, output_folder, refuse
from training.preparation.splits import VAL
from training.runs.folders import CONFIG, stage1_folder, stage2_folder
from training.runs.frozen_parts import FrozenParts
from training.runs.samples import training_samples
from training.stages.embedding import embed, network_inputs

Projection = Literal["pca", "tsne"]

_NOT_LOSSES = {"step", "seconds", "rate", "gradient_norm", "accuracy", "score", "bleu4", "cider", "rouge_l"}
_MOST_NAMES = 20  # more colours than that cannot be told apart
_GAP = 12
_SOFTWARE = "python -m training plots"


def plot_run(folder: Path, projection: Projection = "pca", pictures: int = 6) -> list[Path]:
    """Draws a run's losses, its people's subject embeddings, and real beside reconstructed trajectories.

    The pictures of people are of the split "val", or of the training samples where there is none.

    Args:
        folder: Where stage 1, and maybe stage 2, was trained.
        projection: How subject embeddings become points.
        pictures: How many trajectories are drawn.

    Returns:
        The files, in `folder/plots`.

    Raises:
        TrainingError: There is no run in the folder.
        OutputError: Other pictures there have the names of plots.
    """
    first = stage1_folder(folder)
    try:
        table = json.loads((first / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder}: holds no run; train with `python -m training stage1 --out {folder}` first"
        ) from error
    config = structure_config(TrainingConfig, table, str(first / CONFIG))
    out = folder / "plots"
    names = (f"{first.name}-losses", f"{stage2_folder(folder).name}-losses", f"subject-embeddings-{projection}")
    there = [*(out / f"{name}.png" for name in names), *out.glob("trajectory-*.png")]
    refuse(out, (path.name for path in there if exists(path) and not _is_plot(path)))
    files = []
    for stage in (first, stage2_folder(folder)):
        if (stage / logs.LOG).exists():
            files.append(out / f"{stage.name}-losses.png")
            plot_losses(stage, files[-1])
    parts = FrozenParts.load(config)
    training = training_samples(config.samples, check_durations=config.check_durations)
    people = {sample.subject for sample in training}
    everything = read_samples(config.samples, check_durations=config.check_durations)
    shown = [sample for sample in everything if sample.split == VAL] or training
    deper = Deper(config.network, len(people))
    load_state(first, deper, "deper")
    data = parts.encode(shown)
    people_shown = [data.subjects[subject] for subject in data.subject_of]
    files.append(out / f"subject-embeddings-{projection}.png")
    plot_embeddings(embed(deper, parts.text_table, data), people_shown, files[-1], projection, config.seed)
    looked = [row for row, sample in enumerate(data.origins) if sample.trajectory is not None][:pictures]
    boxes = predicted_trajectories(deper, parts.text_table, data, looked) if looked else []
    for row, predicted in zip(looked, boxes, strict=True):
        files.append(out / f"trajectory-{row}.png")
        image, real = data.images.open(int(data.image_of[row])), data.origins[row].trajectory
        assert real is not None
        with output_folder(out), atomic_path(files[-1]) as temporary:
            trajectory_picture(image, real, predicted).save(temporary, pnginfo=_made_here())
    return files


def plot_losses(folder: Path, path: Path) -> None:
    """Draws the losses of a stage over its steps, with those of its evaluations.

    Args:
        folder: The stage's, with `log.jsonl` and maybe `evaluations.jsonl`.
        path: The picture.

    Raises:
        TrainingError: There is no line in the log.
    """
    lines, evaluations = (logs.read(folder / name) for name in (logs.LOG, logs.EVALUATIONS))
    if not lines:
        raise TrainingError(f"{folder / logs.LOG}: holds no step yet; train, then plot")
    names = [key for key in lines[0] if key not in _NOT_LOSSES]
    shown = [*names, *(key for key in ("accuracy", "score") if any(key in line for line in (*lines, *evaluations)))]
    figure = _figure(width=4.2 * min(3, len(shown)), height=2.9 * -(-len(shown) // 3))
    axes = figure.subplots(-(-len(shown) // 3), min(3, len(shown)), squeeze=False).flat
    for name, axis in zip(shown, axes, strict=False):
        for values, style in ((lines, {"label": "train"}), (evaluations, {"label": "val", "marker": "o"})):
            points = [(line["step"], line[name]) for line in values if name in line]
            if points:
                axis.plot(*zip(*points, strict=True), **style)
        axis.set(title=name, xlabel="step")
        axis.legend(frameon=False)
    for axis in list(axes)[len(shown) :]:
        axis.set_visible(False)
    _save(figure, path)


def project(vectors: NDArray[np.float32], method: Projection = "pca", seed: int = 0) -> NDArray[np.float64]:
    """Brings (n, d) vectors to 2 dimensions, (n, 2): along their two widest directions, or by t-SNE.

    Args:
        vectors: At least 2 of them.
        method: PCA keeps distances as far as two directions can; t-SNE keeps neighbours and nothing else.
        seed: Of t-SNE.

    Raises:
        TrainingError: There are too few vectors.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) < (4 if method == "tsne" else 2):
        raise TrainingError(f"{method} needs more than {len(vectors)} samples")
    if method == "pca":
        return np.asarray(PCA(n_components=2, random_state=seed).fit_transform(vectors), np.float64)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors), np.float64)


def plot_embeddings(
    vectors: NDArray[np.float32], people: Sequence[str], path: Path, method: Projection = "pca", seed: int = 0
) -> None:
    """Draws subject embeddings as points, a colour a person.

    Args:
        vectors: (n, subject_embedding_size), one a sample.
        people: n names.
        path: The picture.
        method: See `project`.
        seed: Of t-SNE.
    """
    points, names = project(vectors, method, seed), sorted(set(people))
    owner = np.array([names.index(name) for name in people])
    figure = _figure(width=7, height=6)
    axis = figure.subplots()
    if len(names) <= _MOST_NAMES:
        for index, name in enumerate(names):
            axis.scatter(*points[owner == index].T, s=14, color=_color(index / len(names)), label=name)
        axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axis.scatter(*points.T, s=8, c=[_color(index / len(names)) for index in owner])
    axis.set(title=f"{len(people)} samples of {len(names)} people, {method.upper()} of z_s", xticks=[], yticks=[])
    _save(figure, path)


@torch.no_grad()
def predicted_trajectories(
    deper: Deper, text_table: TextTable, data: EncodedDataset, rows: Sequence[int]
) -> list[NDArray[np.float32]]:
    """What the decoder draws for samples: (fixations, 4) boxes of each, the slots that it takes for real."""
    deper.eval()
    output = deper(*network_inputs(data, np.array(rows), [None] * len(rows), text_table, device_of(deper)))
    boxes, valid = output.boxes.cpu().numpy(), output.validity_logits.cpu().numpy() > 0
    return [own[mask] for own, mask in zip(boxes, valid, strict=True)]


def trajectory_picture(image: Image.Image, real: Trajectory, predicted: NDArray[np.float32]) -> Image.Image:
    """An image twice: how somebody looked, and beside it how the decoder has them look.

    The decoder says where and how often, not how long: its fixations are drawn with the mean duration of the real ones.

    Args:
        image: An upright RGB image.
        real: The recorded trajectory.
        predicted: (fixations, 4) boxes in [0, 1]; none: the image alone.
    """
    left = draw_trajectory(image, real)
    right = image.resize(left.size)
    boxes = predicted[(predicted[:, :2] < predicted[:, 2:]).all(axis=1)]
    if len(boxes):
        duration = float(np.mean(real.durations))
        right = draw_trajectory(
            image, Trajectory.from_arrays(boxes.tolist(), [duration] * len(boxes), check_durations=False)
        )
    both = Image.new("RGB", (left.width + _GAP + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + _GAP, 0))
    return both


def _figure(width: float, height: float) -> Any:
    """A figure that needs no screen and leaves pyplot's global state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with output_folder(path.parent), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": _SOFTWARE})


def _made_here() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", _SOFTWARE)
    return info


def _is_plot(path: Path) -> bool:
    """Whether a file is a picture that was drawn here before."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def _color(hue: float) -> tuple[float, float, float]:
    import colorsys

    return colorsys.hsv_to_rgb(hue, 0.75, 0.8)
