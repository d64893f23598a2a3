"""Each person's known samples, and the targets: samples whose descriptions are to be predicted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.samples.sample import Sample
from training.data.digest import samples_digest
from training.evaluation.predictions import Prediction, References, image_name
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN


@attrs.frozen(eq=False)
class Target:
    """A description that is to be predicted.

    Attributes:
        sample: The person's own sample of that image.
        pending: What will be scored; its `system` and `prediction` are still empty.
    """

    sample: Sample
    pending: Prediction


@attrs.frozen(eq=False)
class Person:
    """One person.

    Attributes:
        name: The samples' subject.
        known: What a system may learn the person from: at least one sample, each with a description.
        targets: At least one.
        seen: Whether `known` are training samples; else they are the support samples of an unseen person.
    """

    name: str
    known: tuple[Sample, ...]
    targets: tuple[Target, ...]
    seen: bool


def known_digest(people: Iterable[Person]) -> str:
    """A digest of what people are known from; see `training.data.digest`."""
    return samples_digest(sample for person in people for sample in person.known)


def people_of(samples: Iterable[Sample], references: References) -> list[Person]:
    """All who have targets, seen people first, each group by name.

    Seen people are known from the split "train" and have targets of "test", unseen ones from "support" and of "query";
    samples without a description are neither.

    Raises:
        InvalidSampleError: Nobody has a target, or somebody who has one has no known sample.
    """
    parts: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.description is not None:
            parts[str(sample.split)][str(sample.subject)].append(sample)
    people = []
    for known, target in ((TRAIN, TEST), (SUPPORT, QUERY)):
        for name in sorted(parts[target]):
            if not parts[known][name]:
                raise InvalidSampleError(
                    f"{references.path}: subject {name!r} has no described sample of split {known!r} to be known from"
                )
            targets = tuple(_target(sample, references) for sample in parts[target][name])
            people.append(Person(name, tuple(parts[known][name]), targets, seen=known == TRAIN))
    if not people:
        raise InvalidSampleError(
            f"{references.path}: holds no described sample of split {TEST!r} or {QUERY!r}; divide them into parts"
        )
    return people


def descriptions(samples: Sequence[Sample]) -> list[str]:
    """The texts of samples that all have one."""
    return [str(sample.description) for sample in samples]


def _target(sample: Sample, references: References) -> Target:
    pending = Prediction(
        dataset=references.dataset_of(sample),
        system="",
        image=image_name(sample.image, references.path.parent),
        subject=str(sample.subject),
        prediction="",
        reference=str(sample.description),
    )
    return Target(sample, pending)
