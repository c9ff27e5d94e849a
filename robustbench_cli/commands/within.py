"""``--within``: a series of attacks whose last members see a part of what stands."""

from collections.abc import Mapping
from dataclasses import replace

from robustbench_cli.attacks import Attack
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.widening import sampled_series
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.sampled_tail import sampled_tail
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.evaluation.tail_sampling import TailRule, allowed_undecided
from robustbench_cli.runs.outcomes import Outcome, SampledOutcome
from robustbench_cli.runs.trust import Finding, Trust

SAMPLED_TAIL = "sampled-tail"
"""The name under which findings say that an attack's last members saw a part of what stood."""


def check_not_random(config: EvalConfig, random: bool) -> None:
    """Raise ``UserError`` where the model is randomised: no single verdict decides there."""
    if config.within is not None and random:
        raise UserError(f"--within {config.within:g}: the model is randomised; leave it out")


def tail_rule(request: EvalRequest, attacks: Mapping[str, Attack], n: int) -> TailRule | None:
    """Return how exactly the tails are to be known; None: they are not sampled.

    Where ever more images are taken (``--widen``), half of the points and half of the error are for
    images that the last members did not see; the rest is for the draw of the images themselves.

    Args:
        attacks: by label.
        n: the number of images.
    """
    config, look = request.config, request.look
    if config.within is None:
        return None
    if look is None:
        return TailRule(tolerance=allowed_undecided(config.within, n))
    series = max(1, sampled_series(attacks, config))
    return TailRule(
        tolerance=allowed_undecided(config.within / 2, n), alpha=look.tail_alpha(series)
    )


def with_sample(
    outcomes: AttackOutcomes,
    point: SweepPoint,
    column: AttackVerdicts,
    clean: AttackVerdicts,
    context: EvalContext,
    config: EvalConfig,
    rule: TailRule | None,
) -> None:
    """Add to an attack's outcome what its last members saw, if they were tried on a part only."""
    if rule is None:
        return
    stages = point.attack.stages(point.threat, outcomes.classes)
    head = point.attack.first_members(stages)
    if head is None or not point.threat.eps:
        return
    standing = clean.arrays["share"] > 0
    tail = sampled_tail(head, column, standing, context, rule)
    outcome = outcomes.attacks[point.label]
    sampled = SampledOutcome(
        standing=tail.plan.standing,
        looked_at=tail.looked_at,
        broken=tail.broken,
        broken_at_most=tail.at_most,
        looks=tail.looks,
        alpha=tail.plan.alpha,
        least=(outcome.correct - (tail.at_most - tail.broken)) / outcome.n,
        closest=tail.plan.closest,
        of_closest=tail.of_closest,
    )
    said = f"within {config.within:g}"
    variant = outcome.variant if tail.whole else ", ".join(filter(None, (outcome.variant, said)))
    outcomes.attacks[point.label] = replace(outcome, sampled=sampled, variant=variant)


def sample_findings(outcomes: Mapping[str, Outcome]) -> list[Finding]:
    """Return what is to be said of attacks whose last members saw a part of what stood."""
    return [_finding(label, each) for label, each in outcomes.items() if _open(each)]


def worst_of_samples(outcomes: Mapping[str, Outcome], trust: Trust) -> Trust:
    """Return the trust in the worst case: an upper bound where an attack saw a part only."""
    better = trust in ("sound", "unchecked")
    return "upper bound" if better and any(map(_open, outcomes.values())) else trust


def _open(outcome: Outcome) -> bool:
    return outcome.sampled is not None and not outcome.sampled.whole


def _finding(label: str, outcome: Outcome) -> Finding:
    tail = outcome.sampled
    assert tail is not None
    closest = f"the {tail.closest} closest to an error and others drawn at random"
    chosen = closest if tail.closest else "drawn at random"
    return Finding(
        check=SAMPLED_TAIL,
        severity="warning",
        message=(
            f"the last members saw {tail.looked_at} of the {tail.standing} images that stood "
            f"before them, {chosen}, and broke {tail.broken}; of all they would break at "
            f"most {tail.broken_at_most}: robust accuracy {tail.least:.2%} to "
            f"{outcome.robust_accuracy:.2%} with {1 - tail.alpha:.0%} confidence"
        ),
        attacks=[label],
        images=tail.looked_at,
        of=tail.standing,
        accuracy=tail.least,
        confidence=1 - tail.alpha,
    )
