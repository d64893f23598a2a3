"""`python -m docs.figures [NAME …]` draws docs/images: all of it, or the pictures named."""

import argparse
from importlib import import_module
from pathlib import Path

from docs.figures.charts import bars, lines
from pydeper.files.atomic import atomic_path

CHARTS = {**bars.CHARTS, **lines.CHARTS}
IMAGES = Path(__file__).parent.parent / "images"
QUICK = ("data-flow", "drawings", "network", "prompt-layout", "packages", "request-sequence", "two-people", *CHARTS)
SLOW = ("persona-map",)  # minutes: it makes some hundred personas


def drawn(name: str) -> str:
    """Returns a picture as the text of its file."""
    if name in CHARTS:
        return CHARTS[name]()
    svg: str = import_module(f"docs.figures.{name.replace('-', '_')}").draw()
    return svg


def main() -> None:
    """Draws pictures into docs/images."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures", description="Draw the pictures of the docs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*QUICK, *SLOW))}; all by default")
    names = parser.parse_args().names or [*QUICK, *SLOW]
    if unknown := sorted({*names} - {*QUICK, *SLOW}):
        parser.error(f"there is no picture {', '.join(unknown)}; there are {', '.join((*QUICK, *SLOW))}")
    for name in names:
        with atomic_path(IMAGES / f"{name}.svg") as temporary:
            temporary.write_text(drawn(name), encoding="utf-8")


if __name__ == "__main__":
    main()
