"""The configurations of the paper's experiments: its sizes, its rates, its epochs."""

import tomllib

import attrs
import pytest

from tests.support.paths import CONFIGS
from training.baselines.ablations import settings_of
from training.config import ConfigError, TrainingConfig, load_config
from training.loop.schedule import learning_rate_factor
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
        assert (stage.batch_size, stage.accumulation) == (64, 4)
        assert {learning_rate_factor(step, stage) for step in range(stage.steps)} == {1.0}
        # Some thirty and twenty evaluations, an epoch apart, on "val".
        assert stage.steps / stage.evaluate_every == pytest.approx(30 if stage is config.stage1 else 20, rel=0.06)
    for baseline in (config.csmn, config.mitr):
        assert baseline.steps / baseline.evaluate_every == pytest.approx(30, rel=0.06)
    assert config.mitr.steps * config.mitr.batch_size == pytest.approx(config.csmn.steps * 128, rel=0.03)
    assert config.stage1.selection == {"accuracy": 1.0}
    assert config.stage2.selection == {"bleu1": 0.1, "bleu4": 0.2, "rouge_l": 0.1, "meteor": 0.2, "cider": 0.2}
    assert config.prompt_tuning is not None
    assert config.stage2.style == ("caption" if name in ("kollenda", "he") else "description")


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        # The published training narratives of the seen people; 2 % of COCO's are for choosing a step.
        ("coco-ln", 134_272 * 89 / 108 * 0.98),
        ("flickr30k-ln", 30_546 * 27 / 37),
        ("flickr30k-ln-100", 2_700),
        ("he", 4_000),
    ],
)
def test_steps_are_the_papers_epochs(name, samples):
    config = read(name)
    for stage, epochs in ((config.stage1, 30), (config.stage2, 20), (config.csmn, 30), (config.mitr, 30)):
        assert stage.steps * stage.batch_size * stage.accumulation / samples == pytest.approx(epochs, rel=0.03)


def test_the_people_are_those_of_the_paper():
    unseen = {name: source.unseen_people for name, source in EXPERIMENTS.items()}
    # How many of Kollenda's people the paper holds out is not known: a fifth.
    assert unseen == {"coco-ln": 19, "flickr30k-ln": 10, "flickr30k-ln-100": 10, "kollenda": None, "he": 0}
    for source in EXPERIMENTS.values():
        for named in (source.unseen, source.unseen_released):
            assert not named or len(set(named)) == len(named) == source.unseen_people
    assert EXPERIMENTS["flickr30k-ln-100"].training_samples == 100


# BLEU-4, CIDEr, OSS and CLS as the paper prints them, a line a row of its tables.
PAPERS_TABLES = """
flickr30k-ln, seen   | zero-shot                   | .024 .004 .133 -
flickr30k-ln, seen   | MITR, fine-tuned per person | .101 .094 .224 .427
flickr30k-ln, seen   | CSMN                        | .010 .003 .070 .459
flickr30k-ln, seen   | prompt-tuning               | .135 .498 .320 .563
flickr30k-ln, seen   | DEPER                       | .312 .789 .408 .796
flickr30k-ln, seen   | DEPER, text only            | .222 .770 .379 .649
flickr30k-ln, seen   | DEPER, no dynamics          | .276 .748 .378 .731
flickr30k-ln, seen   | DEPER, no reconstruction    | .230 .774 .381 .724
flickr30k-ln, seen   | DEPER, no dual context      | .229 .729 .380 .731
flickr30k-ln, seen   | DEPER, no trajectory latent | .272 .745 .391 .750
flickr30k-ln, seen   | DEPER, no contrast          | .228 .743 .386 .722
flickr30k-ln, seen   | DEPER, no FiLM              | .270 .723 .394 .768
flickr30k-ln, unseen | prompt-tuning               | .074 .338 .278 .479
flickr30k-ln, unseen | DEPER                       | .202 .382 .329 .625
coco-ln, unseen      | few-shot                    | .071 .077 .142 .406
coco-ln, unseen      | DEPER                       | .164 .453 .330 .445
kollenda, unseen     | few-shot                    | .063 .538 .272 .151
kollenda, unseen     | DEPER                       | .143 1.053 .380 .157
"""


def test_the_papers_figures_are_those_of_its_tables():
    expected: dict[str, dict[str, dict[str, float]]] = {}
    for line in PAPERS_TABLES.strip().splitlines():
        people, system, figures = (part.strip() for part in line.split("|"))
        pairs = zip(("BLEU-4", "CIDEr", "OSS", "CLS"), figures.split(), strict=True)
        expected.setdefault(people, {})[system] = {metric: float(value) for metric, value in pairs if value != "-"}
    assert expected == PAPER


def test_the_papers_figures_are_of_systems_and_data_that_there_are():
    names = {source.name for source in EXPERIMENTS.values()}
    elsewhere = {"MITR, fine-tuned per person"}
    for dataset, systems in PAPER.items():
        name, _, people = dataset.partition(", ")
        assert name in names
        assert people in ("seen", "unseen")
        assert set(systems) <= {*SYSTEMS, *ABLATED} | elsewhere
    assert set(ABLATED) <= set(PAPER["flickr30k-ln, seen"])


@pytest.mark.parametrize("name", ABLATED)
def test_every_experiment_can_be_ablated(name):
    changes = settings_of(name.removeprefix(f"{DEPER}, "))
    assert read("flickr30k-ln", *changes) != read("flickr30k-ln")


def test_samples_have_to_be_named():
    with pytest.raises(ConfigError, match="samples"):
        load_config(TrainingConfig, CONFIGS / "coco-ln.toml")
