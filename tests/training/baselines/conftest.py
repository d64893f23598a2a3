"""Three people who described drawn images, two of them seen in training, and a small random VLM."""

from pathlib import Path

import attrs
import pytest

import pydeper
from pydeper import Sample
from pydeper.readers import write_samples
from tests.support.images import random_image
from tests.support.small_vlm import PROMPTS
from training.baselines.targets import Person, people_of
from training.evaluation.predictions import References
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN
from training.vlm.steered_vlm import SteeredVLM, vision_config, vlm_config

STYLE = "description"
NEW = 6
WORDS = {"ana": "a red circle and a red square", "ben": "style of this photo", "cem": "blue blue blue circle"}


@pytest.fixture(scope="module")
def steered(torch_vlm, tokenizer) -> SteeredVLM:
    torch_vlm.requires_grad_(False)
    config = vlm_config(torch_vlm.config, tokenizer, vision_config(torch_vlm.config, None), base_model="random")
    return SteeredVLM(torch_vlm, tokenizer, attrs.evolve(config, max_positions=2000), PROMPTS)


@pytest.fixture(scope="module")
def samples_file(tmp_path_factory) -> Path:
    """Ana and ben are seen, cem is not; all three described the two last of six images."""
    folder = tmp_path_factory.mktemp("samples")
    for number in range(8):
        random_image(60 + 5 * number, 60, number).save(folder / f"{number}.png")
    samples = [
        Sample(folder / f"{number}.png", f"{text} {number}", subject=name, split=split)
        for name, text in WORDS.items()
        for split, numbers in {
            TRAIN if name != "cem" else SUPPORT: range(6),
            TEST if name != "cem" else QUERY: range(6, 8),
        }.items()
        for number in numbers
    ]
    write_samples(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


@pytest.fixture(scope="module")
def people(samples_file) -> list[Person]:
    samples = pydeper.read_samples(samples_file)
    return people_of(samples, References.of(samples_file, samples, "drawn"))
