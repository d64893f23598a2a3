"""MITR fine-tuned per person: all weights of a copy of the base, on what one person has described.

The paper's table has a row of this name, and how it was made is not published. This is ours: seen people have epochs of
their training samples, of which the best by their own samples of "val" is kept; unseen people have a few steps on their
support samples. What is kept for good are the predictions: a person's weights go when the next person's turn comes.
"""

import copy
import hashlib
from pathlib import Path

import attrs

from training.baselines.mitr.examples import Examples
from training.baselines.mitr.network import MITR
from training.baselines.mitr.training import fit
from training.baselines.targets import Person, known_digest
from training.config import MITRConfig
from training.loop.checkpoints import BEST, CHECKPOINT


def fine_tune(
    base: MITR, person: Person, config: MITRConfig, known: Examples, validation: Examples, seed: int, folder: Path
) -> MITR:
    """Fine-tunes a copy of the base for one person, or goes on where an interrupted run left off.

    Args:
        base: Stays as it is.
        person: Who is learned from.
        config: Settings of MITR.
        known: The person's known samples.
        validation: The person's samples of "val"; may be empty. Those of an unseen person are not read.
        seed: Seed of batches and dropout.
        folder: Gets a folder for the person, with checkpoints and logs. The folders of others lose their checkpoints.

    Returns:
        The person's network.

    Raises:
        TrainingError: The person's folder holds another training, or the loss is not finite.
    """
    own = folder / folder_name(person.name)
    for other in folder.glob("*/"):
        if other != own:
            (other / CHECKPOINT).unlink(missing_ok=True)
            (other / BEST).unlink(missing_ok=True)
    network = copy.deepcopy(base)
    settings = fine_tuning_settings(config, len(known), seen=person.seen, validate=len(validation) > 0)
    fit(f"MITR of {person.name}", network, settings, known, validation, seed, own, known_digest([person]))
    return network


def fine_tuning_settings(config: MITRConfig, samples: int, *, seen: bool, validate: bool) -> MITRConfig:
    """The settings of one person's training.

    Args:
        config: Settings of MITR.
        samples: How many the person is known from.
        seen: Whether they are training samples, else support samples of an unseen person.
        validate: Whether the person has samples of "val".
    """
    epoch = -(-samples // config.batch_size)
    epochs = config.fine_tuning_epochs if validate else config.epochs_without_val
    return attrs.evolve(
        config,
        steps=epochs * epoch if seen else config.unseen_steps,
        batch_size=min(config.batch_size, samples),
        accumulation=1,
        learning_rate=config.fine_tuning_rate,
        warmup=0.0,
        final_rate=1.0,
        evaluate_every=epoch if seen and validate else 0,
    )


def folder_name(person: str) -> str:
    """A folder's name for a person, whatever characters the person's name has."""
    return hashlib.sha256(person.encode()).hexdigest()[:16]
