"""Configurations: strict keys, types and ranges, changes from the command line."""

from pathlib import Path

import pytest

from tests.support.paths import CONFIGS
from training.config import ConfigError, Stage1Config, load_config
from training.tiny.config import TinyConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_every_config_in_the_repository_can_be_read():
    assert load_config(TinyConfig, CONFIGS / "tiny.toml").network.subject_embedding_size == 384


def test_changes_are_applied_in_order(tmp_path):
    path = write(tmp_path, "steps = 5\nbatch_size = 2\n")
    config = load_config(Stage1Config, path, ["steps=7", "steps=9", "learning_rate=1e-4"])
    assert (config.steps, config.batch_size, config.learning_rate) == (9, 2, 1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 5\nstep = 3\n", r"unknown key step \(known: steps, "),
        ("batch_size = 5\n", r"missing key 'steps'"),
        ("steps = '5'\n", r"expected int, got '5'.*steps"),
        ("steps = true\n", r"expected int, got True"),
        ("steps = 5.5\n", r"expected int, got 5.5"),
        ("steps = 0\n", r"steps: must be > 0, got 0"),
        ("steps = 5\nmodality_dropout = 0.5\n", r"modality_dropout: must be in \[0, 0.5\)"),
        ("steps = 5\nclip = nan\n", r"clip: must be > 0, got nan"),
        ("steps = = 5\n", r"cannot be read as TOML"),
    ],
)
def test_a_wrong_config_is_an_error_that_names_file_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Stage1Config, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [("steps", "expected key=value"), ("=3", "expected key=value"), ("stage1.stepps=3", "unknown key stepps")],
)
def test_a_wrong_change_is_an_error(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TinyConfig, CONFIGS / "tiny.toml", [change])


def test_a_missing_config_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(TinyConfig, tmp_path / "none.toml")
