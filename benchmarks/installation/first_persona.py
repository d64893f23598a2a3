"""How long a newcomer takes to a first persona: `python -m benchmarks.installation.first_persona`.

Needs git and a package index. It clones this repository into an empty folder and does there what the quick start says,
block after block: installing into a new virtual environment, and making and saving a persona. What is typed and read
in between is not counted.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from pydeper.console import write_any_text
from training.evaluation.report import format_table

ROOT = Path(__file__).parents[2]
PERSONA = "ana.safetensors"
_SECTION = re.compile(r"^## (?P<title>.+?)$(?P<text>.*?)(?=^## |\Z)", re.S | re.M)
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.S | re.M)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    sections = {found["title"]: _BLOCK.findall(found["text"]) for found in _SECTION.finditer(page)}
    with tempfile.TemporaryDirectory(prefix="pydeper-first-") as folder:
        clone, work = Path(folder) / "pydeper", Path(folder) / "work"
        work.mkdir()
        install = next(text for language, text in sections["Install it"] if language == "console")
        script = "\n".join(text for language, text in sections["Use it"] if language == "python")
        seconds = {
            "clone": _run(["git", "clone", "--quiet", str(ROOT), str(clone)], Path(folder)),
            "install": _run(["bash", "-e", "-c", install], clone),
            "make a persona and describe with it": _run([str(clone / ".venv/bin/python"), "-c", script], work),
        }
        if not (work / PERSONA).is_file():
            raise SystemExit(f"the quick start made no {PERSONA}")
    seconds["together"] = sum(seconds.values())
    print(format_table({step: {"seconds": value} for step, value in seconds.items()}))


def _run(command: list[str], folder: Path) -> float:
    """Runs a command; returns how many seconds it took."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    write_any_text()
    main()
