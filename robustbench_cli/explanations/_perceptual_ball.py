"""The objective of the perceptual ball (Elliott et al., 2021), https://arxiv.org/abs/1912.09405.

``explanations.perceptual_ball`` explains with it, ``attacks.perceptual`` attacks with it.  One
image at a time: (m(x') - v)^2 + s MSE(x', x) + gamma sum over taps of MSE(f(x'), f(x)), where m is
a score of the model's logits, MSE the mean over all elements, and f the output of a layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.models.taps import EMBEDDING, tapped

RELUS = "relus"
"""The taps that stand for the outputs of all modules ``nn.ReLU``."""
_PROBE = 0.01
"""Standard deviation of the noise at which a relative gamma compares the two distances."""


@dataclass(frozen=True, kw_only=True)
class BallSettings:
    """The numbers of the objective and of its descent."""

    v: float
    """The score to reach."""
    s: float
    """Weight of the distance in pixels."""
    gamma: float
    """Weight of the distances in features."""
    relative: bool = False
    """Whether gamma counts in units of the image's own (see ``BallObjective``)."""
    steps: int
    """Most iterations of L-BFGS."""
    rate: float
    """Its learning rate; in the box a line search takes its place."""
    box: bool
    """Whether the image stays in [0, 1]."""


class _Seen(NamedTuple):
    """An image that was evaluated; the better one is the smaller by the first two."""

    refused: bool
    height: float
    x: Tensor
    apart: float


class Descent(NamedTuple):
    """The image that a descent found, and what the objective was there."""

    x: Tensor
    """(1, C, H, W)."""
    objective: float
    """Of that image."""
    first: float
    """Of the clean image."""
    feature_distance: float
    """The sum over taps of the mean squared differences, without gamma; 0 without taps."""


