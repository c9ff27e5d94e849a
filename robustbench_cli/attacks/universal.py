"""Universal adversarial perturbations, UAP (Moosavi-Dezfooli et al., 2017).

https://arxiv.org/abs/1610.08401, algorithm 1: DeepFool from one image after the other, always from
where the perturbation of all images before has brought it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, FitSubject, State
from robustbench_cli.attacks._universal import Universal, added, in_ball
from robustbench_cli.attacks.deepfool import DeepFool
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat

BLOCK = 50
"""Images per round of fitting: so many are lost where a run is interrupted."""


@ATTACKS.register("universal", aliases=("uap",), pattern=r"(?:universal|uap)-?(?P<fit>\d+)")
@dataclass(frozen=True, kw_only=True)
class UAP(Universal):
    """One perturbation for all images, the sum of DeepFool's steps from training images in turn.

    Fitted to ``fit`` training images and then added to every image that is evaluated.  An image
    that the perturbation does not fool yet moves it on by DeepFool's step from there, if DeepFool
    succeeds; then it is projected to the ball.  That ends once ``1 - delta`` of the training images
    are fooled, or after ``passes``: the authors' code goes on for ever.  As there, a training image
    counts as fooled if its prediction is not that of the clean image; DeepFool is that
    for L2 under both norms, and starts at the perturbed image clipped to [0, 1], where their code
    does not clip.
    """

    delta: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """The share of training images that need not be fooled."""
    passes: Annotated[int, Field(ge=1)] = 10
    """The most passes over the training images."""
    deepfool_steps: Annotated[int, Field(ge=1)] = 10
    """The most steps of DeepFool for an image; one that needs more moves nothing."""
    overshoot: Annotated[Number, Field(ge=0)] = 0.02
    """DeepFool's."""
    candidates: Annotated[int, Field(ge=2)] = 10
    """DeepFool's number of classes."""

    @property
    def no_target(self) -> str:
        return "DeepFool steps to the nearest boundary, whatever class is behind it"

    def rounds(self, images: int) -> int:
        return self.passes * _blocks(images)

    def fit_begin(self, subject: FitSubject) -> State:
        predicted = _predictions(subject, torch.zeros_like(super().fit_begin(subject)["v"]))
        return {**super().fit_begin(subject), "clean": predicted, "fooled": torch.zeros(())}

    def fit_round(self, subject: FitSubject, state: State, index: int) -> State:
        v, clean, blocks = state["v"], state["clean"], _blocks(len(subject.rows))
        deepfool = DeepFool(
            steps=self.deepfool_steps, overshoot=self.overshoot, candidates=self.candidates
        )
        euclidean = Threat("L2", 1.0)  # DeepFool looks for the nearest image, whatever the radius
        turn, block = divmod(index, blocks)
        mine = subject.order(turn)[block * BLOCK : (block + 1) * BLOCK]
        for place in torch.split(mine, 1):
            x, y = added(subject, place, v), clean[place]
            if _predicted(subject, x, y) != y:
                continue
            further = subject.craft(deepfool, euclidean, x, y, subject.noise.only(place))
            if _predicted(subject, further, y) != y:
                v = in_ball(v + (further - x)[0], subject.threat)
        fooled = state["fooled"]
        if block == blocks - 1:
            fooled = (_predictions(subject, v) != clean).float().mean().cpu()
        return {"v": v, "clean": clean, "fooled": fooled}

    def fitted_enough(self, state: State) -> bool:
        return float(state["fooled"]) >= 1 - self.delta


def _blocks(images: int) -> int:
    return -(-images // BLOCK)


def _predicted(subject: FitSubject, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return subject.logits(x, y).argmax(1)


def _predictions(subject: FitSubject, v: Tensor) -> Tensor:
    """The predictions (M) for all images with ``v`` added."""
    every = torch.arange(len(subject.rows), device=subject.rows.device)
    parts = torch.split(every, subject.batch_size)
    return torch.cat([_predicted(subject, added(subject, p, v), subject.aims[p]) for p in parts])
