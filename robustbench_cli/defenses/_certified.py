"""Training on bounds of the margins in the whole ball: what certified defenses share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.bounds import BoundGraph, InputBall, TracedModel
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.model_modes import full_float32
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses._parts import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.optim import Fraction

_MID, _POWER = 0.25, 4
"""Where the smooth ramp becomes a line, as a share of the ramp, and its exponent before."""


@dataclass(frozen=True, kw_only=True)
class CertifiedTraining(Objective):
    """kappa times the criterion on the clean images, 1 - kappa times that on bounds in the ball.

    The second one reads, in place of logits, minus a lower bound of the margin z_y - z_j for each
    class j, and 0 for y: no image of the ball has a larger cross-entropy.
    """

    kappa: Fraction = 0.5
    """Weight of the clean term once the ramp is over; it goes there from ``kappa_start``."""
    kappa_start: Fraction = 1.0
    """Weight of the clean term where the ramp begins."""
    warmup: Fraction = 0.0
    """Share of the run before the ramp, with the clean term alone."""
    ramp: Fraction = 0.0
    """Share of the run in which the radius grows from 0; 0: it is there at once."""
    curve: Literal["linear", "smooth"] = "linear"
    """How the radius grows: linear, or smooth, with the fourth power of time in the first quarter
    of the ramp and a line from there on that continues its slope."""
    stretch: Annotated[Number, Field(gt=0)] = 1.0
    """The radius of training as a multiple of eps."""

    one_label: ClassVar[bool] = True
    small_model: ClassVar[str] = "strided-cnn"

    @abstractmethod
    def margins(
        self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, grown: float
    ) -> Tensor:
        """Return lower bounds (B, K) of the margins z_y - z_j on the ball, 0 for y itself.

        Args:
            graph: the model's, with its present weights.
            ball: B examples.
            y: the class of each (B).
            classes: K.
            grown: the radius as a share of the last one, in (0, 1].
        """

    def auxiliary(self, setting: Setting) -> nn.Module | None:
        """Refuse, before training, what has no bounds; nothing is kept.

        Raises:
            UserError: the reason.
        """
        name = DEFENSES.name_of(self)
        if not setting.threat.is_ball or setting.threat.mask:
            raise UserError(
                f"{name} trains on bounds of whole Linf, L2 or L1 balls, got {setting.threat}"
            )
        shape = setting.shape
        try:
            self.graph(setting.model, shape.channels, shape.height, shape.width)
        except UserError as error:
            raise UserError(
                f"{name}: {error}; train a net of convolutions, linear layers and ReLU, e.g. "
                "--model ibp-small or --model strided-cnn"
            ) from None
        return None

    def graph(self, model: nn.Module, *image: int) -> BoundGraph:
        """Return the graph of a model with its weights as they are now.

        Args:
            image: the size of one image: C, H, W.

        Raises:
            UserError: a layer for which no bounds are known, by name.
        """
        with full_float32(model):
            dtype = next(model.parameters()).dtype
            return TracedModel(model).lowered(torch.Size(image), dtype)

    def grown(self, progress: float) -> float:
        """Return the radius as a share of the last one, in [0, 1].

        Args:
            progress: the share of the run that is done.
        """
        done = self.done(progress)
        if self.curve == "linear":
            return done
        rise = _MID**_POWER + (1 - _MID) * _POWER * _MID ** (_POWER - 1)
        if done < _MID:
            return done**_POWER / rise
        return (_MID**_POWER + (done - _MID) * _POWER * _MID ** (_POWER - 1)) / rise

    def done(self, progress: float) -> float:
        """Return the share of the ramp that is done, in [0, 1].

        Args:
            progress: the share of the run that is done.
        """
        if progress < self.warmup:
            return 0.0
        return min(1.0, (progress - self.warmup) / self.ramp) if self.ramp else 1.0

    def loss(self, step: Step, logits: Passes) -> Tensor:
        clean = step.criterion(logits["clean"], step.y)
        grown = self.grown(step.progress)
        if not grown:
            return clean
        graph = self.graph(step.model, *step.x.shape[1:])
        x = step.x.to(graph.dtype)
        eps = x.new_full((len(x),), self.stretch * step.threat.eps * grown)
        ball = InputBall(x=x, eps=eps, norm=step.threat.norm)
        margins = self.margins(graph, ball, step.y, logits["clean"].shape[1], grown)
        kappa = self.kappa_start - (self.kappa_start - self.kappa) * self.done(step.progress)
        return kappa * clean + (1 - kappa) * step.criterion(-margins, step.y)
