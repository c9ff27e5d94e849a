"""The gradient that an attack sees at its first pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Stage, Task
from robustbench_cli.audit._probe import Probe
from robustbench_cli.core.threat import over
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.models.rejecting import rejection_of, shown_logits


def gradient_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Return the first stage of each member that follows gradients of its own."""
    first = {stage.member: stage for stage in reversed(stages)}
    return [
        stage
        for stage in first.values()
        if isinstance(stage.attack, IterativeAttack)
        and not (stage.attack.black_box or stage.attack.fits)
    ]


def _task(probe: Probe, rows: Tensor, stage: Stage) -> Task:
    return Task(
        x=probe.x[rows],
        y=probe.y[rows],
        clean=shown_logits(probe.model, probe.clean[rows], probe.y[rows]),
        threat=probe.attacked.only(rows),
        noise=probe.noise.only(rows).fork(stage.key).fork(f"restart {stage.restart_or_target}"),
        restart_or_target=stage.restart_or_target,
        data=Tensors(probe.x, probe.y),
    )


def first_gradient(stage: Stage, rows: Tensor, probe: Probe, scale: float = 1.0) -> Tensor:
    """Return the gradient (B, ...) that the attack of a stage sees at its first pass.

    A first pass whose prediction never counts may serve to read something else, as that of
    ``feaatt`` reads the features of a target image; where it has no gradient, that of the second
    pass is returned.

    Args:
        rows: positions of images of the probe (B).
        scale: a factor that all logits are multiplied by.
    """
    attack = stage.attack
    assert isinstance(attack, IterativeAttack)
    seen = probe.model if attack.taps else probe.meter
    # A loss of features does not depend on the size of the logits.
    as_it_is = scale == 1 or attack.taps
    model = seen if as_it_is else lambda x: scale * seen(x)
    search_model = SearchModel(model=model, rejection=rejection_of(probe.model))

    def gradient(some: Tensor) -> Tensor:
        task = _task(probe, some, stage)
        step, state = torch.zeros_like(task.y), attack.begin(task)
        first = search_model.observe(attack, state, task, step)[0]
        reads_only = ~attack.counts(state, step) & ~first.grad.flatten(1).any(1)
        if not reads_only.any():
            return first.grad
        state = attack.move(state, first, task)
        second = search_model.observe(attack, state, task, step + 1)[0]
        return torch.where(over(reads_only, first.grad), second.grad, first.grad)

    return in_parts(gradient, rows)
