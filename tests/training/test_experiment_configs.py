"""The configurations of the paper's experiments: its sizes, its rates, its epochs."""

import tomllib

import attrs
import pytest

from tests.support.paths import CONFIGS
from training.baselines.ablations import settings_of
from training.config import ConfigError, TrainingConfig, load_config
from training.network import NetworkConfig
from training.reproduce import ABLATED, DEPER, EXPERIMENTS, SYSTEMS

PAPER = tomllib.loads((CONFIGS.parent / "paper.toml").read_text(encoding="utf-8"))


def read(name: str, *changes: str) -> TrainingConfig:
    return load_config(TrainingConfig, CONFIGS / f"{name}.toml", ["samples=some.jsonl", *changes])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains_as_the_paper_says(name):
    config = read(name)
    assert config.name == name
    assert attrs.asdict(config.network) == attrs.asdict(NetworkConfig())
    assert (config.image_size, config.max_description_tokens) == (448, 256)
    assert config.vlm == "Qwen/Qwen2-VL-2B-Instruct"
    assert config.image_encoder == "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"
    assert config.stage2 is not None
    assert config.stage2.bf16
    assert config.stage2.adapter_learning_rate == 5e-4
    for stage in (config.stage1, config.stage2):
        assert (stage.learning_rate, stage.clip, stage.contrastive_weight, stage.temperature) == (5e-4, 1.0, 0.1, 0.07)
        assert (stage.bank_size, stage.modality_dropout) == (4096, 0.0)
    assert config.prompt_tuning is not None
    assert config.stage2.style == ("caption" if name in ("kollenda", "he") else "description")


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("coco-ln", 142_845 * 89 / 108 * 0.8),
        ("flickr30k-ln", 32_578 * 27 / 37 * 0.8),
        ("flickr30k-ln-100", 2_700),
        ("he", 4_000),
    ],
)
def test_steps_are_the_papers_epochs(name, samples):
    config = read(name)
    for stage, epochs in ((config.stage1, 30), (config.stage2, 20)):
        assert stage.steps * stage.batch_size * stage.accumulation / samples == pytest.approx(epochs, rel=0.03)


def test_the_people_are_those_of_the_paper():
    unseen = {name: source.unseen_people for name, source in EXPERIMENTS.items() if source.read}
    assert unseen == {"coco-ln": 19, "flickr30k-ln": 10, "flickr30k-ln-100": 10, "he": 0}
    assert EXPERIMENTS["flickr30k-ln-100"].training_samples == 100


def test_the_papers_figures_are_of_systems_and_data_that_there_are():
    names = {source.name for source in EXPERIMENTS.values()}
    elsewhere = {"CSMN", "MITR, fine-tuned per person"}
    for dataset, systems in PAPER.items():
        name, _, people = dataset.partition(", ")
        assert name in names
        assert people in ("seen", "unseen")
        assert set(systems) <= {*SYSTEMS, *ABLATED} | elsewhere
        for figures in systems.values():
            assert set(figures) <= {"BLEU-4", "CIDEr", "OSS", "CLS"}
            assert all(0 < value < 2 for value in figures.values())
    seen = PAPER["flickr30k-ln, seen"]
    assert set(ABLATED) <= set(seen)
    # What the paper claims: every part helps.
    assert all(seen[name]["CLS"] < seen[DEPER]["CLS"] for name in ABLATED)
    assert all(seen[name]["BLEU-4"] < seen[DEPER]["BLEU-4"] for name in ABLATED)


@pytest.mark.parametrize("name", ABLATED)
def test_every_experiment_can_be_ablated(name):
    changes = settings_of(name.removeprefix(f"{DEPER}, "))
    assert read("flickr30k-ln", *changes) != read("flickr30k-ln")


def test_samples_have_to_be_named():
    with pytest.raises(ConfigError, match="samples"):
        load_config(TrainingConfig, CONFIGS / "coco-ln.toml")
