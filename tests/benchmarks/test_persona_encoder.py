"""What the benchmark of the persona encoder works on, and how it judges."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks import persona_encoder
from benchmarks.persona_encoder import CONFIG, FIXATIONS, SAMPLES, VOCABULARY, WORDS, agreement, make_samples
from pydeper import read_samples
from pydeper.persona.preprocess import encode_sample


def test_five_samples_as_the_sdk_reads_them(tmp_path: Path) -> None:
    make_samples(tmp_path, 160, 120)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == VOCABULARY
    samples = read_samples(tmp_path / "samples.jsonl")
    assert len(samples) == SAMPLES
    for sample in samples:
        assert sample.open_image().size == (160, 120)
        encoded = encode_sample(sample, tokenizer, CONFIG)
        assert encoded.input_ids.shape == (WORDS,)
        assert len(np.unique(encoded.input_ids)) > WORDS // 2
        assert encoded.boxes.shape == (FIXATIONS, 4)
        # Like a photograph: much contrast, little of it between neighbours.
        pixels = encoded.pixel_values
        assert pixels is not None
        assert 4 * np.abs(np.diff(pixels)).mean() < pixels.std()


def test_agreement_is_measured_by_what_tells_samples_apart() -> None:
    exact = np.array([[10.0, 1, 0], [10, 0, 1], [10, 0, 0]])
    assert agreement(exact, exact) == {"cosine": pytest.approx(1), "error / distance of samples": 0}
    found = exact + np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 0.5]])
    figures = agreement(found, exact)
    assert figures["cosine"] == pytest.approx(10 / 100.25**0.5)
    assert figures["error / distance of samples"] == pytest.approx(0.5 / ((2**0.5 + 1 + 1) / 3))


@pytest.mark.slow  # exports the network of the true size
@pytest.mark.timeout(300)
def test_every_side_makes_the_same_personas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figures.json"
    command = ["persona_encoder", "--precision", "int8", "--photograph", "160", "120", "--runs", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--json", str(file)])
    persona_encoder.main()
    figures = json.loads(file.read_text())["persona"]
    assert list(figures) == ["torch fp32", "torch bf16", "ONNX int8"]
    assert figures["ONNX int8"]["cosine"] > 0.99
    assert figures["ONNX int8"]["load s"] > 0
