"""Does a description follow its person's way of looking? For drawn scenes, where every mention is a known object."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_lengths


@attrs.frozen(eq=False)
class ViewingAgreement:
    """Counts by sample, so that rates pool over a corpus and can be resampled by person.

    Attributes:
        first_correct: (n,) 1 where the candidate's first mention is the reference's.
        first_total: (n,) 1 where the reference mentions anything.
        orders_correct: (n,) pairs of objects that the candidate mentions in the reference's order.
        orders_total: (n,) pairs of objects that both mention.
    """

    first_correct: NDArray[np.float64]
    first_total: NDArray[np.float64]
    orders_correct: NDArray[np.float64]
    orders_total: NDArray[np.float64]

    @property
    def first(self) -> float | None:
        """Accuracy of the first object, in [0, 1]; None where no reference mentions anything."""
        return _rate(self.first_correct, self.first_total)

    @property
    def order(self) -> float | None:
        """Accuracy of the pairwise orders, pooled over the corpus, in [0, 1]; None where no pair can be compared.

        Chance is 0.5. Pairs that the candidate leaves out do not count, so read it beside `orders_total`.
        """
        return _rate(self.orders_correct, self.orders_total)


def viewing_agreement(
    candidates: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]
) -> ViewingAgreement:
    """Compares n sequences of mentions with one reference each.

    First object: the candidate's first mention equals the reference's; a candidate without mentions is wrong. Order:
    over every two objects that both sequences mention, whether their first mentions come in the same order.

    Raises:
        InvalidArgumentError: If the lists differ in length or are empty, or a sequence is a string.
    """
    check_lengths(candidates=candidates, references=references)
    for name, sequences in (("candidates", candidates), ("references", references)):
        for index, sequence in enumerate(sequences):
            if isinstance(sequence, str):
                raise InvalidArgumentError(
                    f"{name}[{index}] is the string {sequence!r:.80}, not a sequence of mentions"
                )
    rows = []
    for candidate, reference in zip(candidates, references, strict=True):
        place = {mention: index for index, mention in reversed(list(enumerate(candidate)))}
        common = [mention for mention in dict.fromkeys(reference) if mention in place]
        orders = [place[earlier] < place[later] for earlier, later in combinations(common, 2)]
        first_correct = len(reference) > 0 and len(candidate) > 0 and candidate[0] == reference[0]
        rows.append((first_correct, len(reference) > 0, sum(orders), len(orders)))
    return ViewingAgreement(*np.array(rows, dtype=np.float64).T)


def _rate(correct: NDArray[np.float64], totals: NDArray[np.float64]) -> float | None:
    total = totals.sum()
    return float(correct.sum() / total) if total else None
