"""Bounds of advbench beside those of auto_LiRPA, on the same nets, images and balls.

    python benchmarks/bounds.py --auto-lirpa path/to/auto_LiRPA

auto_LiRPA's checkout (https://github.com/Verified-Intelligence/auto_LiRPA) need not be installed;
it wants appdirs and graphviz.  Under L2 with a normaliser inside the model its interval bounds are
above the exact minimum, which the last lines show on a linear model.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_cli.bounds import (
    InputBall,
    TracedModel,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
)
from robustbench_cli.bounds.margins import margin_rows
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Normalize, Shape

METHODS = {"IBP": ibp_margins, "CROWN-IBP": crown_ibp_margins, "CROWN": crown_margins}
SHAPE = Shape(1, 8, 8, 10, (0.3,), (0.4,))


def nets() -> dict[str, nn.Module]:
    """Untrained nets whose batch norm has statistics of its own, and a linear model."""
    torch.manual_seed(0)
    names = ["strided-cnn:width=4,hidden=20", "digits-cnn:width=4", "resnet-18:width=2"]
    found = {name: MODELS.build(Spec.parse(name)).build(SHAPE) for name in names}
    linear = nn.Sequential(Normalize((0.3,), (0.4,)), nn.Flatten(), nn.Linear(64, 10))
    for model in found.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
    every = {**found, "linear": linear}
    return {name: model.eval().requires_grad_(False) for name, model in every.items()}


def ours(model: nn.Module, method: str, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    """Lower bounds of the margins (B, K) by this package, without slack for rounding."""
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    ball = InputBall(x=x.double(), eps=torch.full((len(x),), eps).double(), norm=norm)
    return METHODS[method](graph, ball, y, SHAPE.classes)


def theirs(model: nn.Module, method: str, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
    """The same by auto_LiRPA."""
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    bounded = BoundedModule(model, x, bound_opts={"conv_mode": "matrix"})
    box = {"x_L": (x - eps).clamp(0, 1), "x_U": (x + eps).clamp(0, 1)}
    order, more = (torch.inf, box) if norm == "Linf" else (2, {"eps": eps})
    ball = BoundedTensor(x, PerturbationLpNorm(norm=order, **more))
    rows = margin_rows(y, SHAPE.classes, x)
    low, _ = bounded.compute_bounds(x=(ball,), method=method, C=rows, bound_upper=False)
    return low


def main() -> None:
    """Print a line for each net, norm and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--auto-lirpa", type=Path, help="a checkout of it; default: installed")
    given = parser.parse_args().auto_lirpa
    if given:
        sys.path.insert(0, str(given))
    warnings.simplefilter("ignore")
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    print("net, ball, method: largest difference, ours less theirs at least and at most, seconds")
    for name, model in nets().items():
        y = model(x).argmax(1)
        for norm, eps in (("Linf", 0.004), ("L2", 0.04)):
            for method in METHODS if "resnet" not in name else ("IBP", "CROWN-IBP"):
                start = time.perf_counter()
                one = ours(model, method, x, y, norm, eps)
                middle = time.perf_counter()
                gap = one - theirs(model, method, x, y, norm, eps)
                spent = middle - start, time.perf_counter() - middle
                print(
                    f"{name}, {norm} {eps}, {method}: {gap.abs().max():.1e}, "
                    f"{gap.min():+.1e} to {gap.max():+.1e}, {spent[0]:.2f} and {spent[1]:.2f}"
                )


if __name__ == "__main__":
    main()
