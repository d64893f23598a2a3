"""The stand-in of Qwen2-VL's repository as a bundle takes it over, and a VLM in every precision."""

import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLConfig

from export.qwen2_vl.tokenizer import bundle_tokenizer, vision_config
from pydeper.bundle.config import VLMConfig
from tests.export.qwen2_vl.uneven_vlm import exported, uneven_vlm
from training.vlm.steered_vlm import vlm_config

__all__ = ["exported", "uneven_vlm"]

ROWS = 151_936


@pytest.fixture(scope="session")
def qwen(standin: Path) -> Tokenizer:
    return bundle_tokenizer(standin, vocab_size=ROWS)


@pytest.fixture(scope="session")
def theirs(standin: Path) -> PreTrainedTokenizerBase:
    """transformers' tokenizer, from vocab.json and merges.txt alone."""
    loaded = AutoTokenizer.from_pretrained(standin)
    loaded.add_tokens([AddedToken("<subj>", special=True, normalized=False)], special_tokens=True)
    return loaded


@pytest.fixture(scope="session")
def config(standin: Path, qwen: Tokenizer) -> VLMConfig:
    return vlm_config(Qwen2VLConfig.from_pretrained(standin), qwen, vision_config(standin), base_model="random/small")


@pytest.fixture
def copied(standin: Path, tmp_path: Path) -> Path:
    """The repository without its weights, to be damaged."""
    return shutil.copytree(standin, tmp_path / "copy", ignore=shutil.ignore_patterns("model*"))
