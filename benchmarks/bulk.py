"""Descriptions a second by how many images a run describes together, built-in model: `python -m benchmarks.bulk`.

Each run writes its file as `pydeper describe --output` does, on one thread. The numbers of images come in turn, so that
a slower machine slows all of them; medians are printed.
"""

import itertools
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import pydeper
from pydeper import DeperModel, Persona
from pydeper.bulk.run import describe_to_file
from pydeper.console import write_any_text
from pydeper.images import open_image
from training.evaluation.report import format_table

IMAGES, RUNS = 64, 5
AT_ONCE = (1, 2, 4, 8, 16)


def write_images(folder: Path) -> list[Path]:
    """Writes pictures that all differ: the demonstration's, moved sideways."""
    scene = np.asarray(open_image(pydeper.demo_image()))
    paths = [folder / f"{number:02}.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(scene, number, axis=1)).save(path)
    return paths


def main() -> None:
    model = DeperModel.from_pretrained("tiny", threads=1)
    ana, ben = (Persona.from_samples(pydeper.demo_samples(name), model=model) for name in ("ana", "ben"))
    groups = {"one persona": {"ana": ana}, "two personas": {"ana": ana, "ben": ben}}
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in itertools.product(groups, AT_ONCE)}
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder))
        for number, (people, at_once) in itertools.product(range(RUNS), rates):
            model.clear_image_cache()
            output = Path(folder, f"{number} {people} {at_once}.jsonl")
            done = describe_to_file(model, images, groups[people], output, batch_size=at_once)
            rates[people, at_once].append(done.described / done.seconds)
    print("Descriptions a second")
    print(
        format_table(
            {people: {f"{n} at once": statistics.median(rates[people, n]) for n in AT_ONCE} for people in groups}
        )
    )


if __name__ == "__main__":
    write_any_text()
    main()
