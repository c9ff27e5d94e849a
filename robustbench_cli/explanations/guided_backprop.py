"""Guided backpropagation (Springenberg et al., 2015), https://arxiv.org/abs/1412.6806."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method

_ACTIVATIONS = (
    *("Relu", "Threshold", "Hardtanh", "ClampMin", "Gelu", "Silu", "Elu", "Softplus", "Mish"),
    *("Hardswish", "Prelu", "Celu", "Maximum"),
)
"""What the names of autograd's nodes begin with that are rectifiers or stand in their place."""


@EXPLANATIONS.register("guided-backprop", aliases=("guided-backpropagation",))
@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(Explanation):
    """The gradient of the class's logit, of which every ReLU lets positive parts pass only.

    By captum, which guides modules ``nn.ReLU`` and leaves all other rectifiers alone: a model with
    a functional ReLU, another activation, or one module for several ReLUs is refused, as its map
    would be in part a plain gradient.  It changes little with the weights (Adebayo et al., 2018,
    https://arxiv.org/abs/1810.03292).
    """

    def attributions(self, asked: ExplainedImages) -> Tensor:
        _check_rectifiers(asked.model, asked.x[:1])
        return captum_attributions(captum_method("GuidedBackprop", asked.model), asked)


def _check_rectifiers(model: nn.Module, x: Tensor) -> None:
    """Check that every activation on the way of ``x`` (1, C, H, W) is a ReLU module of its own.

    Raises:
        UserError: it is not.
    """
    calls: Counter[str] = Counter()
    with ExitStack() as hooks, torch.enable_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.ReLU):

                def count(*_: Any, name: str = name) -> None:
                    calls[name] += 1

                hooks.callback(module.register_forward_hook(count).remove)
        logits = model(x.detach().clone().requires_grad_())
    reused = sorted(name for name, times in calls.items() if times > 1)
    if reused:
        raise UserError(
            f"guided-backprop: the model calls its module {reused[0]!r} more than once; each ReLU "
            "must be a module of its own"
        )
    nodes = Counter(_activations(logits))
    guided = nodes["ReluBackward0"] == calls.total() and set(nodes) <= {"ReluBackward0"}
    if not guided or not calls:
        found = ", ".join(sorted({*nodes} - {"ReluBackward0"})) or "functional ReLUs"
        what = f"the model has activations that are no nn.ReLU modules ({found})"
        raise UserError(
            f"guided-backprop: {what if nodes else 'the model has no ReLU'}; its map would be a "
            "plain gradient in part"
        )


def _activations(logits: Tensor) -> list[str]:
    """Return the names of the activations in a graph, one as often as it is there."""
    seen, waiting, found = set(), [logits.grad_fn], []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found += [node.name()] if _is_activation(node) else []
        waiting += [above for above, _ in node.next_functions]
    return found


def _is_activation(node: Any) -> bool:
    """Whether a node of a graph is a rectifier or stands in the place of one.

    A clamp to an interval, as input defenses have it, is none; one to half a line is.
    """
    clamp = node.name().startswith("ClampBackward")
    half = clamp and (node._saved_min is None or node._saved_max is None)
    return half or node.name().startswith(_ACTIVATIONS)
