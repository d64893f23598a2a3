"""The frozen parts: what is loaded, and what does not fit."""

import pytest

from pydeper.errors import InvalidSampleError
from tests.support.training_run import read
from training.config import ConfigError
from training.errors import TrainingError
from training.runs import standins
from training.runs.frozen_parts import FrozenParts
from training.runs.train_stages import train_stage1


def test_the_subject_token_gets_the_next_free_row(config_file, parts, tokenizer):
    loaded = FrozenParts.load(read(config_file))
    assert loaded.tokenizer.token_to_id("<subj>") == tokenizer.token_to_id("<subj>") < len(loaded.text_table.weight)
    assert loaded.preprocessing.image_mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("samples=nowhere.jsonl", InvalidSampleError, "nowhere.jsonl: cannot be read"),
        ("image_encoder=./nowhere", TrainingError, "image_encoder: './nowhere' cannot be loaded"),
        ("vlm=./nowhere", TrainingError, "vlm: './nowhere' cannot be loaded"),
        ("vlm=standin:gpt", standins.StandinError, "vlm: there is no stand-in 'standin:gpt'"),
        ("image_encoder=standin:resnet", standins.StandinError, "there is no stand-in 'standin:resnet'"),
        ("network.grid_size=14", ConfigError, "network.grid_size is 14, and must be 7"),
        ("network.text_channels=32", ConfigError, "network.text_channels is 32, and must be 64"),
    ],
)
def test_what_does_not_fit_is_named(config_file, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        train_stage1(read(config_file, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_encoder_must_say_how_pixels_are_normalised(config_file, parts, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((parts / "encoder" / name).read_bytes())
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5]}')
    with pytest.raises(TrainingError, match=r"image_mean must be 3 numbers, got \[0.5, 0.5\]"):
        train_stage1(read(config_file, f"image_encoder={folder}"), tmp_path / "out")
