"""Several domains under one perturbation: runs, images, transforms, and every mixture of them.

An example of such an evaluation asks K questions at once: its label has K entries, its logits are
(B, K, C), and it is broken when all of them are answered wrongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Examples
from robustbench_cli.core.domain_weights import least_wrong
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.stages import VERDICT_COLUMNS, AttackVerdicts
from robustbench_cli.evaluation.verifier import Verdict, Verifier, check_admissible
from robustbench_cli.transforms import Transform


class Joint(nn.Module):
    """Every model on every image of an example, under every transform."""

    def __init__(self, models: Sequence[nn.Module], transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.transforms = transforms

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, C) of images (B, C, H, W), or of groups of them (B, G, C, H, W).

        Domains are counted image by image, model by model, transform by transform.
        """
        images = together(x).flatten(0, 1) if x.ndim == 5 else x
        seen = [transform(images) for transform in self.transforms]
        logits = torch.stack([model(each) for model in self.models for each in seen], 1)
        return logits.view(len(x), -1, logits.shape[2])


def together(x: Tensor) -> Tensor:
    """Groups of images (B, G, ...) whose gradients are that of one change to all of a group."""
    fixed = x.detach()
    return fixed + (x - fixed).sum(1, keepdim=True)


@dataclass(frozen=True)
class Groups:
    """Examples of ``size`` neighbouring images each, or of one, and their labels in K domains."""

    data: Examples
    size: int
    views: int
    """Domains per image."""

    @property
    def y(self) -> Tensor:
        """Labels (N, K)."""
        whole = len(self.data.y) // self.size * self.size
        return self.data.y[:whole].repeat_interleave(self.views).view(whole // self.size, -1)

    def images(self, rows: Tensor | slice) -> Tensor:
        """Images (B, C, H, W) or, of several at a time, groups of them (B, G, C, H, W)."""
        if self.size == 1:
            return self.data.images(rows)
        first = torch.arange(len(self.y), device=self.data.y.device)[rows] * self.size
        each = first[:, None] + torch.arange(self.size, device=first.device)
        found = self.data.images(each.flatten())
        return found.view(*each.shape, *found.shape[1:])


@dataclass(frozen=True)
class JointThreat(Threat):
    """One change for all images of a group (B, G, C, H, W), each of which stays in the box."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        each = super().distance(x_adv.flatten(0, 1), x.flatten(0, 1))
        return each.view(len(x), -1).amax(1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = (x_adv - x).mean(1)
        # Of each pixel, the image with the least room for this change decides.
        tight = torch.where(change > 0, x.amax(1), x.amin(1))
        moved = super().project(tight + change, tight) - tight
        return (x + moved[:, None]).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        return super().steepest(grad[:, 0])[:, None].expand_as(grad)

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        middle = torch.full_like(x[:, 0], 0.5)
        change = Threat(self.norm, self.eps).random_start(middle, noise) - middle
        return self.project(x + change[:, None], x)


@dataclass(frozen=True)
class JointVerifier(Verifier):
    """The judge of several domains: an example is broken when all of them are wrong."""

    def verdict(
        self, x_adv: Tensor, x: Tensor, y: Tensor, threat: Threat, *, bounded: bool = True
    ) -> Verdict:
        """Decide about images as a ``Verifier`` does, with a prediction for each domain (B, K)."""
        check_admissible(x_adv, x, threat, bounded=bounded)
        logits = self.logits(x_adv)
        right = (logits.argmax(2) == y).any(1)
        gap = margin(*least_wrong(logits, y))
        return Verdict(logits.argmax(2), right.float(), ~right, gap, 1)

    def broken(self, x_adv: Tensor, y: Tensor) -> Tensor:
        return (self.logits(x_adv).argmax(2) != y).all(1)


@dataclass(frozen=True)
class JointVerdicts(AttackVerdicts):
    """The verdicts on ``n`` examples in ``domains`` domains.

    ``prediction`` and ``weights`` are (N, K): the class in each domain at the image that counts,
    and what the attack weighed the domains with in the end.
    """

    @classmethod
    def of(cls, n: int, domains: int) -> "JointVerdicts":
        """Nothing is known yet."""
        arrays = cls.empty(n).arrays
        kind, void = VERDICT_COLUMNS["prediction"]
        prediction = np.full((n, domains), void, kind)
        weights = np.full((n, domains), 1 / domains, np.float32)
        return cls(arrays | {"prediction": prediction, "weights": weights})

    def put(self, stage: int, found: StageResult, minimal: bool) -> np.ndarray:
        if found.diagnostics.shape[1]:
            self.arrays["weights"][found.rows.numpy()] = found.diagnostics.numpy()
        return super().put(stage, found, minimal)
