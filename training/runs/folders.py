"""What a run's folder holds."""

from pathlib import Path

CONFIG = "config.json"
"""The configuration that a stage was trained with, in the stage's folder."""


def stage1_folder(folder: Path) -> Path:
    """Where stage 1 keeps its checkpoint and log."""
    return folder / "stage-1"


def stage2_folder(folder: Path) -> Path:
    """Where stage 2 keeps its checkpoint and log."""
    return folder / "stage-2"
