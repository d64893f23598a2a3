"""What tests of the export share. Session fixtures are read-only: a test that changes files copies them first."""

import shutil
from pathlib import Path

import pytest
from transformers import Qwen2VLImageProcessorPil

from export.__main__ import main


@pytest.fixture(scope="session")
def exported_vlm(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m export vlm` makes, in fp32, of the VLM that `parts` holds in the Hub's layout."""
    folder = tmp_path_factory.mktemp("exported-vlm")
    source = shutil.copytree(parts / "vlm", folder / "source")
    Qwen2VLImageProcessorPil().save_pretrained(source)
    command = ["vlm", str(source), "--precision", "fp32", "--image-size", "224", "--out", str(folder / "vlm")]
    assert main(command) == 0
    return folder / "vlm"
