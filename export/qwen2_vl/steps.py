"""Steps of a long export: what each one made is kept until all are finished, so that an interrupted export resumes."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.graphs.parity import ParityError

Step = Callable[[Path], dict[str, float]]
"""Writes its files into the folder that it is given, and returns figures about them."""


def source_key(source: str | Path, settings: list[Any]) -> str:
    """Returns a hash of a source's files, where it is a folder, and of all settings: the key for `working_folder`."""
    folder = Path(source)
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"] if folder.is_dir() else []
    known = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([str(source), known, settings]).encode()).hexdigest()[:16]


@contextmanager
def working_folder(out_dir: Path, key: str | None) -> Iterator[Path]:
    """Makes a hidden folder inside `out_dir` for the results of finished steps, and removes it after the last one.

    Args:
        out_dir: The export's folder.
        key: Identifies the source and the settings. After an error the folder stays if it holds a finished step, and
            the next export with the same key finds it; after a `ParityError` it does not stay, since the same steps
            would fail in the same way. With None it never stays.
    """
    if key is None:
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".export-") as folder:
            yield Path(folder)
        return
    kept = out_dir / f".export-{key}"
    kept.mkdir(exist_ok=True)
    try:
        yield kept
    except ParityError:
        shutil.rmtree(kept, ignore_errors=True)
        raise
    except BaseException:
        if not any(kept.glob("*.json")):
            shutil.rmtree(kept, ignore_errors=True)
        raise
    shutil.rmtree(kept, ignore_errors=True)


def run_steps(work: Path, steps: Mapping[str, Step], progress: Callable[[str], None]) -> dict[str, float]:
    """Runs the steps that are not finished yet, in order; a step's files lie in `work/NAME`.

    Args:
        work: Where finished steps are kept, see `working_folder`.
        steps: The steps by name.
        progress: Is called with the number and the name of each step before it begins.

    Returns:
        The figures of all steps.
    """
    figures: dict[str, float] = {}
    for number, (name, step) in enumerate(steps.items(), 1):
        report = work / f"{name}.json"
        if report.is_file():
            progress(f"{number}/{len(steps)} {name}: done before")
        else:
            progress(f"{number}/{len(steps)} {name}")
            _finish_step(step, work / name, report)
        figures |= json.loads(report.read_text(encoding="utf-8"))
    return figures


def _finish_step(step: Step, folder: Path, report: Path) -> None:
    """Runs one step; its report appears last, so a step with a report is finished."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        figures = step(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half-written files may be what fills the disk
        raise
    unfinished = report.with_suffix(".part")
    unfinished.write_text(json.dumps(figures), encoding="utf-8")
    unfinished.replace(report)
