"""Which model is used where none is named."""

import os
import re
import subprocess
import sys

import pytest

from pydeper import BundleError
from pydeper.bundle.bundle import open_bundle


def test_the_default_model_is_the_variables(stub_bundle, monkeypatch):
    monkeypatch.setenv("PYDEPER_MODEL", str(stub_bundle))
    assert open_bundle().folder == stub_bundle
    monkeypatch.setenv("PYDEPER_MODEL", "nobody")
    with pytest.raises(BundleError, match="there is no model 'nobody'"):
        open_bundle()


WITHOUT_A_NAME = """
import warnings
from pydeper.bundle.bundle import open_bundle

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        print(open_bundle().model_id)
for warning in caught:
    print(f"{warning.category.__name__} in {warning.filename}: {warning.message}")
"""


def test_the_demonstration_model_warns_once_in_a_process_and_only_when_unnamed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_A_NAME)

    def printed(**environment):
        done = subprocess.run(
            [sys.executable, program], env=os.environ | environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    *opened, warning = printed()
    assert opened == ["tiny", "tiny"]
    assert re.match(rf"DemonstrationModelWarning in {program}: .*from_pretrained\('org/name'\).*PYDEPER_MODEL", warning)
    assert printed(PYDEPER_MODEL="tiny") == ["tiny", "tiny"]
