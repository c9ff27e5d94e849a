"""How far a number of a table can be trusted: its state, its findings, and its mark.

The number of an attack that is an upper bound is written ``≤97.00 (13.00 found)``: 13 % are what
is left after what something else found.  One that means nothing is not written at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Finding, Trust

WITHHELD = "withheld"
"""Written where the number means nothing."""
SAYS_NOTHING = "says nothing"
"""Written instead of what is certified, by a certificate that proves nothing of any image."""
UNCHECKED_SIGN = "°"
"""Written after a number whose checks were left out, or some of them."""
BOUND_SIGN = "≤"
"""Written before a number that is an upper bound."""
LOWER_BOUND_SIGN = "≥"
"""Written before an error that is a lower bound."""
SAMPLED_SIGN = "~"
"""Written after the two ends of an accuracy where a sample or a budget left something open."""
DERIVED_SIGN = "(≤)"
"""Written after what is computed from numbers that are upper bounds: a difference, an AUROC."""
_WORST_FIRST: Sequence[Trust] = ("withheld", "upper bound", "unchecked", "sound")


@dataclass(frozen=True, kw_only=True)
class NumberTrust:
    """How far one number can be trusted, and why."""

    trust: Trust
    waived: bool = False
    """True if checks were left out, on request or because they make no sense under the threat;
    False, and unchecked: there were none in that version."""
    found: float | None = None
    """Of an upper bound: the lower accuracy (a share) that is left after what was found; None
    where nothing says how much lower the truth is."""
    findings: tuple[Finding, ...] = ()
    """The findings behind it: warnings and errors."""
    silent: bool = False
    """True if it is withheld because a certificate proves nothing of any image."""
    confidence: float | None = None
    """Where nothing but a sampled tail or a budget makes it an upper bound: the confidence with
    which the whole attack leaves at least ``found``."""

    @property
    def state(self) -> str:
        """The trust in a word or two, as data files have it."""
        return SAYS_NOTHING if self.silent else self.trust

    @property
    def sampled(self) -> bool:
        """True if it has two ends, and a sampled tail is a reason."""
        open_ = self.confidence is not None
        return open_ and any((each.confidence or 1) < 1 for each in self.findings)

    @property
    def unfinished(self) -> bool:
        """True if it has two ends, and a budget that ran out is a reason."""
        return self.confidence is not None and any(each.confidence == 1 for each in self.findings)

    @property
    def withheld(self) -> bool:
        """True if the number means nothing."""
        return self.trust == "withheld"

    @property
    def competes(self) -> bool:
        """True if it may be the best of a column: neither withheld nor an upper bound."""
        return self.trust in ("sound", "unchecked")

    def written(self, number: str, found: str = "", *, sign: str = BOUND_SIGN) -> str:
        """Return a number with its mark, or a word instead of it.

        Args:
            number: the number as it would be written without a mark.
            found: the lower one, where there is one.
            sign: the mark of a bound: of an error, which is a lower bound, ``≥``.
        """
        if self.trust == "withheld":
            return SAYS_NOTHING if self.silent else WITHHELD
        if self.trust == "upper bound" and self.confidence is not None and found:
            return f"{found} to {number} {SAMPLED_SIGN}"
        if self.trust == "upper bound":
            return f"{sign}{number}" + (f" ({found} found)" if found else "")
        return f"{number}{UNCHECKED_SIGN}" if self.waived else number


def derived_text(trust: NumberTrust, number: str) -> str:
    """Return what is computed from a number with the mark of its trust, or a word instead of it."""
    if trust.trust == "upper bound":
        return f"{number} {DERIVED_SIGN}"
    return trust.written(number)


def before_checks(run: Run) -> bool:
    """Return True for an evaluation from before there were checks: nobody left them out."""
    return run.checked is None and run.settings.checks


def clean_trust(run: Run) -> NumberTrust:
    """Return how far the clean accuracy of an evaluation can be trusted."""
    said = [each for each in run.findings if each.clean]
    # What other checks found lower is a robust accuracy; a budget leaves bounds of this one.
    bounded = all(each.confidence is not None for each in said)
    return _trust(run, run.clean_trust, said, run.clean_accuracy if bounded else None)


def attack_trust(run: Run, label: str) -> NumberTrust:
    """Return how far the number of an attack can be trusted.

    Args:
        label: the attack's, as in ``run.attacks``.
    """
    outcome = run.attacks[label]
    said = [each for each in run.findings if each.concerns(label)]
    return _trust(run, outcome.trust, said, outcome.robust_accuracy)


def target_trust(run: Run, label: str) -> NumberTrust:
    """Return how far the success rate of an attack with a target can be trusted.

    What hides the truth from attacks makes it a lower bound.  Checks look at the model only, so
    nothing is missing of it unless they were left out on request.
    """
    said = [each for each in run.findings if each.concerns(label)]
    found = _trust(run, run.targeted[label].trust, said)
    return found if not run.settings.checks else replace(found, waived=False)


def worst_trust(run: Run) -> NumberTrust:
    """Return how far the worst case over the attacks of an evaluation can be trusted."""
    found = _trust(run, run.worst_case_trust, run.findings, run.worst_case_accuracy)
    if found.confidence is None or run.worst_case_least is None:
        return found
    # The bounds of several samples hold together less often than each.
    missed = sum(1 - (each.confidence or 1) for each in found.findings)
    return replace(found, found=run.worst_case_least, confidence=max(0.0, 1 - missed))


def number_trusts(run: Run) -> list[NumberTrust]:
    """Return the trust in each accuracy of a run, in the order in which a summary has them."""
    if run.clean_accuracy is None:
        return []
    several = len(run.attacks) > 1 and not run.settings.swept
    of_attacks = (attack_trust(run, label) for label in run.attacks)
    proven = filter(None, (proven_trust(run, label) for label in run.certificates))
    return [clean_trust(run), *of_attacks, *[worst_trust(run)] * several, *proven]


def certificate_trust(run: Run) -> NumberTrust | None:
    """Return the trust in what is certified: withheld where predictions mean nothing, else None.

    Checks look at attacks; a certificate rests on predictions alone.
    """
    clean = clean_trust(run)
    return clean if clean.withheld else None


def proven_trust(run: Run, label: str) -> NumberTrust | None:
    """Return the trust in what a certificate proves within a radius.

    Args:
        label: the certificate's, as in ``run.certificates``.
    """
    if (found := certificate_trust(run)) is not None:
        return found
    silent = run.certificates[label].says_nothing
    return NumberTrust(trust="withheld", silent=True) if silent else None


def joined_trust(each: Sequence[NumberTrust], shares: Sequence[float]) -> NumberTrust:
    """Return the trust in a mean over several seeds: the worst of theirs.

    Args:
        each: one per seed, at least one.
        shares: the accuracies of the seeds, in that order; where nothing lower was found of a
            seed, its own stands for it.
    """
    found = None
    if any(one.found is not None for one in each):
        pairs = zip(each, shares, strict=True)
        found = fmean(share if one.found is None else one.found for one, share in pairs)
    trust = min((one.trust for one in each), key=_WORST_FIRST.index)
    return NumberTrust(
        trust=trust,
        waived=any(one.waived for one in each),
        found=found if trust == "upper bound" else None,
        findings=tuple(finding for one in each for finding in one.findings),
        silent=trust == "withheld" and all(one.silent for one in each if one.withheld),
        confidence=_joint_confidence(each) if trust == "upper bound" else None,
    )


def _joint_confidence(each: Sequence[NumberTrust]) -> float | None:
    """Return the confidence that all bounds hold; None where one is no bound of a sample."""
    bounds = [one for one in each if one.trust == "upper bound"]
    if any(one.confidence is None for one in bounds):
        return None
    return max(0.0, 1 - sum(1 - (one.confidence or 0.0) for one in bounds))


def trust_of_one_model(each: Sequence[NumberTrust]) -> NumberTrust:
    """Return the trust in one model's predictions by several evaluations of it.

    Args:
        each: one per evaluation, at least one.  What was checked counts for more than what was not.
    """
    first: Sequence[Trust] = ("withheld", "upper bound", "sound", "unchecked")
    return min(each, key=lambda one: first.index(one.trust))


def _trust(
    run: Run, trust: Trust, said: Sequence[Finding], accuracy: float | None = None
) -> NumberTrust:
    telling = tuple(each for each in said if each.severity != "info")
    sampled = [each.confidence for each in telling if each.confidence is not None]
    # Where something else hides the truth as well, the bound of a sample says nothing.
    bounded = bool(sampled) and len(sampled) == len(telling) and trust == "upper bound"
    shown = [each for each in telling if bounded or each.confidence is None]
    left = [each.accuracy for each in shown if each.accuracy is not None]
    lower = [x for x in left if accuracy is not None and (x < accuracy or bounded)]
    return NumberTrust(
        trust=trust,
        waived=trust == "unchecked" and not before_checks(run),
        found=min(lower, default=None) if trust == "upper bound" else None,
        findings=telling,
        confidence=min(sampled) if bounded and lower else None,
    )
