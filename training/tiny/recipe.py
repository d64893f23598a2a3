"""`python -m training table --recipe`: what makes looking reach unseen people, one choice changed at a time.

Everything is as in `python -m training tiny`, the frozen parts, the people who are evaluated and the scenes that they
describe included; a variant trains both stages with other settings, or on other people out of those for training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs

from training.config import load_config
from training.evaluation.predictions import Prediction
from training.evaluation.scores import METRICS
from training.tiny import table
from training.tiny.config import TinyConfig, ViewersConfig
from training.tiny.table_scores import write_tables

NAME = "tiny-recipe"
RECIPE = "the recipe"

Chosen = Callable[[ViewersConfig, int], bool]
"""The configuration and the number of a person for training -> whether they are trained on."""


@attrs.frozen
class Variant:
    """The recipe with one choice changed.

    Attributes:
        settings: What `--set` would be given.
        people: Who is trained on; None: everybody.
    """

    settings: tuple[str, ...] = ()
    people: Chosen | None = None


def _one_of_each_group(viewers: ViewersConfig, number: int) -> bool:
    return number % viewers.orders_per_group == 0


def _as_many_in_groups(viewers: ViewersConfig, number: int) -> bool:
    """Whole groups, and about as many people as there are groups."""
    return number < max(1, round(viewers.groups / viewers.orders_per_group)) * viewers.orders_per_group


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        RECIPE: Variant(),
        "an eighth of the people, in groups": Variant(people=_as_many_in_groups),
        "an eighth of the people, one of each group": Variant(people=_one_of_each_group),
        "sinusoids for kinematics": Variant(("network.kinematics=false",)),
        "AdamW for Muon": Variant(("stage1.muon_learning_rate=0",)),
        "dropout of 0.1": Variant(("network.dropout=0.1",)),
        "no contrast": Variant(("stage1.contrastive_weight=0", "stage2.contrastive_weight=0")),
        "no modality dropout": Variant(("stage1.modality_dropout=0", "stage2.modality_dropout=0")),
    }
)
"""By name; the first is what the built-in model is trained with."""


def run(
    config_file: Path,
    changes: Sequence[str],
    frozen: Path,
    folder: Path,
    report: Path,
    *,
    seeds: int = 3,
    metrics: Sequence[str] = METRICS,
) -> None:
    """Trains all variants and writes `tiny-recipe`, for people not seen in training, with differences.

    Args:
        config_file: A configuration of the tiny model.
        changes: Changes to it, as after `--set`, for every variant.
        frozen: Folder of the tiny model's frozen parts.
        folder: Gets trainings and predictions, one folder a variant and seed.
        report: Gets the tables.
        seeds: How many trainings of each variant.
        metrics: Some of `training.evaluation.scores.METRICS`, beside what is looked at and in which order.

    Raises:
        PydeperError: Of the setting, folder or training that is at fault.
    """
    table.check_request(report, NAME, seeds, metrics)
    config = load_config(TinyConfig, config_file, changes)
    whole = table.World.make(config, frozen)
    whole = attrs.evolve(whole, evaluated=[person for person in whole.evaluated if not person.seen])
    whole = attrs.evolve(whole, known=whole.encode([s for person in whole.evaluated for s in person.known]))
    answers: dict[str, list[list[Prediction]]] = {}
    for name, variant in VARIANTS.items():
        varied = load_config(TinyConfig, config_file, [*changes, *variant.settings])
        world = whole if variant.people is None else _trained_on(whole, config.viewers, variant.people)
        for seed in range(seeds):
            print(f"{name}, seed {seed}", flush=True)
            answers.setdefault(name, []).append(table.answer(world, varied, f"{table.DEPER}, {name}", seed, folder))
    facts = {
        "command": table.command(seeds, [("--metrics", metrics, METRICS)], changes, "--recipe"),
        "trainings": f"{seeds} of each variant",
        "people": f"{len(whole.people.seen)} seen in training, or some of them; {len(whole.evaluated)} unseen",
        **table.facts_of(config),
    }
    write_tables(report, NAME, answers, facts, metrics, reference=RECIPE)


def _trained_on(world: table.World, viewers: ViewersConfig, chosen: Chosen) -> table.World:
    """The world with fewer people to train on."""
    names = {viewer.name for number, viewer in enumerate(world.people.seen) if chosen(viewers, number)}
    return attrs.evolve(world, training=world.encode([s for s in world.people.training if s.subject in names]))
