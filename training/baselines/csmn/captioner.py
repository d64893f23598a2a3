"""CSMN from samples to descriptions: its words, what it knows of people, its training, its texts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pydeper.samples.sample import Sample
from training.baselines.captioner import CaptionerInputs
from training.baselines.csmn.decoding import greedy
from training.baselines.csmn.network import CSMN
from training.baselines.csmn.training import CSMNTask, Examples
from training.baselines.csmn.user_context import user_contexts
from training.baselines.system import Describe
from training.baselines.targets import Person, Target, descriptions
from training.baselines.word_vocabulary import Vocabulary
from training.data.digest import samples_digest
from training.data.encoded import open_images
from training.data.images import distinct_images, image_identity
from training.distributed.device import device_of
from training.distributed.process_group import accelerator_at
from training.errors import TrainingError
from training.loop.checkpoints import load_state
from training.loop.train import train
from training.progress import progress

_IMAGES_AT_ONCE = 32


def csmn(inputs: CaptionerInputs) -> Describe:
    """Trains CSMN on the samples of seen people, or goes on where an interrupted run left off.

    Args:
        inputs: What there is to learn from, and to describe.

    Returns:
        Describes images by greedy decoding.

    Raises:
        TrainingError: There is nothing to learn from, or the folder holds another training.
        InvalidImageError: An image cannot be read.
        MissingRequirementError: scikit-learn is not installed.
    """
    config = inputs.csmn
    vocabulary = Vocabulary.of(descriptions(inputs.training), config.vocabulary_size)
    if not vocabulary.words:
        raise TrainingError(
            "CSMN: no description of a seen person has a word to learn; it needs samples of the split 'train' with "
            "descriptions"
        )
    contexts = _contexts(inputs, vocabulary)
    targets = [target.sample for person in inputs.people for target in person.targets]
    features = _PooledFeatures(inputs, [*inputs.training, *inputs.validation, *targets])

    def examples(samples: Sequence[Sample]) -> Examples:
        if strangers := sorted({str(sample.subject) for sample in samples} - contexts.keys()):
            raise TrainingError(f"CSMN: validation is on seen people, and {strangers[0]!r} has no training sample")
        texts = [vocabulary.encode(text) for text in descriptions(samples)]
        own = [contexts[str(sample.subject)] for sample in samples]
        return Examples(features.of(samples), torch.stack(own) if own else torch.empty(0, 0), texts)

    training, validation = examples(inputs.training), examples(inputs.validation)
    torch.manual_seed(inputs.seed)
    max_words = config.max_words or _usual_length(training.texts)
    network = CSMN(len(vocabulary), training.images.shape[1], max_words, config).to(inputs.device)
    task = CSMNTask(network, config, training, validation, inputs.seed)
    folder, evaluate = inputs.folder / "training", task.evaluate if len(validation) else None
    samples = samples_digest(inputs.training)
    accelerator = accelerator_at(inputs.device)
    train(task, config, inputs.seed, folder, accelerator=accelerator, evaluate=evaluate, samples=samples)
    load_state(folder, network)
    network.eval()

    def describe(questions: Sequence[tuple[Person, Target]]) -> list[str]:
        images = features.of([target.sample for _, target in questions])
        own = torch.stack([contexts[person.name] for person, _ in questions])
        device = device_of(network)
        return [vocabulary.decode(text) for text in greedy(network, images.to(device), own.to(device))]

    return describe


def _contexts(inputs: CaptionerInputs, vocabulary: Vocabulary) -> Mapping[str, Tensor]:
    """The user context of everybody who is learned from or described for, by name."""
    seen: dict[str, list[str]] = defaultdict(list)
    for sample in inputs.training:
        seen[str(sample.subject)].append(str(sample.description))
    unseen = {person.name: descriptions(person.known) for person in inputs.people if not person.seen}
    everybody = seen | unseen
    contexts = user_contexts(everybody, list(seen.values()), vocabulary, inputs.csmn.user_words)
    return dict(zip(everybody, contexts, strict=True))


def _usual_length(texts: Sequence[Sequence[int]]) -> int:
    """The words, with the end, that 95 of 100 texts have at most."""
    return int(np.percentile([len(text) + 1 for text in texts], 95, method="higher"))


class _PooledFeatures:
    """One feature of each image: the mean of its tokens, in the place of the authors' pool5.

    Args:
        inputs: Load the image encoder.
        samples: All whose images will be looked up.
    """

    def __init__(self, inputs: CaptionerInputs, samples: Sequence[Sample]) -> None:
        _, firsts = distinct_images(samples)
        tokens = inputs.load_image_features(open_images(firsts))
        means = [
            tokens_of_one.mean(0)
            for start in progress(range(0, len(firsts), _IMAGES_AT_ONCE), "CSMN: images", "batches")
            for tokens_of_one in tokens.of(range(start, min(start + _IMAGES_AT_ONCE, len(firsts))))
        ]
        self._means = torch.stack(means)
        self._numbers = {image_identity(sample): number for number, sample in enumerate(firsts)}

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """(n, C) features of the samples' images."""
        return self._means[[self._numbers[image_identity(sample)] for sample in samples]]
