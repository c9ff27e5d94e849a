"""ERS, the empirical robustness score of embeddings (Zhou, Wang, Niu, Zhang, Zheng and Hua, 2024).

https://arxiv.org/abs/2106.03614
"""

from collections.abc import Callable, Mapping

_TERMS: Mapping[str, Callable[[float], float]] = {
    "CA+": lambda rank: 2 * rank,
    "CA-": lambda rank: 1 - rank,
    "QA+": lambda rank: 2 * rank,
    "QA-": lambda rank: 1 - rank,
    "TMA": lambda cosine: 1 - cosine,
    "ES:D": lambda distance: 1 - distance / 2,
    "ES:R": lambda recall: recall,
    "LTM": lambda recall: recall,
    "GTM": lambda recall: recall,
    "GTT": lambda share: share,
}
"""Each measure on a scale from 0, all is lost, to 1: nothing changed."""

SCORE_PARTS = tuple(_TERMS)
"""The measures that the score needs, all under one eps."""


def robustness_score(measured: Mapping[str, float]) -> float:
    """Return the score: the mean of ten measures, each on a scale from 0 to 1.

    Args:
        measured: shares in [0, 1], the cosine TMA, and the distance ES:D of unit embeddings, by the
            names in ``SCORE_PARTS``.
    """
    return sum(term(measured[name]) for name, term in _TERMS.items()) / len(_TERMS)
