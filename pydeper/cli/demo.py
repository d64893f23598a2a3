"""`pydeper demo`: one drawn scene, described as two people would."""

import argparse
import collections
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydeper
from pydeper.cli.command import add_command, written

_DEMO = "demo"


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    demo = add_command(commands, "demo", run, "describe one drawn scene as two people would, with the built-in model")
    demo.add_argument("--out", type=Path, default=Path("pydeper-demo"), metavar="FOLDER", help="default: %(default)s")
    demo.add_argument("--model", default="tiny", metavar="MODEL", help="another model with a demo (default: tiny)")


def run(options: argparse.Namespace) -> int:
    """Describes the demo's scene, and draws how its two people looked."""
    from pydeper.bundle.bundle import open_bundle

    opened = open_bundle(options.model)
    folder = opened.folder / _DEMO
    scene = folder / "scene.png"
    if not scene.is_file():
        raise pydeper.BundleError(f"{folder}: model {opened.model_id!r} has no demo; use --model tiny")
    model = pydeper.DeperModel(opened)
    viewers = {path.stem: pydeper.read_samples(path) for path in sorted(folder.glob("*.jsonl"))}
    personas = {
        name: pydeper.Persona.from_samples(samples, model=model, name=name) for name, samples in viewers.items()
    }
    seen = model.encode_image(scene)

    print(f"The scene: {scene}\n")
    for name, text in zip(viewers, model.describe_each(seen, list(personas.values())), strict=True):
        print(f"{name}, known from {len(viewers[name])} samples, {way_of_looking(viewers[name])}:\n{_indented(text)}\n")
    print(f"Nobody in particular (no persona):\n{_indented(model.describe(seen))}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    picture = _draw_looking(viewers, options.out / "looking.png")
    print(f"How they looked at one picture each ({', '.join(viewers)}, from left to right): {picture}")
    return 0


def _indented(text: str) -> str:
    return textwrap.fill(written(text), width=96, initial_indent="    ", subsequent_indent="    ")


def way_of_looking(samples: Sequence["pydeper.Sample"]) -> str:
    """Says in words where somebody's eyes went first, how often they stopped, and for how long."""
    trajectories = [sample.trajectory for sample in samples if sample.trajectory is not None]
    if not trajectories:
        return "whose eyes were not followed"
    firsts = collections.Counter(place_name(trajectory.fixations[0].box) for trajectory in trajectories)
    place, times = firsts.most_common(1)[0]
    stops = sum(map(len, trajectories))
    seconds = sum(fixation.duration for trajectory in trajectories for fixation in trajectory)
    return (
        f"who looked first at the {place} in {times} of {len(trajectories)} pictures and stopped "
        f"{stops / len(trajectories):.1f} times a picture, for {seconds / stops:.2f} s each"
    )


def place_name(box: tuple[float, float, float, float]) -> str:
    """Names the ninth of the picture that the centre of a box is in, such as "upper left" or "centre"."""
    x1, y1, x2, y2 = box
    column = ("left", "middle", "right")[min(int((x1 + x2) / 2 * 3), 2)]
    row = ("upper", "middle", "lower")[min(int((y1 + y2) / 2 * 3), 2)]
    return "centre" if row == column else f"{row} {column}"


def _draw_looking(viewers: dict[str, list["pydeper.Sample"]], path: Path) -> Path:
    from PIL import Image

    from pydeper.samples.overlay import save_picture

    plots = [
        next(sample for sample in samples if sample.trajectory is not None).plot()
        for samples in viewers.values()
        if any(sample.trajectory is not None for sample in samples)
    ]
    if not plots:
        raise pydeper.InvalidSampleError("the demo's samples have no trajectories to draw; reinstall pydeper")
    sheet = Image.new("RGB", (sum(plot.width for plot in plots), max(plot.height for plot in plots)), "white")
    for i, plot in enumerate(plots):
        sheet.paste(plot, (sum(before.width for before in plots[:i]), 0))
    save_picture(sheet, path)
    return path
