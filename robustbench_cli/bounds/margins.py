"""Lower bounds of a class's margins over the others, on a ball."""

import torch
from torch import Tensor

from robustbench_cli.bounds.balls import InputBall
from robustbench_cli.bounds.graph import BoundGraph
from robustbench_cli.bounds.interval import EXACT, Interval
from robustbench_cli.bounds.zonotopes import RELU_TRANSFORMERS, KinkSlope


def margin_rows(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Return the functions z_y - z_j of logits z, one for each class j, 0 for y itself.

    Args:
        y: classes (B).
        classes: K.
        like: a tensor of the wanted dtype.

    Returns:
        Coefficients (B, K, K).
    """
    eye = torch.eye(classes, dtype=like.dtype, device=like.device)
    return eye[y].unsqueeze(1) - eye


def ibp_margins(
    graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, unit: float = EXACT
) -> Tensor:
    """Return lower bounds of the margins z_y - z_j by interval propagation.

    The linear layers at the end are folded into the margins, which is tighter than to bound each
    logit by itself (Gowal et al., 2018, https://arxiv.org/abs/1810.12715, section 3.2).

    Args:
        graph: images to logits (B, K).
        ball: B examples.
        y: the class of each (B).
        classes: K.
        unit: the relative rounding error to allow for; 0: none.

    Returns:
        (B, K), 0 for y itself.
    """
    return _margins(graph, graph.intervals(ball, unit), ball, y, classes, through=False)


def crown_ibp_margins(
    graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, unit: float = EXACT
) -> Tensor:
    """Return lower bounds of the margins by linear bounds between intervals of IBP.

    Zhang et al. (2019), https://arxiv.org/abs/1906.06316.  Arguments and result are those of
    ``ibp_margins``.
    """
    return _margins(graph, graph.intervals(ball, unit), ball, y, classes, through=True)


def crown_margins(
    graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, unit: float = EXACT
) -> Tensor:
    """Return lower bounds of the margins by linear bounds between intervals of linear bounds.

    Zhang et al. (2018), https://arxiv.org/abs/1811.00866.  Arguments and result are those of
    ``ibp_margins``.
    """
    intervals = graph.intervals(ball, unit, tighten=True)
    return _margins(graph, intervals, ball, y, classes, through=True)


def zonotope_margins(
    graph: BoundGraph,
    ball: InputBall,
    y: Tensor,
    classes: int,
    unit: float = EXACT,
    *,
    kink: KinkSlope = RELU_TRANSFORMERS["switch"],
) -> Tensor:
    """Return lower bounds of the margins over hybrid zonotopes.

    Mirman et al. (2018), https://proceedings.mlr.press/v80/mirman18b.html.  Arguments and result
    are those of ``ibp_margins``; under a norm other than Linf it takes the box around the ball.

    Args:
        kink: the transformer of ReLU.
    """
    rows = margin_rows(y, classes, ball.x)
    return graph.lowest_of_zonotopes(*graph.zonotopes(ball, kink, unit), rows)


def _margins(
    graph: BoundGraph,
    known: list[Interval],
    ball: InputBall,
    y: Tensor,
    classes: int,
    *,
    through: bool,
) -> Tensor:
    rows = margin_rows(y, classes, ball.x)
    return graph.lowest(known, rows, ball, through=through)
