"""Certificates by lower bounds of the predicted class's margins on a ball."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.bounds import FLOAT32, BoundGraph, InputBall, Interval, TracedModel
from robustbench_cli.certificates import (
    ABSTAINS,
    Certificate,
    Certified,
    ProofEvidence,
    ProofSubject,
)
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.geometries import Ball
from robustbench_cli.core.threat import Norm, Threat

PARTS = (1 / 4, 1 / 2, 3 / 4)
"""The parts of eps at which certified accuracy is reported, beside eps itself."""


class MarginBounds(NamedTuple):
    """What bounds the margins of one model."""

    margins: Callable[[InputBall, Tensor], Tensor]
    """Lower bounds (B, K) on a ball of z_y - z_j, for classes y (B); anything for y itself."""
    answers: Callable[[Tensor], Interval]
    """Bounds of the logits (B, K) of images (B, C, H, W), which the model's own must keep to."""
    at_once: int
    """The number of examples for which memory is enough."""


@dataclass(frozen=True, kw_only=True)
class BoundCertificate(Certificate):
    """The predicted class, where it is proven to have the largest logit on the whole ball.

    The evaluation's own radius is tested first.  The largest proven radius is then searched by
    doubling and halving, and each radius of that search is a proof of its own.  The radius is a
    lower bound of what the same bounds could prove.
    """

    of_the_model: ClassVar[bool] = True

    tests: Annotated[int, Field(ge=2, le=40)] = 8
    """Radii that are tested per example after eps; the first two decide on its quarters."""

    @abstractmethod
    def bounds(self, subject: ProofSubject) -> MarginBounds:
        """Return what bounds the margins of the subject's model.

        Raises:
            UserError: a part of the model for which no bounds are known, by name.
        """

    def passes(self, subject: ProofSubject) -> int:
        return 1

    def norm_under(self, threat: Threat) -> Norm:
        return threat.norm

    def reported(self, threat: Threat) -> list[Threat]:
        return [Threat(threat.norm, part * threat.eps) for part in PARTS]

    def kept(self, subject: ProofSubject) -> dict[str, np.ndarray]:
        return {
            "predicted": np.array(ABSTAINS, np.int32),
            "margins": np.zeros(subject.classes),
            "reach": np.zeros(()),
        }

    def check(self, subject: ProofSubject) -> None:
        _ball(subject.threat)
        x = subject.data.images(slice(2))
        _check_answers(self.bounds(subject), x, subject.model(x))

    @torch.no_grad()
    def evidence(self, subject: ProofSubject, rows: Tensor) -> Iterator[ProofEvidence]:
        found, threat = self.bounds(subject), subject.threat
        for some in torch.split(rows, min(found.at_once, subject.batch)):
            x = subject.data.images(some)
            logits = subject.model(x)
            if not logits.isfinite().all():
                raise UserError("the model returned NaN or infinite logits; nothing is proven")
            _check_answers(found, x, logits)
            y = logits.argmax(1)
            margins, proven = self._proven(found, threat, x, y, x.new_full((len(x),), threat.eps))
            reach = self._reach(found, threat, x, y, proven)
            arrays = {"predicted": y.int(), "margins": margins, "reach": reach}
            numbers = {name: values.cpu().numpy() for name, values in arrays.items()}
            yield ProofEvidence(some.cpu().numpy(), numbers)

    def certify(self, evidence: Mapping[str, np.ndarray]) -> Certified:
        predicted, reach = evidence["predicted"], evidence["reach"]
        return Certified(
            prediction=predicted,
            certified=np.where(reach > 0, predicted, ABSTAINS),
            radius=reach,
            confidence=(reach > 0).astype(float),
        )

    def _reach(
        self, found: MarginBounds, threat: Threat, x: Tensor, y: Tensor, proven: Tensor
    ) -> Tensor:
        """Return the largest radii (B) that are proven, 0 where none is.

        Args:
            proven: whether eps itself is (B).
        """
        eps = torch.full((len(x),), threat.eps, dtype=torch.float64, device=x.device)
        low, high = torch.where(proven, eps, 0), torch.where(proven, torch.inf, eps)
        for _ in range(self.tests):
            radius = torch.where(high.isinf(), 2 * low, (low + high) / 2)
            radius = radius.clamp_max(threat.diameter(tuple(x.shape[1:])))
            _, proven = self._proven(found, threat, x, y, radius)
            low, high = torch.where(proven, radius, low), torch.where(proven, high, radius)
        return low

    def _proven(
        self, found: MarginBounds, threat: Threat, x: Tensor, y: Tensor, radius: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the bounds of the margins (B, K), 0 for y, and whether all others are above 0."""
        radius = radius.double()
        # Twice what an attack's image may be off, because that is measured in float32.
        eps = radius + 2 * _ball(threat).slack(radius)
        ball = InputBall(x=x.double(), eps=eps, norm=threat.norm)
        margins = found.margins(ball, y)
        own = torch.nn.functional.one_hot(y, margins.shape[1]).bool()
        # NaN, where bounds overflow, is not above 0.
        return margins.masked_fill(own, 0), ((margins > 0) | own).all(1)


@dataclass(frozen=True, kw_only=True)
class GraphCertificate(BoundCertificate):
    """Bounds by the operations of the model's own graph (see ``robustbench_cli.bounds``).

    They hold for the logits that the model computes in float32.
    """

    @abstractmethod
    def lower(self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int) -> Tensor:
        """Return lower bounds (B, K) of the margins z_y - z_j on the ball.

        Args:
            graph: the model's, in float64.
            ball: B examples.
            y: the class of each (B).
            classes: K.
        """

    def functions(self, subject: ProofSubject) -> int:
        """Return how many numbers are kept per example for each value of a layer: the margins."""
        return subject.classes

    def bounds(self, subject: ProofSubject) -> MarginBounds:
        image = subject.data.images(slice(1)).shape[1:]
        graph = TracedModel(subject.model).lowered(image, torch.float64)

        def margins(ball: InputBall, y: Tensor) -> Tensor:
            return self.lower(graph, ball, y, subject.classes)

        def answers(x: Tensor) -> Interval:
            at = InputBall(x=x.double(), eps=x.new_zeros(len(x)).double())
            return graph.intervals(at, FLOAT32)[graph.output]

        at_once = graph.examples_at_once(image, self.functions(subject))
        return MarginBounds(margins=margins, answers=answers, at_once=at_once)


def _check_answers(found: MarginBounds, x: Tensor, logits: Tensor) -> None:
    """Refuse a model that answers otherwise than the layers whose bounds are taken.

    Raises:
        UserError: its logits (B, K) on images (B, C, H, W) are outside the bounds at these images.
    """
    known = found.answers(x)
    if not ((known.low <= logits) & (logits <= known.high)).all():
        raise UserError(
            "no bounds are known for this model: it answers otherwise than the layers that "
            "torch.fx finds in it (its code branches on the image, or changes precision)"
        )


def _ball(threat: Threat) -> Ball:
    """Return the ball that a threat is.

    Raises:
        UserError: it is none.
    """
    if not isinstance(threat.geometry, Ball):
        raise UserError(
            f"bounds hold on balls of Linf, L2 and L1; nothing is proven under --norm {threat.norm}"
        )
    return threat.geometry
