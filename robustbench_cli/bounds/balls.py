"""The images around an example: an Lp ball, and the box [0, 1]."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.bounds.interval import Interval
from robustbench_cli.core.threat import Norm, Threat, over


@dataclass(frozen=True, kw_only=True)
class InputBall:
    """All images within a distance of B examples, clipped to the box [0, 1]."""

    x: Tensor
    """The examples (B, C, H, W) in [0, 1]."""
    eps: Tensor
    """The radius of each (B)."""
    norm: Norm = "Linf"

    @property
    def interval(self) -> Interval:
        """Bounds of each pixel."""
        eps = over(self.eps, self.x)
        return Interval((self.x - eps).clamp_min(0), (self.x + eps).clamp_max(1))

    @property
    def is_box(self) -> bool:
        """True if the bounds of the pixels are all that is known: a Linf ball."""
        return self.norm == "Linf"

    def lowest(self, a: Tensor) -> Tensor:
        """Return a lower bound of linear functions on the ball; under Linf it is the minimum.

        Under other norms it is the larger of two: that of the box around the ball and [0, 1], and
        a x - eps |a|, where |a| is the dual norm.

        Args:
            a: the coefficients (B, S, C, H, W) of S functions per example; those of one example
                hold for all.

        Returns:
            (B, S).
        """
        a = a.expand(len(self.x), *a.shape[1:])
        boxed = self.interval.lowest(a)
        if self.is_box:
            return boxed
        flat = a.flatten(2)
        at = (flat @ self.x.flatten(1).unsqueeze(2)).squeeze(2)
        return (at - self.eps.unsqueeze(1) * self.dual(a)).maximum(boxed)

    def dual(self, a: Tensor) -> Tensor:
        """Return the dual norms (B, S) of coefficients ``a`` (B, S, C, H, W)."""
        return Threat(self.norm, 1.0).dual(a.flatten(2))
