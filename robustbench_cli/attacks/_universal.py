"""What universal perturbations share: one change ``v`` that is added to every image."""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.attacks import FitSubject, FittedAttack, State, Task
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Universal(FittedAttack, ABC):
    """One perturbation for all images: fitted to training images, added to each example."""

    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2")

    def begin(self, task: Task) -> State:
        return {"x": task.threat.project(task.x + task.fitted["v"].to(task.x), task.x)}

    def fit_begin(self, subject: FitSubject) -> State:
        return {"v": torch.zeros_like(subject.images(torch.zeros_like(subject.rows[:1]))[0])}

    def picture(self, fitted: State, threat: Threat) -> Tensor:
        """Return the perturbation as an image: grey where it is zero, its largest entry at 0 or 1.

        Shape (C, H, W).
        """
        v = fitted["v"]
        return 0.5 + v / (2 * v.abs().amax().clamp_min(1e-12))


def added(subject: FitSubject, places: Tensor, v: Tensor) -> Tensor:
    """Return the images (B, C, H, W) at these places (B), with ``v`` (C, H, W) added."""
    return (subject.images(places) + v).clamp(0, 1)


def in_ball(v: Tensor, threat: Threat) -> Tensor:
    """Return the nearest change (C, H, W) to ``v`` whose norm is at most the radius.

    The box [0, 1] has no part in it: a change that is too much for one image is cut off there.
    """
    if threat.norm == "Linf":
        return v.clamp(-threat.eps, threat.eps)
    length: Tensor = torch.linalg.vector_norm(v)
    return v * (threat.eps / length.clamp_min(1e-12)).clamp(max=1)
