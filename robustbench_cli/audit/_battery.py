"""What battery checks work with: a model whose claimed attack is done, and further attacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Attack
from robustbench_cli.audit._evidence import JudgedAttack
from robustbench_cli.core.example_rng import Noise, stream_generator
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.losses import wide
from robustbench_cli.core.robust_shares import lowered_shares
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.models.rejecting import shown_logits
from robustbench_cli.runs.audit_result import BatteryMeasure
from robustbench_cli.runs.trust import Finding


class RunAttack(Protocol):
    """Runs an attack on the examples of the evaluation."""

    def __call__(
        self,
        check: str,
        label: str,
        attack: Attack,
        *,
        eps: float | None = None,
        among: np.ndarray | None = None,
        source: nn.Module | None = None,
        judge: nn.Module | None = None,
    ) -> JudgedAttack:
        """Return the verdicts, and keep them in the record and in the journal.

        Args:
            check: the registered name of the check that asks for it.
            label: the attack's name in tables.
            eps: the radius, in pixels of [0, 1]; None: the evaluation's own.
            among: the examples to attack, a mask (N), of those that are right; None: all.
            source: the model to craft the images on; None: the evaluated one.
            judge: another model to attack in place of the evaluated one, which says whether it was
                broken: what becomes of that one, which proves nothing about the other.
        """


@dataclass(frozen=True, kw_only=True)
class Battery:
    """A model and the verdicts of its claimed attack on N examples, to be attacked further."""

    model: nn.Module
    """In evaluation mode, its weights frozen."""
    data: Examples
    classes: int
    threat: Threat
    """With a mask, bound to the N images."""
    noise: Noise
    """Keyed by example, N of them."""
    random: bool
    """True if the model is randomised."""
    differentiable: bool = True
    """True if a gradient passes through the model."""
    right: np.ndarray
    """True where the model is right about the clean image (N, bool)."""
    claimed: JudgedAttack
    """The verdicts of the claimed attack."""
    images: Tensor
    """The images (N, C, H, W) that the claimed attack ended with, on the CPU, as they are
    stored."""
    run: RunAttack
    train: Callable[[], Examples | None] = lambda: None
    """Returns the training images of the same data, where they are known."""
    plain: Callable[[], nn.Module | None] = lambda: None
    """Returns a small net trained without defense on them; None where they are not known."""
    thorough: bool = False
    """True if costly checks look at all images that they can use."""
    found: Sequence[Finding] = ()
    """What the checks before have found."""
    measures: list[BatteryMeasure] = field(default_factory=list)

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.right)

    @property
    def standing(self) -> np.ndarray:
        """The examples that are right when clean and under the claimed attack, a mask (N)."""
        return np.asarray(self.right & ~self.claimed.broken)

    def shown(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return logits as attacks see them (B, K): an error among them is not rejected."""
        return shown_logits(self.model, logits, y)

    def wrong(self, x: Tensor, y: Tensor) -> Tensor:
        """Return whether the model is wrong about images (B, C, H, W) with labels (B), (B, bool).

        An error that the model rejects is none.
        """
        with torch.no_grad():
            logits = wide(in_parts(self.model, x))
        return self.shown(logits, y).argmax(1) != y

    def share_left(self, judged: JudgedAttack, among: np.ndarray) -> float:
        """Return the accuracy that is left once another attack at the same radius is tried, too.

        Args:
            judged: the other attack.
            among: those of the examples that stood that it was tried on, a mask (N); what it finds
                there is taken to be so of all that stood.
        """
        own = self.claimed.share
        fall = (own - lowered_shares(own, judged.share))[among]
        lost = float(fall.mean()) if among.any() else 0.0
        return float(own.mean()) - lost * float(self.standing.mean())

    @property
    def diameter(self) -> float:
        """The radius of a ball that holds every image, from any image, as far as one may be."""
        return self.threat.diameter(tuple(self.images.shape[1:]))

    def some(self, rows: np.ndarray, most: int) -> np.ndarray:
        """Return at most ``most`` of the examples ``rows``, drawn by a keyed order; masks (N)."""
        where = rows.nonzero()[0]
        if self.thorough or len(where) <= most:
            return rows
        order = torch.randperm(
            len(where), generator=stream_generator(self.noise.seed, "battery")
        ).numpy()
        chosen = np.zeros(len(rows), bool)
        chosen[where[order[:most]]] = True
        return chosen

    def rows(self, mask: np.ndarray) -> Tensor:
        """Return the positions (B, int64) of the examples of a mask (N)."""
        return torch.from_numpy(mask.nonzero()[0]).to(self.data.y.device)

    def measured(self, check: str, text: str, passed: bool | None = None) -> None:
        """Keep what a check measured, in one sentence."""
        self.measures.append(BatteryMeasure(check=check, text=text, passed=passed))
