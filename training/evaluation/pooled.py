"""Systems that answered several times, such as once a training or once a draw: all of their answers together."""

from collections.abc import Mapping, Sequence

import attrs

from training.evaluation.predictions import Prediction


@attrs.frozen
class Pooled:
    """The columns that `training.evaluation.scores.score_systems` takes; each repetition has images of its own.

    So a person's answers of all repetitions are drawn together by the bootstrap, and CLS compares answers of one
    repetition alone.

    Attributes:
        images: n image ids.
        subjects: n person ids.
        references: n texts that the people wrote.
        texts: System -> n predictions.
    """

    images: list[str]
    subjects: list[str]
    references: list[str]
    texts: dict[str, list[str]]

    @classmethod
    def of(cls, answers: Mapping[str, Sequence[Sequence[Prediction]]]) -> "Pooled":
        """Puts repetitions one after the other.

        Args:
            answers: System -> for each repetition, its predictions; all systems have as many, in one order.
        """
        repetitions = list(next(iter(answers.values())))
        rows = [(number, row) for number, predictions in enumerate(repetitions) for row in predictions]
        return cls(
            images=[f"{number}/{row.image}" for number, row in rows],
            subjects=[row.subject for _, row in rows],
            references=[row.reference for _, row in rows],
            texts={
                system: [row.prediction for predictions in own for row in predictions]
                for system, own in answers.items()
            },
        )
