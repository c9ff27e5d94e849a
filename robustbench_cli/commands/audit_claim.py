"""The grade of a claimed robust accuracy: reproduced, not reproduced, or overstated."""

from collections.abc import Mapping

import numpy as np

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs.audit_result import Claim, Grade
from robustbench_cli.runs.records import Run

TOLERANCE = 0.005
"""The share of the images that another attack may break more and change nothing; so much has an
attack that has converged left to find (half a point)."""


def grade_claim(
    run: Run, claimed: float, standing: np.ndarray, stronger: Mapping[str, np.ndarray]
) -> Claim:
    """Return how a claimed accuracy fares.

    The claim is reproduced where it lies in the 95 % interval (Wilson) of the accuracy under the
    claimed attack.  It is overstated where the other attacks, example by example together with the
    claimed one, leave less: either the claim is above the interval of what is left, or, as the
    same images were attacked, the interval of the share that only the other attacks broke is above
    half a point.

    Args:
        run: the record, with its one attack and all findings.
        claimed: the accuracy, as a share.
        standing: the images that are right after the claimed attack, a mask (N).
        stronger: the images that each other attack at the same radius broke, masks (N) by label.
    """
    ((label, outcome),) = run.attacks.items()
    threat, n = run.settings.threat, len(standing)
    measured = float(outcome.robust_accuracy)
    low, high = wilson(measured * n, n)
    grade, points, sentence = _against_interval(claimed, measured, low, high, label)
    found_by, left = "", None
    by, broken = _together(standing, stronger)
    if by:
        share = float((standing & ~broken).mean())
        only = wilson(int((standing & broken).sum()), n)
        below = claimed > wilson(share * n, n)[1] or (grade == "reproduced" and only[0] > TOLERANCE)
        if below and claimed > share and outcome.trust != "withheld":
            found_by, left = by, share
            if grade == "reproduced" or claimed <= high:
                grade, points = "overstated", 100 * (claimed - share)
                sentence = (
                    f"overstated by {points:.1f} points, found by {by}: {share:.2%} "
                    f"[{_percent(*wilson(share * n, n))}] are left where {label} left "
                    f"{measured:.2%}"
                )
            else:
                sentence += f"; with {by} {share:.2%} are left"
    if outcome.trust == "withheld":
        error = next(each for each in run.findings if each.severity == "error")
        grade = "not reproduced"
        sentence = f"not reproduced: the number means nothing, because {error.message}"
    where = f"{100 * claimed:g} % under {label} at {format_threat(threat.norm, threat.eps)}"
    return Claim(
        accuracy=claimed,
        attack=label,
        eps=threat.eps,
        norm=threat.norm,
        grade=grade,
        sentence=f"the claim of {where} is {sentence}",
        measured=measured,
        low=low,
        high=high,
        points=points,
        found_by=found_by,
        left=left,
    )


def _against_interval(
    claimed: float, measured: float, low: float, high: float, label: str
) -> tuple[Grade, float, str]:
    """Return the grade under the claimed attack alone, the difference in points, and words."""
    points = 100 * (claimed - measured)
    ours = f"{label} leaves {measured:.2%} [{_percent(low, high)}]"
    if low <= claimed <= high:
        return "reproduced", points, f"reproduced: {ours}"
    way = "lower" if points > 0 else "higher"
    return "not reproduced", points, f"not reproduced: {ours}, {abs(points):.1f} points {way}"


def _together(standing: np.ndarray, stronger: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Return the attacks that broke what stood, as few as break all of it, and what they broke.

    The one that broke most comes first, then whatever breaks most of the rest.
    """
    labels: list[str] = []
    fallen = np.zeros_like(standing)
    while True:
        more = {k: int((standing & broken & ~fallen).sum()) for k, broken in stronger.items()}
        label = max(more, key=more.__getitem__, default="")
        if not more.get(label):
            return " and ".join(labels), fallen
        labels, fallen = [*labels, label], fallen | stronger[label]


def _percent(low: float, high: float) -> str:
    return f"{100 * low:.1f}, {100 * high:.1f}"
