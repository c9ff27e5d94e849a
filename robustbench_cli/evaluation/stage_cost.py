"""The most passes that a stage of an attack may take for one example."""

from robustbench_cli.attacks import Stage
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.nearest_classes import MOST_COMPARED
from robustbench_cli.evaluation.search_model import SearchModel

_BESIDE_STEPS = 6
"""Passes per draw that no plan counts: the clean logits, the last iterate, the verdict, and claims
that the verifier refused."""


def most_passes(stage: Stage, context: EvalContext, exact: SearchModel) -> int:
    """Return a bound of the passes, forward and backward, that a stage takes for one example.

    It depends on the attack and on the kind of model only, not on what happens.

    Args:
        context: the stage's, with the model that it searches first.
        exact: the model that it searches again where the first decided by a little.
    """
    attack, searched = stage.attack, context.search_model
    beside = _BESIDE_STEPS * attack.draws * (1 + attack.probes) + _BESIDE_STEPS
    # A model that answers differently proposes images, and the evaluated one classifies each.
    per_pass = max(searched.passes, exact.passes) + (not (searched.faithful and exact.faithful))
    twice = 2 if searched.uncertain_margin else 1
    compared = 1 + 2 * attack.draws * min(context.classes, MOST_COMPARED)
    steps = (attack.most_passes(context.classes) + beside) * per_pass * twice
    return steps + attack.nearest_first * compared * per_pass
