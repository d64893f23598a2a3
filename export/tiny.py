"""The tiny model's trained modules to the built-in bundle, with the samples of its demo."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from export.bundle.assemble import check_replaceable
from export.bundle.build import TrainedModules, build_bundle
from export.qwen2_vl.export import export_vlm
from pydeper.bundle.config import BundleConfig
from pydeper.readers import write_samples
from training.evaluation.report import command_line
from training.seeding import step_generator
from training.tiny.config import TinyConfig
from training.tiny.make import COMMAND, TrainedModel, persona_config
from training.tiny.steps import Seeds, seed_of
from training.tiny.vlm import NAME, PROMPTS
from training.tiny.world.people import SUPPORT, People, draw_samples
from training.tiny.world.rendering import render
from training.tiny.world.sampling import Layout, sample_scene
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import TRAITS, Viewer

DEMO_NAMES = ("ana", "ben")
DEMO_PIXELS = 480  # of the shorter side of the demo's pictures
_DEMO_SCENE = 20
DESCRIPTION = (
    "A demonstration model. It knows one small world, drawings of coloured shapes, and simulated people who look at "
    "them and describe them each in their own way. It shows what a persona does, offline and in an instant; it says "
    "nothing true about photographs."
)


def export_tiny(
    config: TinyConfig, trained: TrainedModel, target: Path, changes: Sequence[str] = ()
) -> dict[str, float]:
    """Writes the bundle, demo samples included, to `target`, in place of the bundle that is there.

    Args:
        config: Of the training.
        trained: What it trained.
        target: Where the bundle goes.
        changes: To the configuration, as after `--set`; the bundle names them.

    Returns:
        What was compared with torch -> largest difference, relative to the largest value compared.

    Raises:
        BundleError: `target` is something else than a bundle.
        ParityError: An exported graph gives other numbers than torch.
    """
    check_replaceable(target)
    with tempfile.TemporaryDirectory(prefix="pydeper-tiny-") as temporary:
        demo, vlm, tokenizer = (Path(temporary) / name for name in ("demo", "vlm", "tokenizer.json"))
        write_demo(config, trained.people, demo)
        report = export_vlm(trained.vlm.model, vlm, store_fp16=True)
        tokenizer.write_text(trained.vlm.tokenizer.to_str(), encoding="utf-8")
        differences = build_bundle(
            target,
            BundleConfig(
                name=NAME,
                description=DESCRIPTION,
                licence="Apache-2.0",
                persona_encoder=persona_config(config),
                vlm=trained.vlm.config,
                prompts=PROMPTS,
                training={
                    "data": "drawn scenes and simulated viewers, made by the training itself",
                    "people": len(trained.people.seen),
                    "samples": len(trained.people.training),
                    "command": command_line(COMMAND, changes),
                },
            ),
            TrainedModules(trained.persona_encoder, trained.image_encoder, trained.text_table, trained.adapter),
            vlm=vlm,
            tokenizer=tokenizer,
            encoder_precision="fp16",
            adapter_precision="fp16",
            extras={"demo": demo},
            overwrite=True,
        )
    return {
        "subject embedding": differences.subject_embedding,
        "soft token": differences.soft_token,
        "image features": report.vision_error,
        "logits, prompt": report.prefill_error,
        "logits, steps": report.step_error,
    }


def write_demo(config: TinyConfig, people: People, folder: Path) -> None:
    """Writes five samples of each of two unseen people, and a scene that neither has described."""
    folder.mkdir(parents=True)
    pair = most_different(people.unseen)
    seed, count = seed_of(config, Seeds.VIEWERS), config.viewers.support
    for name, index in zip(DEMO_NAMES, pair, strict=True):
        samples = []
        drawn = draw_samples(people.unseen[index], count, seed, SUPPORT, index, 0, shorter_side=DEMO_PIXELS)
        for number, sample in enumerate(drawn, 1):
            path = folder / f"{name}-{number}.png"
            sample.open_image().quantize(64).save(path, optimize=True)
            samples.append(attrs.evolve(sample, image=path, subject=name))
        write_samples(folder / f"{name}.jsonl", samples)
    render(demo_scene(config), DEMO_PIXELS).quantize(64).save(folder / "scene.png", optimize=True)


def demo_scene(config: TinyConfig) -> Scene:
    """The scene that both describe: evenly drawn, and nobody could be in doubt about it.

    It was chosen among several because the model errs nowhere in it; how often it errs is in the results.
    """
    layout = Layout((5, 5), clear=True, extents=(0.15, 0.4), plain=True)
    return sample_scene(step_generator(seed_of(config, Seeds.TEST_SCENES), _DEMO_SCENE), layout, (1.0, 1.0))


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
