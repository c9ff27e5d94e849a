"""Where an audit attacks: on other models than the evaluated one."""

from dataclasses import replace

from torch import nn

from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.verifier import Verifier


def context_elsewhere(
    own: EvalContext, source: nn.Module | None, judge: nn.Module | None
) -> EvalContext | None:
    """Return the context of an attack that involves another model; None where there is none.

    Args:
        own: the context of the evaluation.
        source: images are crafted on it and judged by the evaluated model.
        judge: images are crafted on it and judged by it.  Either is in evaluation mode, its weights
            frozen.
    """
    if judge is not None:
        attacked = exact_search_model(judge)
        return replace(own, verifier=Verifier(judge), search_model=attacked, target=None)
    if source is None:
        return None
    return replace(
        own,
        verifier=Verifier(source),
        search_model=exact_search_model(source),
        early_stop=False,
        target=own.verifier,
    )
