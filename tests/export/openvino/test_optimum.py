"""The real Optimum exports, and pydeper says what transformers says; run by `make test-optimum`."""

import os
from pathlib import Path

import pytest

from benchmarks.standin import write_standin
from export.__main__ import main
from export.openvino.optimum import VARIABLE
from export.qwen2_vl.folder import read_vlm_folder
from pydeper.bundle.config import Precision
from pydeper.vlm import DecodingOptions, open_vlm
from tests.support.images import random_image
from tests.support.paths import ROOT
from tests.support.small_vlm import PROMPTS

pytestmark = [
    pytest.mark.optimum,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"needs Optimum: make test-optimum (${VARIABLE})"),
    pytest.mark.timeout(1800),
]

GREEDY = DecodingOptions(max_new_tokens=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin(tmp_path_factory.mktemp("hub") / "Qwen2-VL-Small", "served")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_an_export_says_what_transformers_says(
    source: Path,
    tmp_path: Path,
    precision: Precision,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The command compares features and logits with transformers; here greedy tokens are, with our own export's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "support" / "torchvision_startup"))
    out = tmp_path / "vlm"
    arguments = ["vlm", str(source), "--out", str(out), "--any-size", "--precision"]
    assert main([*arguments, precision, "--runtime", "openvino"]) == 0
    assert "logits, smallest cosine with transformers" in capfd.readouterr().out
    config, tokenizer = read_vlm_folder(out)
    vlm = open_vlm(out, config, PROMPTS, tokenizer, runtime="openvino", threads=1)
    found = vlm.generate(vlm.encode_image(random_image(84, 84)), "description", None, GREEDY)
    assert found[0].token_ids
    if precision == "fp32":
        assert main([*arguments, precision]) == 0
        ours = open_vlm(out, config, PROMPTS, tokenizer, runtime="onnxruntime", threads=1)
        assert ours.generate(ours.encode_image(random_image(84, 84)), "description", None, GREEDY) == found
