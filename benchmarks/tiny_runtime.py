"""What sharing the image between personas saves, on the built-in model: `python -m benchmarks.tiny_runtime`.

Both sides of each comparison do the same work, in turn; medians and their ratio are printed.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pydeper
from pydeper import DeperModel, Persona

RUNS = 15
PERSONAS = 8


def main() -> None:
    model = DeperModel.from_pretrained("tiny")
    demo = Path(pydeper.__file__).parent / "builtin" / "tiny" / "demo"
    known = [Persona.from_samples(pydeper.read_samples(path), model=model) for path in sorted(demo.glob("*.jsonl"))]
    personas = [Persona.blend(known, weights=[1 - share, share]) for share in (i / PERSONAS for i in range(PERSONAS))]
    scene = demo / "scene.png"
    seen = model.encode_image(scene)
    model.describe(seen, personas[0])  # fills the style's prefix

    compare(
        "first piece of a description",
        {
            "from the image": lambda: next(model.stream(scene, personas[0])),
            "from the encoded image": lambda: next(model.stream(seen, personas[0])),
        },
    )
    compare(
        f"{PERSONAS} personas, one image",
        {
            "describe, one by one": lambda: [model.describe(scene, persona) for persona in personas],
            "describe_each": lambda: model.describe_each(scene, personas),
            "(one persona alone)": lambda: model.describe(scene, personas[0]),
        },
    )


def compare(title: str, sides: dict[str, Callable[[], object]]) -> None:
    """Times the sides in turn, A B A B …, and prints medians and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(RUNS + 1):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            if run:  # the first is a warm-up
                times[name].append(time.perf_counter() - began)
    base = statistics.median(next(iter(times.values())))
    print(f"\n{title} (median of {RUNS})")
    for name, values in times.items():
        print(f"  {name:28}{1000 * statistics.median(values):9.1f} ms{statistics.median(values) / base:8.2f}x")


if __name__ == "__main__":
    main()
