"""Who wrote this, who looked like this? Classical answers, to hold DEPER's subject identification against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidSampleError
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Trajectory
from training.metrics.requirements import MissingRequirementError

TREES = 500
GAZE_WEIGHT = 0.5
REGULARISATIONS = (1.0, 10.0, 100.0)
"""Candidates for `regularisation` of `text_log_probabilities`."""


def text_log_probabilities(
    training: Sequence[Sample], queries: Sequence[Sample], regularisation: float
) -> NDArray[np.float64]:
    """Logistic regression on TF-IDF of words (1–2) and characters (2–4, upper and lower case kept apart).

    Args:
        training: Samples with description and subject.
        queries: Samples with description.
        regularisation: Inverse strength C of the L2 penalty.

    Returns:
        (queries, subjects) log-probabilities; subjects in sorted order.

    Raises:
        InvalidSampleError: A sample has no description.
        MissingRequirementError: scikit-learn is not installed.
    """
    _require_sklearn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [_description(sample) for sample in training]
    model = make_pipeline(_tf_idf(texts), LogisticRegression(C=regularisation, max_iter=1000))
    model.fit(texts, [sample.subject for sample in training])
    return np.asarray(model.predict_log_proba([_description(sample) for sample in queries]))


def text_vectors(known: Sequence[Sample], samples: Sequence[Sample]) -> NDArray[np.float64]:
    """TF-IDF vectors as in `text_log_probabilities`, (samples, terms); terms and their weights are those of `known`."""
    _require_sklearn()
    texts = [_description(sample) for sample in known]
    features = _tf_idf(texts).fit(texts)
    return np.asarray(features.transform([_description(sample) for sample in samples]).toarray())


def gaze_vectors(known: Sequence[Sample], samples: Sequence[Sample]) -> NDArray[np.float64]:
    """`gaze_statistics`, (samples, 15), each less its mean over `known` and by its standard deviation there."""
    reference = np.stack([gaze_statistics(_trajectory(sample)) for sample in known])
    statistics = np.stack([gaze_statistics(_trajectory(sample)) for sample in samples])
    vectors: NDArray[np.float64] = (statistics - reference.mean(axis=0)) / reference.std(axis=0).clip(min=1e-12)
    return vectors


def gaze_log_probabilities(training: Sequence[Sample], queries: Sequence[Sample], seed: int = 0) -> NDArray[np.float64]:
    """A random forest of `TREES` trees on `gaze_statistics`; a probability of 0 counts as 0.001.

    Args:
        training: Samples with trajectory and subject.
        queries: Samples with trajectory.
        seed: Of the forest.

    Returns:
        (queries, subjects) log-probabilities; subjects in sorted order.

    Raises:
        InvalidSampleError: A sample has no trajectory.
        MissingRequirementError: scikit-learn is not installed.
    """
    _require_sklearn()
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=seed)
    model.fit([gaze_statistics(_trajectory(sample)) for sample in training], [sample.subject for sample in training])
    probabilities = model.predict_proba([gaze_statistics(_trajectory(sample)) for sample in queries])
    return np.asarray(np.log(np.maximum(probabilities, 1e-3)))


def gaze_statistics(trajectory: Trajectory) -> NDArray[np.float64]:
    """15 numbers of a trajectory.

    They are: how many fixations; of the durations sum, mean, standard deviation, median, least, greatest, first and
    last; of the box centres the mean and standard deviation of x and y; of the steps between centres the mean and
    greatest length, both 0 for a single fixation.
    """
    durations = trajectory.durations.astype(np.float64)
    centres = (trajectory.boxes[:, :2] + trajectory.boxes[:, 2:]).astype(np.float64) / 2
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1) if len(centres) > 1 else np.zeros(1)
    of_durations = (np.sum, np.mean, np.std, np.median, np.min, np.max)
    return np.array(
        [
            len(durations),
            *(statistic(durations) for statistic in of_durations),
            durations[0],
            durations[-1],
            *centres.mean(axis=0),
            *centres.std(axis=0),
            steps.mean(),
            steps.max(),
        ]
    )


def _tf_idf(texts: Sequence[str]) -> Any:
    """The features, to be fitted to these texts; of characters alone where no text has a word, as in some scripts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(2, 4), lowercase=False, sublinear_tf=True)
    has_words = any(map(words.build_tokenizer(), texts))
    return make_union(words, characters) if has_words else make_union(characters)


def _description(sample: Sample) -> str:
    if sample.description is None:
        raise InvalidSampleError(f"{sample.source}: description: missing; the classical baseline compares texts")
    return sample.description


def _trajectory(sample: Sample) -> Trajectory:
    if sample.trajectory is None:
        raise InvalidSampleError(f"{sample.source}: trajectory: missing; the classical baseline compares gaze")
    return sample.trajectory


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingRequirementError('the classical baselines need scikit-learn: pip install -e ".[eval]"') from error
