"""Several domains under one perturbation: models, images, transforms, and all their combinations.

An example has K domains: its label has K entries, its logits are (B, K, classes), and it is broken
when it is misclassified in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.core.domain_weights import least_wrong
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.admissible import check_admissible
from robustbench_cli.evaluation.stages import VERDICT_COLUMNS, AttackVerdicts
from robustbench_cli.evaluation.verifier import Verdict, Verifier
from robustbench_cli.transforms import Transform


class Joint(nn.Module):
    """All models as one, on every image of an example, under every transform."""

    def __init__(self, models: Sequence[nn.Module], transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.transforms = transforms

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K, classes) of images (B, C, H, W), or of groups (B, G, C, H, W).

        Domains are ordered by image, then by model, then by transform.
        """
        images = with_shared_change(x).flatten(0, 1) if x.ndim == 5 else x
        transformed = [transform(images) for transform in self.transforms]
        logits = torch.stack([model(each) for model in self.models for each in transformed], 1)
        return logits.view(len(x), -1, logits.shape[2])


def with_shared_change(x: Tensor) -> Tensor:
    """Return ``x`` (B, G, C, H, W) such that its gradient is that of one change to a whole group.

    The values are the same; each image of a group receives the sum of the group's gradients.
    """
    fixed = x.detach()
    return fixed + (x - fixed).sum(1, keepdim=True)


@dataclass(frozen=True)
class Groups:
    """Examples of ``size`` consecutive images each, with labels in K domains."""

    data: Examples
    size: int
    """The number of images in a group, G; 1: examples are images (C, H, W), not groups."""
    views: int
    """The number of domains per image: models times transforms."""

    @property
    def y(self) -> Tensor:
        """Labels (N, K) int64."""
        whole = len(self.data.y) // self.size * self.size
        return self.data.y[:whole].repeat_interleave(self.views).view(whole // self.size, -1)

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return images (B, C, H, W) in [0, 1], or groups (B, G, C, H, W) where ``size`` > 1."""
        if self.size == 1:
            return self.data.images(rows)
        each = self._members(rows)
        images = self.data.images(each.flatten())
        return images.view(*each.shape, *images.shape[1:])

    def expect(self, rows: Tensor) -> None:
        """Say that ``images`` will be asked for these positions (B), in this order."""
        self.data.expect(rows if self.size == 1 else self._members(rows).flatten())

    def _members(self, rows: Tensor | slice) -> Tensor:
        """Return the positions (B, G) of the images of groups."""
        first = torch.arange(len(self.y), device=self.data.y.device)[rows] * self.size
        return first[:, None] + torch.arange(self.size, device=first.device)


@dataclass(frozen=True)
class JointThreat(Threat):
    """One change shared by all images of a group (B, G, C, H, W), which all stay in the box."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        each = super().distance(x_adv.flatten(0, 1), x.flatten(0, 1))
        return each.view(len(x), -1).amax(1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = (x_adv - x).mean(1)
        # At each pixel, the image that is nearest to the border of the box limits the change.
        limiting = torch.where(change > 0, x.amax(1), x.amin(1))
        projected = super().project(limiting + change, limiting) - limiting
        return (x + projected[:, None]).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        return super().steepest(grad[:, 0])[:, None].expand_as(grad)

    def random_start(self, x: Tensor, noise: Noise) -> Tensor:
        middle = torch.full_like(x[:, 0], 0.5)
        change = Threat(self.norm, self.eps).random_start(middle, noise) - middle
        return self.project(x + change[:, None], x)


@dataclass(frozen=True)
class JointVerifier(Verifier):
    """The verifier of several domains: an example is broken when it is misclassified in all."""

    def verdict(
        self,
        x_adv: Tensor,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        bounded: bool = True,
        noise: Noise | None = None,
    ) -> Verdict:
        """Decide as a ``Verifier`` does; ``prediction`` has one class for each domain (B, K)."""
        check_admissible(x_adv, x, threat, bounded=bounded)
        logits = self.logits(x_adv)
        right = (logits.argmax(2) == y).any(1)
        gap = margin(*least_wrong(logits, y))
        return Verdict(logits.argmax(2), right.float(), ~right, gap, 1)

    def broken(self, x_adv: Tensor, y: Tensor, noise: Noise | None = None) -> Tensor:
        return (self.logits(x_adv).argmax(2) != y).all(1)


@dataclass(frozen=True)
class JointVerdicts(AttackVerdicts):
    """The verdicts on N examples in K domains.

    ``prediction`` and ``weights`` are (N, K): the class in each domain at the image that counts,
    and the weights that the attack gave the domains in the end.
    """

    @classmethod
    def of(cls, n: int, domains: int) -> "JointVerdicts":
        """Return the verdicts on ``n`` examples of which nothing is known yet."""
        arrays = cls.empty(n).arrays
        kind, void = VERDICT_COLUMNS["prediction"]
        prediction = np.full((n, domains), void, kind)
        weights = np.full((n, domains), 1 / domains, np.float32)
        return cls(arrays | {"prediction": prediction, "weights": weights})

    def put(self, stage: int, result: StageResult, minimal: bool) -> np.ndarray:
        if result.diagnostics.shape[1]:
            self.arrays["weights"][result.rows.numpy()] = result.diagnostics.numpy()
        return super().put(stage, result, minimal)
