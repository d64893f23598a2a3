"""The caption metrics that choose a step."""

import pytest

from training.stages.checkpoint_selection import caption_figures


def test_whoever_describes_as_people_did_has_the_highest_figures():
    texts = ["a red circle, then a blue square", "the star is small"]
    figures = caption_figures(texts, texts, texts)
    assert figures == pytest.approx({"bleu1": 1, "bleu4": 1, "cider": 10, "rouge_l": 1})
    assert all(value < figures[name] for name, value in caption_figures(texts, texts[::-1], texts).items())
