"""Who is asked what: each person's samples to learn from, and those whose descriptions are to be predicted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.samples.sample import Sample
from training.evaluation.predictions import Prediction, References, image_name
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN


@attrs.frozen(eq=False)
class Question:
    """A person is asked to describe an image.

    Attributes:
        sample: The person's own sample of that image.
        unanswered: What will be scored; its `system` and `prediction` are still empty.
    """

    sample: Sample
    unanswered: Prediction


@attrs.frozen(eq=False)
class Person:
    """One person.

    Attributes:
        name: The samples' subject.
        known: What a system may learn the person from: at least one sample, each with a description.
        asked: At least one question.
        seen: Whether `known` are training samples; else they are the support samples of an unseen person.
    """

    name: str
    known: tuple[Sample, ...]
    asked: tuple[Question, ...]
    seen: bool


def people_of(samples: Iterable[Sample], references: References) -> list[Person]:
    """All who are asked something, seen people first, each group by name.

    Seen people are known from the split "train" and asked about "test", unseen ones from "support" and about "query";
    samples without a description serve neither.

    Raises:
        InvalidSampleError: Nobody is asked anything, or somebody is asked of whom nothing is known.
    """
    parts: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.description is not None:
            parts[str(sample.split)][str(sample.subject)].append(sample)
    people = []
    for known, asked in ((TRAIN, TEST), (SUPPORT, QUERY)):
        for name in sorted(parts[asked]):
            if not parts[known][name]:
                raise InvalidSampleError(
                    f"{references.path}: subject {name!r} has no described sample of split {known!r} to be known from"
                )
            questions = tuple(_question(sample, references) for sample in parts[asked][name])
            people.append(Person(name, tuple(parts[known][name]), questions, seen=known == TRAIN))
    if not people:
        raise InvalidSampleError(
            f"{references.path}: holds no described sample of split {TEST!r} or {QUERY!r}; divide them into parts"
        )
    return people


def descriptions(samples: Sequence[Sample]) -> list[str]:
    """The texts of samples that all have one."""
    return [str(sample.description) for sample in samples]


def _question(sample: Sample, references: References) -> Question:
    unanswered = Prediction(
        dataset=references.dataset_of(sample),
        system="",
        image=image_name(sample.image, references.path.parent),
        subject=str(sample.subject),
        prediction="",
        reference=str(sample.description),
    )
    return Question(sample, unanswered)
