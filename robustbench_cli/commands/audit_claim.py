"""The grade of a claimed robust accuracy: reproduced, undecided, not reproduced, or overstated."""

from collections.abc import Mapping

import numpy as np

from robustbench_cli.core.robust_shares import lowered_shares
from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs.audit_result import Claim, Grade
from robustbench_cli.runs.records import Run

TOLERANCE = 0.005
"""The share of the images that another attack may break more and change nothing; so much has an
attack that has converged left to find (half a point)."""
WIDEST_INTERVAL = 0.2
"""The widest interval that decides anything: ten points to either side, as of a hundred images."""


def grade_claim(
    run: Run, claimed: float, own: np.ndarray, others: Mapping[str, np.ndarray]
) -> Claim:
    """Return how a claimed accuracy fares.

    The claim is reproduced where it lies in the 95 % interval (Wilson) of the accuracy under the
    claimed attack, and undecided where so few images make that interval wider than
    ``WIDEST_INTERVAL``.  It is overstated where the other attacks, example by example together
    with the claimed one, leave less: either the claim is above the interval of what is left, or, as
    the same images were attacked, the interval of the share that only the other attacks broke is
    above half a point.

    Args:
        run: the record, with its one attack and all findings.
        claimed: the accuracy, as a share.
        own: how often each image is right under the claimed attack (N): 0 or 1, but for a
            randomised model.
        others: the same under each other attack at the same radius (N), by label.
    """
    ((label, outcome),) = run.attacks.items()
    threat, n = run.settings.threat, len(own)
    measured = float(outcome.robust_accuracy)
    low, high = wilson(measured * n, n)
    grade, points, sentence = _against_interval(claimed, measured, low, high, label)
    found_by, left = "", None
    by, after = _together(own, others)
    if by:
        share = float(after.mean())
        only = wilson(float((own - after).sum()), n)
        agrees = grade in ("reproduced", "undecided")
        below = claimed > wilson(share * n, n)[1] or (agrees and only[0] > TOLERANCE)
        if below and claimed > share and outcome.trust != "withheld":
            found_by, left = by, share
            if agrees or claimed <= high:
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
    if low <= claimed <= high and high - low > WIDEST_INTERVAL:
        few = f"{ours}, which too few images tell: evaluate {_enough(claimed)} of them"
        return "undecided", points, f"undecided: {few}"
    if low <= claimed <= high:
        return "reproduced", points, f"reproduced: {ours}"
    way = "lower" if points > 0 else "higher"
    return "not reproduced", points, f"not reproduced: {ours}, {abs(points):.1f} points {way}"


def _together(own: np.ndarray, others: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Return the attacks that leave less, as few as find all of it, and what they leave (N).

    The one that leaves least comes first, then whatever takes most of the rest.
    """
    labels: list[str] = []
    left = own
    while True:
        more = {k: lowered_shares(left, share) for k, share in others.items()}
        label = min(more, key=lambda k: float(more[k].sum()), default="")
        if not label or float(more[label].sum()) >= float(left.sum()):
            return " and ".join(labels), left
        labels, left = [*labels, label], more[label]


def _enough(share: float) -> int:
    """Return a round number of images whose interval is as narrow as it must be, at this share."""
    n = 10
    while True:
        low, high = wilson(share * n, n)
        if high - low <= WIDEST_INTERVAL:
            return n
        n += 10


def _percent(low: float, high: float) -> str:
    return f"{100 * low:.1f}, {100 * high:.1f}"
