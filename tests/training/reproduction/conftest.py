"""Experiments in miniature: small random models in place of the paper's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training_run import small_config
from training.cli.main import main

Reproduce = Callable[..., int]


@pytest.fixture
def reproduce(wide_context: Path, tmp_path: Path) -> Reproduce:
    """Runs DEPER for a few steps in an experiment of the paper; returns the command's exit status."""

    def run(experiment: str, data: Path, *more: str) -> int:
        config = small_config(wide_context, tmp_path / f"{experiment}.toml")
        settings = ("stage1.steps=2", "stage2.steps=1", "stage1.evaluate_every=1")
        changes = [word for setting in settings for word in ("--set", setting)]
        limits = ["--max-new-tokens", "3", "--metrics", "BLEU-4", "--tokenizer", "words", "--systems", "DEPER"]
        return main(
            ["reproduce", str(config), "--data", str(data), "--out", str(tmp_path / "run"), *limits, *changes, *more]
        )

    return run
