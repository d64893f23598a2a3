"""Where things lie in a clone."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
GOLDEN = ROOT / "tests" / "golden" / "format-1"
TINY = ROOT / "pydeper" / "builtin" / "tiny"
OPTIMUM = ROOT / "tests" / "golden" / "optimum"
