"""One scene, two people: how each looks at it, and how pydeper describes it for each."""

import base64
import io
import textwrap
from pathlib import Path

import attrs
import numpy as np
from PIL import Image, ImageChops

import pydeper
from docs.figures.drawing import Drawing
from export.tiny import DEMO_NAMES, DEMO_PIXELS, demo_scene, most_different
from pydeper import DeperModel, Persona, read_samples
from pydeper.samples.overlay import draw_trajectory
from training.config import load_config
from training.seeding import step_generator
from training.tiny.config import TinyConfig
from training.tiny.steps import Seeds, seed_of
from training.tiny.world.rendering import render
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import DWELLS, Viewer, sample_viewers

DEMO = Path(pydeper.__file__).parent / "builtin" / "tiny" / "demo"
CONFIG = Path(__file__).parents[2] / "training" / "configs" / "tiny.toml"
_PIXELS = 508  # of a picture that is shown at 254, and at half of that on a phone
_LETTERS = 30  # in a line of a description


@attrs.frozen
class Person:
    """One of the demo's people: who they are, how they look at the scene, and how pydeper describes it for them."""

    name: str
    viewer: Viewer
    picture: Image.Image
    description: str


def people() -> list[Person]:
    """The demo's two people before the demo's scene.

    Their gaze on it is simulated here, by the viewers whose samples the demo holds. The descriptions are the model's;
    it is given the five samples and the scene, not this gaze.
    """
    config = load_config(TinyConfig, CONFIG, [])
    scene = demo_scene(config)
    if not _same(scene, DEMO / "scene.png"):
        raise ValueError(f"{DEMO / 'scene.png'} is not the scene of {CONFIG}: make the built-in model again")
    model = DeperModel.from_pretrained("tiny", threads=1)
    found = []
    for number, (name, viewer) in enumerate(zip(DEMO_NAMES, _viewers(config), strict=True)):
        persona = Persona.from_samples(read_samples(DEMO / f"{name}.jsonl"), model=model, name=name)
        gaze = viewer.look(scene, step_generator(0, number))
        text = model.describe(DEMO / "scene.png", persona)
        found.append(Person(name, viewer, draw_trajectory(render(scene, DEMO_PIXELS), gaze), text))
    return found


def draw() -> str:
    """Draws them side by side."""
    pair = people()
    lines = [textwrap.wrap(person.description, _LETTERS) for person in pair]
    longest = max(map(len, lines))
    d = Drawing(
        "One picture, two people",
        "The same drawing twice: a green cross at the top, a black circle below it, a blue rectangle at the "
        "right, a brown ring below it and a red diamond at the lower right, with numbered fixations of two people. "
        + " ".join(f"{p.name} {_way(p.viewer)}; pydeper writes for {p.name}: “{p.description}”" for p in pair)
        + " The model knows both from five samples of other pictures, and does not see this gaze.",
        404 + 20 * longest,
    )
    for x, person, wrapped in zip((16, 290), pair, lines, strict=True):
        d.text(x, 26, person.name, style="label")
        d.text(x, 47, _way(person.viewer), style="small aside")
        d.raw(_image(x, 58, 254, person.picture))
        d.box(x, 322, 254, 20 * longest + 22, kind="learned")
        for row, line in enumerate(wrapped):
            d.text(x + 11, 347 + 20 * row, line, style="small on-learned")
    y = 370 + 20 * longest
    d.text(16, y, "The text is what pydeper writes for each, from five samples of", style="small aside")
    d.text(16, y + 20, "other pictures. The gaze drawn here is not shown to it.", style="small aside")
    return d.svg()


def _viewers(config: TinyConfig) -> tuple[Viewer, Viewer]:
    """Those whose samples the demo holds, drawn as `training.tiny.world.people` draws them."""
    rng, sizes = step_generator(seed_of(config, Seeds.VIEWERS), 0), config.viewers
    seen = sample_viewers(rng, sizes.groups, sizes.orders_per_group, "seen")
    unseen = sample_viewers(rng, sizes.unseen_groups, sizes.unseen_orders_per_group, "unseen", avoid=seen)
    one, other = most_different(tuple(unseen))
    return unseen[one], unseen[other]


def _way(viewer: Viewer) -> str:
    return f"looks {viewer.order}, {DWELLS[viewer.dwell]:.2g} s each"


def _same(scene: Scene, file: Path) -> bool:
    with Image.open(file) as kept:  # with fewer colours than were drawn
        difference = ImageChops.difference(render(scene, DEMO_PIXELS), kept.convert("RGB"))
    return int(np.asarray(difference).max()) < 64


def _image(x: float, y: float, side: float, picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS).quantize(64).save(file, "png", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<image x="{x}" y="{y}" width="{side}" height="{side}" href="data:image/png;base64,{data}"/>'
