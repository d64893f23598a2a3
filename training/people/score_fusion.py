"""Score fusion: several views of a sample, or several trainings, decide together by a sum of their scores."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from training.metrics.requirements import MissingRequirementError

Modality = Literal["text + gaze", "text", "gaze"]
"""What a system reads of a sample; DEPER's view of a sample in which the rest is masked."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Scores = NDArray[np.floating]
"""(..., people): a query's score for each person; the highest wins."""

Weights = dict[Modality, float]
"""Of each view in the sum of their scores."""

PRIOR = 10.0
"""Standard deviation of the weights' normal prior: wide for cosines, and without it a view that never errs has no
finite weight."""

View = TypeVar("View", bound=Hashable)


def mean_scores(trainings: Sequence[Mapping[View, Scores]]) -> dict[View, Scores]:
    """An ensemble's scores, by view: the mean over its trainings."""
    return {view: np.mean([scores[view] for scores in trainings], axis=0) for view in trainings[0]}


def equal_weights(views: Mapping[Modality, Sequence[View]]) -> dict[Modality, dict[View, float]]:
    """Weights of 1 for all views of every row."""
    return {modality: dict.fromkeys(own, 1.0) for modality, own in views.items()}


def weighted_sum(scores: Mapping[View, Scores], weights: Mapping[View, float]) -> Scores:
    """The weighted sum of the views' scores."""
    total: Scores = np.sum([weight * scores[view] for view, weight in weights.items()], axis=0)
    return total


def fuse_views(scores: Mapping[Modality, Scores], weights: Weights) -> dict[Modality, Scores]:
    """The views' scores, where those of "text + gaze" are replaced by the weighted sum of all three.

    Words, which say more, drown gaze in a z_s of both; so the view of gaze alone has a weight of its own.
    """
    return {**scores, "text + gaze": weighted_sum(scores, weights)}


def log_likelihood(scores: Mapping[View, Scores], labels: NDArray[np.integer]) -> float:
    """Mean logarithm of the right person's probability, by the softmax of the sum of scores with fitted weights.

    The arguments, and what is raised, are those of `fit_weights`.
    """
    total = weighted_sum(scores, fit_weights(scores, labels))
    largest = total.max(axis=1, keepdims=True)
    normaliser = largest[:, 0] + np.log(np.exp(total - largest).sum(axis=1))
    return float((total[np.arange(len(total)), labels] - normaliser).mean())


def fit_weights(scores: Mapping[View, Scores], labels: NDArray[np.integer]) -> dict[View, float]:
    """Fits linear logistic regression, which is how speaker recognition fuses its systems (Brümmer et al. 2007).

    The softmax over people of the weighted sum of scores is to give the right ones the greatest likelihood.

    Args:
        scores: Of each view, (n, people) scores; on samples that the views were not trained on, or they seem surer than
            they are.
        labels: (n,) the right person of each row.

    Returns:
        A weight for each view, at least 0.

    Raises:
        MissingRequirementError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
        from scipy.special import logsumexp
    except ImportError as error:
        raise MissingRequirementError('fitting weights needs SciPy: pip install -e ".[eval]"') from error

    margins = np.stack(list(scores.values()), axis=-1).astype(np.float64)
    margins -= margins[np.arange(len(margins)), labels][:, None]  # of each person, less the right one's

    def negative_log_posterior(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        sums = margins @ weights
        normaliser = logsumexp(sums, axis=1)
        gradient = np.einsum("np,npv->v", np.exp(sums - normaliser[:, None]), margins) + weights / PRIOR**2
        return normaliser.sum() + weights @ weights / (2 * PRIOR**2), gradient

    bounds = [(0, None)] * len(scores)
    fitted = minimize(negative_log_posterior, np.ones(len(scores)), jac=True, bounds=bounds).x
    return dict(zip(scores, fitted.tolist(), strict=True))
