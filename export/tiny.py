"""The tiny model's trained parts to the built-in bundle, with the samples of its demo."""

import tempfile
from pathlib import Path

import attrs

from export.bundle.from_training import Parity, export_trained
from pydeper.readers import write_samples
from training.loop.loop import step_generator
from training.tiny.config import TinyConfig
from training.tiny.make import NAME, PROMPTS, Seeds, TrainedModel, persona_config, seed_of
from training.tiny.people import People
from training.tiny.simulated import TRAITS, Viewer, sample_scene

DEMO_NAMES = ("ana", "ben")
DESCRIPTION = (
    "A demonstration model. It knows one small world, drawings of coloured shapes, and simulated people who look at "
    "them and describe them each in their own way. It shows what a persona does, offline and in an instant; it says "
    "nothing true about photographs."
)


def export_bundle(config: TinyConfig, trained: TrainedModel, target: Path) -> Parity:
    """Writes the bundle, demo samples included, to `target`; every graph is checked against torch on the way."""
    with tempfile.TemporaryDirectory(prefix="pydeper-demo-") as temporary:
        demo = Path(temporary) / "demo"
        write_demo(config, trained.people, demo)
        return export_trained(
            target,
            name=NAME,
            description=DESCRIPTION,
            licence="Apache-2.0",
            vlm=trained.vlm,
            prompts=PROMPTS,
            persona=persona_config(config),
            image_encoder=trained.image_encoder,
            text_table=trained.text_table,
            persona_encoder=trained.deper.persona_encoder,
            adapter=trained.adapter,
            facts={
                "data": "drawn scenes and simulated viewers, made by the training itself",
                "people": len(trained.people.seen),
                "samples": len(trained.people.training),
                "command": "python -m training tiny",
            },
            extras={"demo": demo},
        )


def write_demo(config: TinyConfig, people: People, folder: Path) -> None:
    """Writes five samples of each of two unseen people, and a scene that neither has described."""
    folder.mkdir(parents=True)
    pair = most_different(people.unseen)
    for name, index in zip(DEMO_NAMES, pair, strict=True):
        samples = []
        for number, sample in enumerate(people.support[index][0], 1):
            path = folder / f"{name}-{number}.png"
            sample.open_image().quantize(64).save(path, optimize=True)
            samples.append(attrs.evolve(sample, image=path, subject=name))
        write_samples(folder / f"{name}.jsonl", samples)
    scene = sample_scene(step_generator(seed_of(config, Seeds.TEST_SCENES)), objects=(5, 5))
    scene.draw().quantize(64).save(folder / "scene.png", optimize=True)


def most_different(viewers: tuple[Viewer, ...]) -> tuple[int, int]:
    """The first pair of viewers who differ most: in opposite scanning directions if any do, then in the most traits."""
    opposite = ({"rightward", "leftward"}, {"downward", "upward"})

    def difference(pair: tuple[int, int]) -> tuple[bool, int]:
        one, other = viewers[pair[0]], viewers[pair[1]]
        return {one.order, other.order} in opposite, sum(getattr(one, t) != getattr(other, t) for t in TRAITS)

    return max(((i, j) for i in range(len(viewers)) for j in range(i)), key=difference)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