def tap_names(model: Any, taps: str, *, needed: bool = True) -> tuple[str, ...]:
    """Return the names of the layers to compare, in the order of the model's modules.

    Args:
        model: anything with ``named_modules``.
        taps: names or patterns (``*.relu?``), parted by commas; ``embedding``; or ``relus``.
        needed: whether a model without a ReLU is refused where ``relus`` are asked for.

    Raises:
        UserError: a name or pattern that the model has no layer for, or no ReLU.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if taps == RELUS:
        rectifiers = tuple(n for n, module in modules.items() if isinstance(module, nn.ReLU))
        if needed and not rectifiers:
            raise UserError(
                "the perceptual ball compares the outputs of ReLUs, and the model has no nn.ReLU: "
                "name layers, taps=NAME or taps=PATTERN, or take gamma=0"
            )
        return rectifiers
    names = dict.fromkeys([*modules, EMBEDDING], False)
    for word in filter(None, map(str.strip, taps.split(","))):
        matched = [name for name in names if fnmatchcase(name, word)]
        if not matched:
            raise UserError(f"taps: the model has no layer {word!r}{hint(word, names)}")
        names.update(dict.fromkeys(matched, True))
    return tuple(name for name, wanted in names.items() if wanted)


def feature_distances(model: Any, x: Tensor, moved: Tensor, taps: Sequence[str]) -> Tensor:
    """Return the sums over taps of the mean squared differences of features (B), without gamma.

    Args:
        x: images (B, C, H, W).
        moved: what they are compared with (B, C, H, W).
    """
    kept = []
    with tapped(model, taps) as features, torch.no_grad():
        for images in (x, moved):
            model(images)
            kept.append([features[name].flatten(1) for name in taps])
    apart = [(a - b).square().mean(1) for a, b in zip(*kept, strict=True)]
    return torch.stack(apart).sum(0) if apart else x.new_zeros(len(x))


def _any(_logits: Tensor) -> bool:
    return True


class BallObjective:
    """The objective for one image; ``opened`` makes it and hooks the taps.

    A relative gamma is in units at which both distances weigh the same at x + 0.01 N(0, 1).
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        score: Callable[[Tensor], Tensor],
        settings: BallSettings,
        features: dict[str, Tensor],
        taps: Sequence[str],
    ) -> None:
        self._model, self._score, self._settings = model, score, settings
        self._found, self._taps, self._x = features, taps, x.detach()
        with torch.no_grad():
            model(self._x)
        self._clean = {name: features[name].detach().clone() for name in taps}
        self.gamma = settings.gamma
        """The weight of features, absolute."""

    @classmethod
    @contextmanager
    def opened(
        cls,
        model: Any,
        x: Tensor,
        score: Callable[[Tensor], Tensor],
        settings: BallSettings,
        taps: Sequence[str],
        noise: Tensor | None = None,
    ) -> Iterator["BallObjective"]:
        """Give the objective for the image ``x`` (1, C, H, W); its hooks go with the context.

        Args:
            score: the number (1) to bring to v, of logits (1, K).
            noise: standard normal (1, C, H, W), for a relative gamma.
        """
        with tapped(model, taps) as features:
            made = cls(model, x, score, settings, features, taps)
            if settings.relative and noise is not None and taps:
                made.gamma *= made._unit(_PROBE * noise)
            yield made

    def _unit(self, noise: Tensor) -> float:
        """The gamma at which both distances weigh the same at x + ``noise`` (1, C, H, W)."""
        with torch.no_grad():
            self._model(self._x + noise)
            apart = float(self._apart())
        return self._settings.s * float(noise.square().mean()) / apart if apart > 0 else 0.0

    def _apart(self) -> Tensor:
        return sum(
            ((self._found[n] - self._clean[n]).square().mean() for n in self._taps),
            self._x.new_zeros(()),
        )

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the objective, the logits (1, K) and the feature distance at an image."""
        logits = self._model(image)
        apart = self._apart()
        pixels = (image - self._x).square().mean()
        miss = (self._score(logits) - self._settings.v).square().sum()
        return miss + self._settings.s * pixels + self.gamma * apart, logits, apart

    def descend(self, wanted: Callable[[Tensor], bool] = _any) -> Descent:
        """Go down from the clean image, in the box if the settings say so.

        Args:
            wanted: in the box: whether an image with these logits (1, K) may be returned; where
                none may, the one with the smallest objective is.
        """
        return self._bounded(wanted) if self._settings.box else self._free()

    def _free(self) -> Descent:
        """Run the authors' L-BFGS and return the image where it ends.

        It has no line search.  Where it ran away the best image that was evaluated is returned, so
        that the objective never rises.
        """
        settings, image = self._settings, self._x.clone().requires_grad_()
        optimizer: Any = torch.optim.LBFGS([image], lr=settings.rate, max_iter=settings.steps)
        seen: list[_Seen] = []
        best = _Seen(True, torch.inf, self._x, 0.0)

        def look() -> Tensor:
            nonlocal best
            # By the image only: the weights get no gradients.
            here, image.grad = self._look(image.detach())
            best = here if here[:2] < best[:2] else best  # NaN is smaller than nothing
            seen[1:] = [here]  # the first and the last
            return image.new_tensor(here.height)

        optimizer.step(look)
        look()  # the last step's image, which the optimizer does not evaluate
        first, last = seen
        found = last if last.height <= first.height else best
        return Descent(found.x, found.height, first.height, found.apart)

    def _bounded(self, wanted: Callable[[Tensor], bool]) -> Descent:
        """Run L-BFGS-B, with bounds and a line search; return the best image.

        Its first step is the whole gradient, which would end in a corner of the box: the objective
        is scaled so that this step is as long as torch's, whose L-BFGS has no bounds.
        """
        from scipy import optimize  # type: ignore[import-untyped]  # slow to import

        seen: list[_Seen] = []
        best = _Seen(True, torch.inf, self._x, 0.0)

        def look(flat: Any) -> tuple[float, Any]:
            nonlocal best
            here, slope = self._look(torch.tensor(flat).to(self._x).view_as(self._x), wanted)
            best = here if here[:2] < best[:2] else best  # NaN is smaller than nothing
            seen[1:] = [here]
            return here.height * scale, slope.flatten().cpu().numpy().astype(float) * scale

        start, scale = self._x.flatten().cpu().numpy().astype(float), 1.0
        scale = 1 / max(1.0, float(abs(look(start)[1]).sum()))
        optimize.minimize(
            look,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * len(start),
            # The tolerances are absolute, those of an objective that is not scaled.
            options={"maxiter": self._settings.steps, "ftol": 1e-9 * scale, "gtol": 1e-5 * scale},
        )
        return Descent(best.x, best.height, seen[0].height, best.apart)

    def _look(
        self, image: Tensor, wanted: Callable[[Tensor], bool] = _any
    ) -> "tuple[_Seen, Tensor]":
        """Return what there is to say of an image (1, C, H, W), and the objective's gradient."""
        image = image.clone().requires_grad_()
        with torch.enable_grad():
            value, logits, apart = self(image)
            (slope,) = torch.autograd.grad(value, image)
        refused = not wanted(logits.detach())
        here = _Seen(refused, float(value.detach()), image.detach(), float(apart.detach()))
        return here, slope
