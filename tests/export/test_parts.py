"""The built-in model's frozen parts, back in PyTorch: `python -m export parts`."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import AutoModel

from export.__main__ import main
from export.adapter import export_adapter
from export.qwen2_vl.export import export_vlm
from export.restore import arrays, restore
from pydeper.bundle.layout import ADAPTER, BUILTIN
from training.config import load_config
from training.network import Adapter
from training.paths import CONFIGS
from training.tiny import make
from training.tiny.config import TinyConfig
from training.tiny.vlm import build_vlm, pretrain_vlm
from training.vlm.steered_vlm import SteeredVLM

BUNDLE = BUILTIN / "tiny"


def restored_adapter(size: int, folder: Path) -> Adapter:
    adapter = Adapter(size, 256)

    def export() -> dict[str, np.ndarray]:
        export_adapter(folder / ADAPTER, adapter, precision="fp16")
        return arrays(folder / ADAPTER)

    restore(adapter, arrays(BUNDLE / ADAPTER), export)
    return adapter


def test_a_module_gets_the_weights_of_its_graph_back(tmp_path: Path) -> None:
    adapter = restored_adapter(384, tmp_path)
    vectors = np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)
    (tokens,) = onnxruntime.InferenceSession(BUNDLE / ADAPTER).run(None, {"subject_embedding": vectors})
    with torch.no_grad():
        np.testing.assert_allclose(adapter(torch.from_numpy(vectors)), tokens, rtol=1e-4, atol=1e-4)


def test_the_graph_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"projection\.weight: .* is missing or of another size"):
        restored_adapter(128, tmp_path)


def test_a_weight_that_the_exporter_does_not_keep_is_named() -> None:
    with pytest.raises(ValueError, match=r"^weight: the exported graph holds this weight in no form"):
        restore(nn.Linear(2, 3), {}, dict)


def test_parts_replace_nothing_and_want_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parts", "--out", str(tmp_path)]) == 2
    assert "exists already; remove it, or choose another --out" in capsys.readouterr().err
    assert main(["parts", "--bundle", str(tmp_path), "--out", str(tmp_path / "parts")]) == 2
    assert "its weights cannot be read back" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    damaged = shutil.copytree(BUNDLE, tmp_path / "damaged")
    (damaged / "vlm" / "vision_encoder.onnx").write_bytes(b"no graph")
    assert main(["parts", "--bundle", str(damaged), "--out", str(tmp_path / "a" / "parts")]) == 2
    assert "damaged: its weights cannot be read back" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_parts_are_those_of_the_built_in_model(tmp_path: Path) -> None:
    parts, steps = tmp_path / "new" / "parts", ["--set", "vision.steps=7"]
    assert main(["parts", "--out", str(parts), *steps]) == 0
    config = load_config(TinyConfig, CONFIGS / "tiny.toml", steps[1:])

    # Exported again, the VLM's files are the bundle's to the last byte.
    vlm = build_vlm(config)
    loaded = type(vlm.model).from_pretrained(parts / "vlm")
    export_vlm(loaded, tmp_path / "vlm", store_fp16=True)
    for file in (BUNDLE / "vlm").iterdir():
        assert (tmp_path / "vlm" / file.name).read_bytes() == file.read_bytes(), file.name

    # And the recipe takes them for its own, rounded as it rounds.
    trained: SteeredVLM = pretrain_vlm(config, parts)
    loaded_weights = dict(loaded.named_parameters())
    for name, weight in trained.model.named_parameters():
        assert torch.equal(weight, loaded_weights[name].half().float()), name
    encoder, own = make.pretrain_image_encoder(config, parts), AutoModel.from_pretrained(parts / "image-encoder")
    pixels = torch.randn(2, 3, 192, 192)
    assert torch.equal(encoder(pixels).last_hidden_state, own.eval()(pixels).last_hidden_state)
    shutil.rmtree(parts)
