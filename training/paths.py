"""Where the repository keeps what the commands read and write by default."""

from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
"""The configurations of the paper's experiments and of the tiny model."""

RESULTS = Path(__file__).parents[1] / "docs" / "results"
"""The results that the docs show."""
