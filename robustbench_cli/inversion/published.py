"""What a model publishes about images: its confidences and, on request, an explanation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.inversion.net import PublishedAnswers

_AT_ONCE = 128
"""Images in a pass through the model; what is published does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """A model and how it explains itself."""

    model: nn.Module
    """In evaluation mode and float32."""
    explanation: Explanation | None = None
    """None: it publishes confidences only."""
    seed: int = 0
    progress: Callable[[int, int], None] = lambda _done, _of: None
    """Called with the images that are explained, and how many there are."""

    def answers(self, data: Split, target: Tensor | None = None) -> PublishedAnswers:
        """Return what is published of images: confidences (N, K) and maps (N, C, H, W), unscaled.

        Args:
            target: the classes (N) that are explained; None: the predicted ones.

        Raises:
            UserError: a map is NaN or infinite.
        """
        noise = Noise(self.seed, data.ids).fork("published explanation")
        confidences, maps = [], []
        for rows in torch.split(torch.arange(len(data), device=data.y.device), _AT_ONCE):
            x = data.images(rows)
            with torch.no_grad():
                logits = self.model(x)
            confidences.append(logits.float().softmax(1))
            if self.explanation is not None:
                classes = logits.argmax(1) if target is None else target[rows]
                asked = ExplainedImages(
                    model=self.model, x=x, target=classes, noise=noise.only(rows)
                )
                maps.append(self._finite(self.explanation.attributions(asked).detach().float()))
                self.progress(int(rows[-1]) + 1, len(data))
        return PublishedAnswers(torch.cat(confidences), torch.cat(maps) if maps else None)

    def _finite(self, maps: Tensor) -> Tensor:
        bad = int((~maps.flatten(1).isfinite().all(1)).sum())
        if bad:
            name = EXPLANATIONS.name_of(self.explanation)
            raise UserError(f"explanation {name!r} is NaN or infinite for {bad} images of a batch")
        return maps


def map_scale(maps: Tensor) -> float:
    """Return the root mean square of maps (N, C, H, W), by which an attacker divides them."""
    return max(float(maps.double().square().mean().sqrt()), 1e-12)


def scaled(known: PublishedAnswers, scale: float) -> PublishedAnswers:
    """Return the answers with maps divided by ``scale``."""
    return known._replace(maps=None if known.maps is None else known.maps / scale)
