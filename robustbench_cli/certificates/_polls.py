"""What votes on random copies say of a class's probability."""

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from robustbench_cli.certificates import ABSTAINS


def lower_bound(count: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Return lower confidence bounds (B) on a class's probability (Clopper & Pearson, 1934).

    Args:
        count: votes for the class, out of n (B).
        n: the number of votes.
        alpha: the largest probability that a bound is above the truth.
    """
    bound = stats.beta.ppf(alpha, np.maximum(count, 1), n - count + 1)
    return np.where(count > 0, bound, 0.0)


def likeliest(votes: np.ndarray, alpha: float) -> np.ndarray:
    """Return the class (B) with the most votes (B, K), or ``ABSTAINS``.

    It abstains where a two-sided binomial test cannot tell the first two classes apart: PREDICT of
    Cohen et al. (2019), https://arxiv.org/abs/1902.02918.
    """
    second, first = np.sort(votes, 1)[:, -2:].T
    # Two-sided p-value: under equal probabilities P(larger count >= first) = 2 P(X >= first).
    p = 2 * stats.binom.sf(first - 1, first + second, 0.5)
    return np.where(p <= alpha, votes.argmax(1), ABSTAINS)
