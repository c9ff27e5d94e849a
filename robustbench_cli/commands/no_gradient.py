"""Evaluations of a model that lets no gradient through: which attacks can be run on it."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.evaluation.model_check import gradient_obstacle
from robustbench_cli.models.rejecting import with_network
from robustbench_cli.models.without_gradient import WithoutGradient


def refuse_gradient_attacks(obstacle: str, attacks: Mapping[str, Attack], threat: Threat) -> None:
    """Refuse attacks that follow gradients, and name those that need none.

    Args:
        obstacle: what keeps gradients from the images.
        attacks: by label.

    Raises:
        UserError: one of them needs gradients.
    """
    blind = [label for label, attack in attacks.items() if attack.needs_gradients(threat)]
    if blind:
        every = {name: ATTACKS.build(Spec(name)) for name in ATTACKS.names()}
        able = [
            name
            for name, attack in every.items()
            if threat.norm in attack.measures and not attack.needs_gradients(threat)
        ]
        raise UserError(
            f"{obstacle}, which {', '.join(blind)} must follow; attacks that need none: "
            f"{', '.join(able)}"
        )


def with_possible_gradients(
    request: EvalRequest, attacks: Mapping[str, Attack], data: Split
) -> tuple[EvalRequest, bool]:
    """Return the request, with models that can be asked for gradients, and if there are any.

    Args:
        request: its models are on the device.
        attacks: by label.
        data: the images to evaluate.

    Returns:
        The request, and whether a gradient passes through the model that is attacked.

    Raises:
        UserError: a model cannot be judged, or an attack needs gradients and there are none.
    """
    few, classes, subject, source = (
        data.images(slice(2)),
        len(data.classes),
        request.subject,
        request.source,
    )
    obstacle = gradient_obstacle(subject.model, few, classes)
    request = replace(request, subject=graphless_subject(subject)) if obstacle else request
    if source is not None:
        obstacle = gradient_obstacle(source.model, few, classes, f"the source {source.name!r}")
        request = replace(request, source=graphless_subject(source)) if obstacle else request
    if obstacle:
        refuse_gradient_attacks(obstacle, attacks, request.config.threat)
    return request, not obstacle


def graphless(model: nn.Module) -> nn.Module:
    """Return a model that can be asked for a gradient and answers without one."""
    return with_network(model, WithoutGradient)


def graphless_subject(subject: Subject) -> Subject:
    """Return the subject whose model is ``graphless``, and so are the copies that are made."""
    remade = subject.copy
    if remade is None:
        return replace(subject, model=graphless(subject.model))

    def fresh() -> nn.Module | None:
        made = remade()
        return None if made is None else graphless(made)

    return replace(subject, model=graphless(subject.model), copy=fresh)
