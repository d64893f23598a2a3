"""Importing a metric or a report loads none of the libraries that only some of them need."""

import subprocess
import sys
from pathlib import Path

import pytest

import training.evaluation
import training.metrics

HEAVY = ("torch", "spacy", "nltk", "sklearn", "scipy", "matplotlib")


@pytest.mark.parametrize("package", [training.metrics, training.evaluation], ids=lambda package: package.__name__)
def test_importing_a_metric_or_a_report_loads_nothing_heavy(package):
    modules = [f"{package.__name__}.{path.stem}" for path in sorted(Path(package.__file__).parent.glob("[a-z]*.py"))]
    code = "import sys\n" + "".join(f"import {module}\n" for module in modules)
    code += f"print(sorted({set(HEAVY)} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
