"""What the benchmark of the persona encoder works on, and how it judges; its timing is not run here."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

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
