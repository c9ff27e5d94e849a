"""Other numbers of iterations of a solver that a network unrolls.

A solver that stops early may hide gradients, as any long computation may (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420): images are crafted where it runs longer, and where it does not
run at all, and tried on the network as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import nn

from robustbench_cli.audit import CHECKS, Battery, BatteryCheck
from robustbench_cli.core.losses import wide
from robustbench_cli.core.registry import Number
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.models.unrolled import unrolled_iterations, with_iterations
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("iterations")
@dataclass(frozen=True, kw_only=True)
class Iterations(BatteryCheck):
    """Where a solver is unrolled, images of other iterations must break little that stood.

    The claimed attack is made on the same weights with ``factor`` times the iterations, and on the
    feed-forward network, and tried on the model; at most ``images`` that stood are attacked,
    unless the audit is thorough.  Told beside it is how accuracy changes with the iterations: on
    clean images, on the images of the claimed attack, and under the attack made for more of them.
    """

    passes: ClassVar[float] = 240
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "images crafted on the same weights with {what} broke {images} of {of} images that the "
        "claimed attack had left standing"
    )
    means: ClassVar[str] = "the solver, which stops early, masks gradients"

    factor: PositiveInt = 4
    """How many times as many iterations there are in the longer network."""
    share: Number = 0.02
    """The share of all images from which the number is marked, as for the transfer."""
    least: int = 3
    """The smallest number of images that counts."""
    images: int = 64
    """Images on which each attack is tried."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        own = unrolled_iterations(battery.model)
        if not own:
            battery.measured("iterations", "not made: the model unrolls no solver")
            return
        more = self.factor * own
        longer = with_iterations(battery.model, more)
        self._tell(battery, own, more, longer)
        yield from self._transfer(battery, longer, f"{more} iterations", own)
        plain = with_iterations(battery.model, 0)
        yield from self._transfer(battery, plain, "no iterations (feed-forward)", own)

    def _tell(self, battery: Battery, own: int, more: int, longer: nn.Module) -> None:
        """Keep how accuracy changes where the solver runs longer."""
        label, right = battery.claimed.label, float(battery.right.mean())
        clean = _accuracy(battery, longer, battery.data.images(slice(None)))
        shown = _accuracy(battery, longer, battery.images)
        among = battery.some(battery.right, self.images)
        attacked = battery.run(
            "iterations",
            f"{label} against {more} iterations",
            battery.claimed.attack,
            among=among,
            judge=longer,
        )
        tried = max(1, int(among.sum()))
        stands, before = (int((among & ~x.broken).sum()) for x in (attacked, battery.claimed))
        for text in (
            f"with {more} iterations the same weights are right about {clean:.1%} of the clean "
            f"images (with {own}: {right:.1%})",
            f"with {more} iterations they are right about {shown:.1%} of the images of {label} "
            f"(with {own}: {float(battery.claimed.share.mean()):.1%})",
            f"of {tried} images {stands} stand with {more} iterations under {label} made for them "
            f"(with {own}: {before})",
        ):
            battery.measured("iterations", text)

    def _transfer(self, battery: Battery, net: nn.Module, what: str, own: int) -> Iterator[Finding]:
        """Try on the model, with its own iterations, what is crafted on the net with others."""
        among = battery.some(battery.standing, self.images)
        tried = int(among.sum())
        if not tried:
            battery.measured("iterations", f"with {what}: not made: nothing stood")
            return
        label = f"{battery.claimed.label} with {what}"
        judged = battery.run("iterations", label, battery.claimed.attack, among=among, source=net)
        broken = int(judged.broken.sum())
        share = broken / tried * float(np.mean(battery.standing))
        bad = broken >= self.least and share > self.share
        battery.measured(
            "iterations",
            f"images crafted with {what} broke {broken} of {tried} that had stood with {own}",
            not bad,
        )
        if broken:
            yield self.broken(
                broken,
                tried,
                marked=bad,
                what=what,
                value=share,
                threshold=self.share,
                accuracy=battery.share_left(judged, among),
            )


def _accuracy(battery: Battery, net: nn.Module, images: torch.Tensor) -> float:
    """Return the share of images (N, C, H, W) with the evaluation's labels that a net names."""
    y = battery.data.y
    with torch.no_grad():
        logits = wide(in_parts(net, images.to(y.device)))
    return float((battery.shown(logits, y).argmax(1) == y).float().mean())
