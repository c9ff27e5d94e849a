"""An attack on a batch in memory, without records."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Attack
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.fitting import fit_in_memory
from robustbench_cli.evaluation.search_choice import PassesAhead, chosen_search_model
from robustbench_cli.evaluation.search_model import SearchPrecision, exact_search_model
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.evaluation.targets import LEFT_OUT, chosen_targets, passes_to_choose, towards
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model
from robustbench_cli.models.rejecting import RejectingModel


class Attacked(NamedTuple):
    """The result of an attack on a batch in memory; tensors (B) on the CPU, except ``x``."""

    x: Tensor
    """Images (B, C, H, W) in [0, 1]: adversarial, else those with the highest margin."""
    broken: Tensor
    """True if the verifier confirmed a success (bool): an error, or the target if there is one."""
    norm: Tensor
    """Distances from the clean images, in the threat's norm."""
    step: Tensor
    """The number of steps before the success; -1: there was none."""
    by: Tensor
    """The stage that broke the example; -1: none."""
    forwards: Tensor
    """Forward passes that each example cost."""
    backwards: Tensor
    """Backward passes that each example cost."""


def attack_batch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    threat: Threat,
    noise: Noise,
    *,
    slots: int = 512,
    early_stop: bool = True,
    precision: SearchPrecision = "exact",
    random: bool = False,
    differentiable: bool = True,
    fit_on: Examples | None = None,
) -> Attacked:
    """Run an attack on a batch in memory, without records; every row is attacked.

    With a target these are all but those whose true class it is.

    Args:
        x: images (B, C, H, W) in [0, 1].
        y: labels (B).
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them.
        slots: the number of images that the model is shown at a time.
        early_stop: whether an example is done once it is broken (see ``EvalContext``).
        precision: "auto" attacks the fastest model whose answers are close to the original's.
        random: whether the model is randomised, so that one pass decides nothing.
        differentiable: whether a gradient passes through the model: otherwise searches along
            gradients are left out, and it is attacked as it is.
        fit_on: other images, for attacks that are fitted before they see any example.

    Raises:
        UserError: the model's logits are not finite, or there is nothing to fit the attack to.
        RunError: the attack made images that are not allowed, or the model changed itself.
    """
    column, best_x = AttackVerdicts.empty(len(y)), x.clone()
    with unchanged_model(model):
        with torch.no_grad():
            outputs = model(x[:1]).shape[1] if len(x) else 2
        classes = outputs - isinstance(model, RejectingModel)
        stages = attack.stages(threat, classes)
        exact = search_model = exact_search_model(model, differentiable=differentiable)
        if precision == "auto" and differentiable:
            ahead = PassesAhead.of(stages, len(y), slots)
            search_model, _ = chosen_search_model(model, Tensors(x, y), ahead, random=random)
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model, random),
            search_model=search_model,
            noise=noise,
            slots=slots,
            early_stop=early_stop,
            fit=None if fit_on is None else fit_in_memory(fit_on),
        )
        attacked = np.ones(len(y), bool)
        if attack.target is not None:
            targets = chosen_targets(attack.target, context, attacked, classes)
            column.arrays["forwards"] += passes_to_choose(attack.target)
            context, attacked = towards(context, targets), targets != LEFT_OUT
        for _, _, result, kept in run_stages(stages, column, attacked, context, exact):
            best_x[result.rows[kept].to(x.device)] = result.x[kept].to(best_x)
    arrays = {name: torch.from_numpy(values) for name, values in column.arrays.items()}
    return Attacked(
        x=best_x,
        broken=arrays["by"] >= 0,
        norm=arrays["norm"],
        step=arrays["step"],
        by=arrays["by"],
        forwards=arrays["forwards"],
        backwards=arrays["backwards"],
    )
