"""A plain net that learns the model's answers (Papernot et al., 2017).

https://arxiv.org/abs/1602.02697: a substitute is trained on what the model answers, its images are
moved along its own gradients, and the model is asked about those.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.gradient_ascent import Ascent, ascend
from robustbench_cli.core.losses import kl, wide
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.views import VIEWS, View, ViewSubject
from robustbench_cli.views._plain_net import plain_net

_SHARPNESS = 4.0
"""The median gap of the two largest logits that the student is taught."""
_BATCH = 64


@VIEWS.register("student")
@dataclass(frozen=True, kw_only=True)
class Student(View):
    """Distil the model into a small convolutional net, and attack that.

    It is taught on the evaluation's images with noise from the ball, and on what a short attack on
    it makes of them.  Called for where gradients are not to be trusted, or the model is randomised.
    Every image of the attack is classified by the model itself.
    """

    faithful: ClassVar[bool] = False

    rounds: Annotated[int, Field(ge=1)] = 3
    """How often the model is asked about new images."""
    updates: Annotated[int, Field(ge=1)] = 120
    """Adam steps after each of them."""
    copies: Annotated[int, Field(ge=1)] = 4
    """Noisy copies of each image that the model is asked about at first."""

    def build(self, subject: ViewSubject) -> nn.Module | None:
        if subject.gradients.sound and not subject.random:
            return None
        with torch.enable_grad(), same_draws():
            return self._taught(subject)

    def _taught(self, subject: ViewSubject) -> nn.Module:
        threat, x = subject.threat, subject.x
        noise = subject.noise.fork("student")
        noisy = [threat.random_start(x, noise.fork(f"copy {k}")) for k in range(self.copies)]
        images = torch.cat([x, *noisy])
        answers = _answers(subject.model, images)
        top = answers.topk(2, dim=1).values
        scale = _SHARPNESS / float((top[:, 0] - top[:, 1]).median().clamp_min(1e-12))
        student = plain_net(x, answers.shape[1])
        optimizer = torch.optim.Adam(student.parameters(), 2e-3)
        order = stream_generator("student")
        climb = Ascent(steps=5, step=0.4, start="uniform")
        for number in range(self.rounds):
            if number:
                labels, beside = answers[: len(x)].argmax(1), noise.fork(f"round {number}")
                moved = ascend(student.eval(), _wrong, labels, x, threat, beside, climb)
                images = torch.cat([images, moved])
                answers = torch.cat([answers, _answers(subject.model, moved)])
            for _ in range(self.updates):
                rows = torch.randint(len(images), (_BATCH,), generator=order).to(x.device)
                loss = kl(student.train()(images[rows]), scale * answers[rows]).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return student.eval().requires_grad_(False)


def _wrong(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    """The model's logits (B, K), without a gradient."""
    with torch.no_grad():
        return torch.cat([wide(model(part)) for part in torch.split(x, _BATCH)])
