"""The benchmark of rounding, with a decoder of two layers in the place of SmolLM2."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.rounding import perplexity
from benchmarks.rounding.network import as_qwen2_vl, write_network

WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=70,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, *"user:", "-"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=special[1], eos_token=special[2], additional_special_tokens=special[:3]
    )


def test_a_llama_in_another_order_computes_the_same(
    llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_start|>", "<|vision_end|>"]})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]})
    model = as_qwen2_vl(llama, tokenizer)
    ids = torch.tensor([[5, 17, 33, 2, 60, 41, 9]])
    with torch.no_grad():
        ours, theirs = model(input_ids=ids).logits, llama(input_ids=ids).logits
    torch.testing.assert_close(ours[..., : theirs.shape[-1]], theirs, rtol=1e-4, atol=1e-4)
    one, other = (network.state_dict() for network in (model.model.language_model, llama.model))
    assert not torch.equal(one["layers.0.mlp.down_proj.weight"], other["layers.0.mlp.down_proj.weight"])


def test_rounding_is_measured_beside_float32(
    llama: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_network(tmp_path / "work/smollm2", llama, tokenizer)
    with pytest.raises(FileExistsError, match="exists already"):
        write_network(tmp_path / "work/smollm2", llama, tokenizer)
    samples = [
        {"image": "a.png", "subject": person, "description": " ".join(WORDS[start : start + 6])}
        for person in ("ana", "ben")
        for start in range(6)
    ]
    (tmp_path / "a.png").write_bytes(b"an image, which nothing opens")
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, samples)))
    rows = ["8 bits", "4 bits, blocks of 32 with offsets"]
    arguments = ["--samples", str(path), "--work", str(tmp_path / "work"), "--tokens", "4", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["perplexity", *arguments, "--variants", *rows, "--report", str(tmp_path)])
    perplexity.main()
    assert "perplexity" in capsys.readouterr().out
    report = json.loads((tmp_path / "rounding.json").read_text())
    assert list(report["results"]) == ["float32", *rows]
    assert report["facts"]["descriptions"] == 4
    exact, eight, four = (report["results"][row] for row in ("float32", *rows))
    assert exact["times float32's"]["value"] == exact["same next token"]["value"] == exact["same text"]["value"] == 1
    assert eight["times float32's"]["value"] == pytest.approx(1, abs=0.05)
    assert four["MB"]["value"] < eight["MB"]["value"] < exact["MB"]["value"]
