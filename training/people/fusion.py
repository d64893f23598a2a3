"""How much each of several views has to say: weights of their scores, fitted to decisions whose answer is known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.metrics.requirements import MissingRequirementError
from training.people.centroids import Vectors

PRIOR = 10.0
"""Standard deviation of the weights' normal prior: wide for cosines, and without it a view that never errs has no
finite weight."""


def fit_weights(views: Sequence[Vectors], right: NDArray[np.integer]) -> NDArray[np.float64]:
    """Fits linear logistic regression, which is how speaker recognition fuses its systems (Brümmer et al. 2007).

    The softmax over people of the weighted sum of scores is to give the right ones the greatest likelihood.

    Args:
        views: Of each view, (n, people) scores; on samples that the views were not trained on, or they seem surer than
            they are.
        right: (n,) the right person of each row.

    Returns:
        (views,) weights, at least 0.

    Raises:
        MissingRequirementError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize
        from scipy.special import logsumexp
    except ImportError as error:
        raise MissingRequirementError('fitting weights needs SciPy: pip install -e ".[eval]"') from error

    scores = np.stack(views, axis=-1).astype(np.float64)
    scores -= scores[np.arange(len(scores)), right][:, None]  # of each person, less the right one's

    def negative_log_posterior(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        sums = scores @ weights
        normaliser = logsumexp(sums, axis=1)
        gradient = np.einsum("np,npv->v", np.exp(sums - normaliser[:, None]), scores) + weights / PRIOR**2
        return normaliser.sum() + weights @ weights / (2 * PRIOR**2), gradient

    bounds = [(0, None)] * len(views)
    fitted: NDArray[np.float64] = minimize(negative_log_posterior, np.ones(len(views)), jac=True, bounds=bounds).x
    return fitted
