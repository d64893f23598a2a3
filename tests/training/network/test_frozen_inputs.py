"""What the network reads through and never trains: the image encoder and the VLM's text table."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from training.network import ImageEncoder, TextTable


@pytest.fixture(scope="module")
def backbone() -> DINOv3ConvNextModel:
    torch.manual_seed(3)
    return DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], drop_path_rate=0.5))


def test_the_image_encoder_is_the_last_feature_map(backbone: DINOv3ConvNextModel, tmp_path: Path) -> None:
    backbone.save_pretrained(tmp_path)
    encoder = ImageEncoder.from_pretrained(tmp_path).train()
    pixels = torch.randn(2, 3, 96, 96, requires_grad=True)
    tokens = encoder(pixels)
    assert tokens.shape == (2, 9, encoder.channels)
    assert not tokens.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    feature_map = pixels
    with torch.no_grad():
        for stage in encoder.backbone.model.stages:
            feature_map = stage(feature_map)
        for row in range(3):
            for column in range(3):
                expected = encoder.backbone.layer_norm(feature_map[:, :, row, column])
                torch.testing.assert_close(tokens[:, row * 3 + column], expected)


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "model.embed_tokens.weight", "model.language_model.embed_tokens.weight"]
)
@pytest.mark.parametrize("sharded", [False, True])
def test_the_text_table_reads_the_embeddings_alone(tmp_path: Path, name: str, sharded: bool) -> None:
    weight = torch.randn(7, 5).to(torch.bfloat16)
    if sharded:
        save_file({name: weight}, tmp_path / "model-00002-of-00002.safetensors")
        index = {
            "weight_map": {
                "lm_head.weight": "model-00001-of-00002.safetensors",
                name: "model-00002-of-00002.safetensors",
            }
        }
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    else:
        save_file({name: weight, "model.norm.weight": torch.ones(5)}, tmp_path / "model.safetensors")
    table = TextTable.from_pretrained(tmp_path)
    ids = torch.tensor([[0, 6, 3]])
    assert torch.equal(table(ids), weight[ids].float())
    assert table.channels == 5
    assert not table.state_dict()
    assert not list(table.parameters())


def test_the_text_table_is_found_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--org--vlm"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="org/vlm holds neither"):
        TextTable.from_pretrained("org/vlm")
    save_file({"embed_tokens.weight": torch.ones(3, 2)}, repository / "snapshots" / "abc" / "model.safetensors")
    assert TextTable.from_pretrained("org/vlm").weight.shape == (3, 2)


def test_a_text_table_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither"):
        TextTable.from_pretrained(tmp_path)
    index = {"weight_map": {"embed_tokens.weight": "gone.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"lacks gone\.safetensors"):
        TextTable.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(
        {"a.embed_tokens.weight": torch.ones(1, 1), "b.embed_tokens.weight": torch.ones(1, 1)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match="holds 2 tensors"):
        TextTable.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a text table is"):
        TextTable(torch.ones(3))
