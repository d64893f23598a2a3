"""What sharing the image between personas saves, on the built-in model: `python -m benchmarks.tiny_runtime`.

Both sides of each comparison do the same work, in turn; medians and their ratio are printed.
"""

from collections.abc import Callable
from pathlib import Path

import pydeper
from benchmarks.measuring.timing import medians_in_turn
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
    """Times the sides in turn, and prints medians and ratios to the first."""
    medians = medians_in_turn(sides, RUNS)
    base = next(iter(medians.values()))
    print(f"\n{title} (median of {RUNS})")
    for name, median in medians.items():
        print(f"  {name:28}{1000 * median:9.1f} ms{median / base:8.2f}x")


if __name__ == "__main__":
    main()
