"""Universal adversarial perturbations by stochastic gradients (Shafahi et al., 2020).

https://arxiv.org/abs/1811.11304, algorithm 1: gradient steps on the mean of a clipped loss over
minibatches of training images.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from robustbench_cli.attacks import ATTACKS, FitSubject, State
from robustbench_cli.attacks._universal import Universal, added, in_ball
from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.registry import Number


@ATTACKS.register(
    "universal-sgd", aliases=("sgd-uap",), pattern=r"(?:universal-sgd|sgd-uap)-?(?P<fit>\d+)"
)
@dataclass(frozen=True, kw_only=True)
class UniversalSGD(Universal):
    """One perturbation for all images, by gradient steps over minibatches of training images.

    Fitted to ``fit`` training images and then added to every image that is evaluated.  A step goes
    along the sign of the summed gradient under Linf, along the gradient itself under L2.  The loss
    of an image is the cross-entropy, cut off at ``beta``: else a few images that are fooled anyway
    would decide where the steps go.  The paper states the loss and the step, and no single set of
    numbers; the defaults here are ours.  With a ``target`` class the cross-entropy of that class is
    descended.
    """

    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the training images."""
    batch: Annotated[int, Field(ge=1)] = 128
    """Images per step."""
    step: StepSize = 0.1
    """Step size as a fraction of eps."""
    beta: Annotated[Number, Field(gt=0)] = 9.0
    """The largest loss of an image that is climbed."""

    def rounds(self, images: int) -> int:
        return self.epochs

    def fit_round(self, subject: FitSubject, state: State, index: int) -> State:
        v = state["v"]
        for places in torch.split(subject.order(index), self.batch):
            leaf = v.clone().requires_grad_()
            with torch.enable_grad():
                aims = subject.aims[places]
                logits = subject.logits(added(subject, places, leaf), aims)
                loss = subject.cost(logits, aims).clamp(max=self.beta).sum()
                (grad,) = torch.autograd.grad(loss, leaf)
            direction = subject.threat.steepest(grad[None])[0]
            v = in_ball(v + self.step * subject.threat.eps * direction, subject.threat)
        return {"v": v}
