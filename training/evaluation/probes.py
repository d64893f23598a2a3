"""Linear probes: what of a person can be read off a persona vector?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval, bootstrap_mean
from training.metrics.arguments import check_lengths
from training.metrics.requirements import MissingRequirementError


@attrs.frozen(eq=False)
class Probe:
    """How well one trait is read off.

    Attributes:
        accuracy: Share of vectors of held-out people whose trait is named right, with its interval over people.
        chance: Share of the trait's most frequent value: what always naming it would score.
        folds: (k,) accuracy by fold.
        num_values: Different values of the trait.
        num_people: People.
    """

    accuracy: Interval
    chance: float
    folds: NDArray[np.float64]
    num_values: int
    num_people: int

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over folds."""
        return float(self.folds.std())


def probe_traits(
    vectors: ArrayLike,
    people: Sequence[Hashable],
    traits: Mapping[str, Sequence[Hashable]],
    *,
    num_folds: int = 5,
    regularisation: float = 1.0,
    seed: int = 0,
) -> dict[str, Probe]:
    """Probes every named trait, see `probe_trait`; a trait that cannot be probed is an error naming it."""
    probes = {}
    for name, values in traits.items():
        try:
            probes[name] = probe_trait(
                vectors, people, values, num_folds=num_folds, regularisation=regularisation, seed=seed
            )
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"trait {name!r}: {error}") from error
    return probes


def probe_trait(
    vectors: ArrayLike,
    people: Sequence[Hashable],
    values: Sequence[Hashable],
    *,
    num_folds: int = 5,
    regularisation: float = 1.0,
    seed: int = 0,
) -> Probe:
    """Logistic regression on standardised vectors, cross-validated over people.

    All vectors of a person lie in one fold, so the probe is only ever tested on people that it has not seen. Folds
    hold the trait's values in like shares.

    Args:
        vectors: (n, d) persona vectors, one or several a person.
        people: n person ids.
        values: n values of the trait, one value a person.
        num_folds: Folds, from 2 to the number of people.
        regularisation: Inverse strength of the L2 penalty (scikit-learn's C), above 0.
        seed: Of the folds and the bootstrap.

    Raises:
        InvalidArgumentError: If shapes do not fit, a number is not finite, a person has two values, there are fewer
            people than folds, fewer than 2 values that 2 people have, or `regularisation` is not above 0.
        MissingRequirementError: If scikit-learn is not installed.
    """
    new_probe = _prober(regularisation)
    vectors = _checked(vectors)
    check_lengths(vectors=vectors, people=people, values=values)
    fold_of = _folds(people, values, num_folds, seed)
    folds = np.array([fold_of[person] for person in people])
    names = {value: index for index, value in enumerate(dict.fromkeys(values))}
    labels = np.array([names[value] for value in values])

    right = np.empty(len(labels))
    for fold in range(num_folds):
        held_out = folds == fold
        probe = new_probe().fit(vectors[~held_out], labels[~held_out])
        right[held_out] = probe.predict(vectors[held_out]) == labels[held_out]
    return Probe(
        accuracy=bootstrap_mean(right, people, seed=seed),
        chance=float(np.bincount(labels).max() / len(labels)),
        folds=np.array([right[folds == fold].mean() for fold in range(num_folds)]),
        num_values=len(names),
        num_people=len(fold_of),
    )


def transfer_probe(
    fitted_vectors: ArrayLike,
    fitted_values: Sequence[Hashable],
    test_vectors: ArrayLike,
    test_values: Sequence[Hashable],
    *,
    people: Sequence[Hashable],
    regularisation: float = 1.0,
    seed: int = 0,
) -> Interval:
    """Accuracy of a probe that is fitted to some people's vectors and tested on other people's.

    Args:
        fitted_vectors: (n, d) persona vectors of the people it is fitted to.
        fitted_values: n values of the trait.
        test_vectors: (m, d) persona vectors of other people.
        test_values: m values of the trait.
        people: m person ids of the test vectors; the interval is over them.
        regularisation: As in `probe_trait`.
        seed: Of the bootstrap.

    Raises:
        InvalidArgumentError: If shapes do not fit, a number is not finite, there are fewer than 2 values to learn or
            2 people to ask about, or `regularisation` is not above 0.
        MissingRequirementError: If scikit-learn is not installed.
    """
    new_probe = _prober(regularisation)
    fitted_vectors, test_vectors = _checked(fitted_vectors), _checked(test_vectors)
    check_lengths(fitted_vectors=fitted_vectors, fitted_values=fitted_values)
    check_lengths(test_vectors=test_vectors, test_values=test_values, people=people)
    if fitted_vectors.shape[1] != test_vectors.shape[1] or len(set(fitted_values)) < 2:
        raise InvalidArgumentError(
            f"vectors of shapes {fitted_vectors.shape} and {test_vectors.shape} with {len(set(fitted_values))} values "
            "to learn; widths must be equal and there must be at least 2 values"
        )
    names = {value: index for index, value in enumerate(dict.fromkeys([*fitted_values, *test_values]))}
    probe = new_probe().fit(fitted_vectors, [names[value] for value in fitted_values])
    right = probe.predict(test_vectors) == np.array([names[value] for value in test_values])
    return bootstrap_mean(right, people, seed=seed)


def _prober(regularisation: float) -> Callable[[], Any]:
    """Makes unfitted probes: standardisation and logistic regression."""
    if not regularisation > 0:
        raise InvalidArgumentError(f"regularisation is {regularisation}; give a number above 0")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingRequirementError('probes need scikit-learn; run `pip install -e ".[eval]"`') from error
    return lambda: make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=5000))


def _checked(vectors: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or not np.isfinite(array).all():
        raise InvalidArgumentError(f"vectors of shape {array.shape} must be (n, d), finite throughout")
    return array


def _folds(people: Sequence[Hashable], values: Sequence[Hashable], num_folds: int, seed: int) -> dict[Hashable, int]:
    """Deals people out to folds, value by value: those who share a value are spread over the folds."""
    value_of: dict[Hashable, Hashable] = {}
    for person, value in zip(people, values, strict=True):
        if value_of.setdefault(person, value) != value:
            raise InvalidArgumentError(f"person {person!r} has the values {value_of[person]!r} and {value!r}; give one")
    if not 2 <= num_folds <= len(value_of):
        raise InvalidArgumentError(f"num_folds is {num_folds}; from 2 to the number of people, {len(value_of)}")
    counts = Counter(value_of.values())
    if sum(count > 1 for count in counts.values()) < 2:
        raise InvalidArgumentError(
            f"people by value: {dict(counts)!r:.200}; at least 2 values with at least 2 people each are needed, "
            "so that every fold can be learned from the others"
        )
    order = list(value_of)
    np.random.default_rng(seed).shuffle(order)
    place = {value: index for index, value in enumerate(counts)}
    order.sort(key=lambda person: place[value_of[person]])
    return {person: index % num_folds for index, person in enumerate(order)}
