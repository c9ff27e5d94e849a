"""The adversarial patch (Brown et al., 2017), https://arxiv.org/abs/1712.09665.

One picture for all images, fitted so that it leads them astray wherever it is stuck on them, by
expectation over places, sizes and rotations.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, FitSubject, FittedAttack, Observation, State, Task
from robustbench_cli.attacks._stuck_on import drawn_poses, stuck_on
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat


@ATTACKS.register("patch", pattern=r"patch-?(?P<fit>\d+)")
@dataclass(frozen=True, kw_only=True)
class AdversarialPatch(FittedAttack):
    """One patch for all images, at a random place, size and rotation on each of them.

    Fitted to ``fit`` training images by Adam on the mean loss over random poses, a new one for each
    image and epoch; then stuck on every image that is evaluated.  ``--eps`` is the side of the
    square that holds it: no part of a turned patch is outside of that.  With a ``target`` class its
    cross-entropy is descended, as in the paper; without one the true class's is climbed.
    Rotations, and Adam with steps of 5/255, are those of ART; its patches may be as small as a
    tenth of an image, these no smaller than half of their square.
    """

    norms: ClassVar[tuple[str, ...]] = ("patch",)

    shape: Literal["circle", "square"] = "circle"
    """A round patch, the largest one in its square, or a square one."""
    rotation: Annotated[Number, Field(ge=0, le=180)] = 22.5
    """The largest rotation in degrees, either way."""
    scale: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """The least size, as a part of the square's side; the largest is 1."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the training images."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Images per step."""
    lr: Annotated[Number, Field(gt=0)] = 5 / 255
    """Adam's learning rate, for pixels in [0, 1]."""
    tries: Annotated[int, Field(ge=1)] = 1
    """Random poses on each evaluated image; any of them may break it."""

    @property
    def planned_passes(self) -> int:
        return 2 * self.tries

    def rounds(self, images: int) -> int:
        return self.epochs

    def fit_begin(self, subject: FitSubject) -> State:
        channels, side = subject.images(0 * subject.rows[:1]).shape[1], int(subject.threat.eps)
        start = torch.full((channels, side, side), 0.5, device=subject.rows.device)
        return {"patch": start, "mean": 0 * start, "square": 0 * start, "step": torch.zeros(())}

    def fit_round(self, subject: FitSubject, state: State, index: int) -> State:
        patch, mean, square, step = (state[k] for k in ("patch", "mean", "square", "step"))
        epoch = torch.full_like(subject.rows, index)
        for places in torch.split(subject.order(index), self.batch):
            noise, aims = subject.noise.only(places).fork("pose"), subject.aims[places]
            leaf, x = patch.clone().requires_grad_(), subject.images(places)
            with torch.enable_grad():
                shown = self._shown(x, leaf, noise.at(epoch[places]))
                loss = subject.cost(subject.logits(shown, aims), aims).mean()
                (grad,) = torch.autograd.grad(loss, leaf)
            step = step + 1
            mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
            size = (square / (1 - 0.999 ** float(step))).sqrt() + 1e-8
            patch = (patch + self.lr * mean / (1 - 0.9 ** float(step)) / size).clamp(0, 1)
        return {"patch": patch, "mean": mean, "square": square, "step": step}

    def _shown(self, x: Tensor, patch: Tensor, noise: Noise) -> Tensor:
        poses = drawn_poses(x, patch.shape[-1], self.rotation, self.scale, noise)
        return stuck_on(x, patch, poses, round_=self.shape == "circle")

    def begin(self, task: Task) -> State:
        return {"x": self._placed(task, 0 * task.y)}

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {"x": self._placed(task, observation.step_index + 1)}

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= self.tries - 1

    def _placed(self, task: Task, draw: Tensor) -> Tensor:
        patch = task.fitted["patch"].to(task.x)
        return self._shown(task.x, patch, task.noise.fork("pose").at(draw))

    def picture(self, fitted: State, threat: Threat) -> Tensor:
        """Return the patch (C, S, S) in [0, 1] on white."""
        white = torch.ones_like(fitted["patch"])[None]
        straight = torch.tensor([[0.0, 0.0, 0.0, 1.0]], device=white.device)
        return stuck_on(white, fitted["patch"], straight, round_=self.shape == "circle")[0]
