"""MITR from samples to descriptions: its words and boxes, the base for everybody, fine-tuning per person, its texts."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pydeper.samples.sample import Sample
from training.baselines.captioner import CaptionerInputs
from training.baselines.mitr.decoding import greedy
from training.baselines.mitr.examples import Examples
from training.baselines.mitr.fine_tuning import fine_tune
from training.baselines.mitr.network import MITR
from training.baselines.mitr.training import fit
from training.baselines.system import Describe
from training.baselines.targets import Person, Target, descriptions
from training.baselines.word_vocabulary import Vocabulary
from training.data.digest import samples_digest
from training.data.encoded import open_images
from training.data.images import distinct_images, image_identity
from training.errors import TrainingError


def mitr(inputs: CaptionerInputs) -> Describe:
    """Trains the base on the samples of seen people, or goes on where an interrupted run left off.

    It is the same for everybody, so it shows what fine-tuning adds.

    Args:
        inputs: What there is to learn from, and to describe.

    Returns:
        Describes images by greedy decoding, given the image alone.

    Raises:
        TrainingError: There is nothing to learn from, or the folder holds another training.
        InvalidImageError: An image cannot be read.
    """
    prepared = _Prepared(inputs)
    base = prepared.train_base()

    def describe(targets: Sequence[tuple[Person, Target]]) -> list[str]:
        return prepared.write(base, targets)

    return describe


def mitr_fine_tuned(inputs: CaptionerInputs) -> Describe:
    """Trains the base as `mitr` does, and fine-tunes it for each person when their first image is described.

    Args:
        inputs: What there is to learn from, and to describe.

    Returns:
        Describes images by greedy decoding; quick where the targets of a person come one after the other.

    Raises:
        TrainingError: There is nothing to learn from, or a folder holds another training.
        InvalidImageError: An image cannot be read.
    """
    prepared = _Prepared(inputs)
    base = prepared.train_base()
    current: dict[str, MITR] = {}

    def network_of(person: Person) -> MITR:
        if person.name not in current:
            current.clear()
            validation = [sample for sample in inputs.validation if person.seen and sample.subject == person.name]
            known, chosen_by = prepared.examples(person.known), prepared.examples(validation)
            folder = inputs.folder / "people"
            current[person.name] = fine_tune(base, person, inputs.mitr, known, chosen_by, inputs.seed, folder)
        return current[person.name]

    def describe(targets: Sequence[tuple[Person, Target]]) -> list[str]:
        texts: list[str] = []
        for _, group in itertools.groupby(targets, key=lambda pair: pair[0].name):
            own = list(group)
            texts += prepared.write(network_of(own[0][0]), own)
        return texts

    return describe


class _Prepared:
    """What the base and all people's networks have in common: the vocabulary, and the tokens of all images.

    Args:
        inputs: What there is to learn from, and to describe.
    """

    def __init__(self, inputs: CaptionerInputs) -> None:
        self._inputs = inputs
        self._vocabulary = Vocabulary.of(descriptions(inputs.training), min_count=inputs.mitr.min_count)
        if not self._vocabulary.words:
            raise TrainingError(
                f"MITR: no word occurs {inputs.mitr.min_count} times in the descriptions of seen people; it needs more "
                "samples of the split 'train', or a lower mitr.min_count"
            )
        own = [
            sample
            for person in inputs.people
            for sample in (*person.known, *(target.sample for target in person.targets))
        ]
        self._image_tokens_of = _image_tokens(inputs, [*inputs.training, *inputs.validation, *own])

    def train_base(self) -> MITR:
        inputs, config = self._inputs, self._inputs.mitr
        torch.manual_seed(inputs.seed)
        channels = self._image_tokens_of(inputs.training[:1]).shape[-1]
        network = MITR(config, len(self._vocabulary), channels).to(inputs.device)
        folder = inputs.folder / "base" if config.base is None else Path(config.base)
        training, validation = self.examples(inputs.training), self.examples(inputs.validation)
        samples = samples_digest(inputs.training) if config.base is None else None
        fit("MITR", network, config, training, validation, inputs.seed, folder, samples)
        return network

    def examples(self, samples: Sequence[Sample]) -> Examples:
        return Examples.of(
            samples,
            self._vocabulary,
            self._image_tokens_of,
            max_words=self._inputs.mitr.max_words,
            utterances_of=self._inputs.utterances_of,
        )

    def write(self, network: MITR, targets: Sequence[tuple[Person, Target]]) -> list[str]:
        image_tokens = self._image_tokens_of([target.sample for _, target in targets])
        return greedy(network, image_tokens, self._vocabulary, self._inputs.mitr.max_words)


def _image_tokens(inputs: CaptionerInputs, samples: Sequence[Sample]) -> Callable[[Sequence[Sample]], Tensor]:
    """Looks up the tokens of some samples' images, which are all computed first where they are not kept yet."""
    _, firsts = distinct_images(samples)
    numbers = {image_identity(sample): number for number, sample in enumerate(firsts)}
    features = inputs.load_image_features(open_images(firsts))
    features.fill(name="MITR: image features")
    return lambda some: torch.stack(features.of([numbers[image_identity(sample)] for sample in some]))
