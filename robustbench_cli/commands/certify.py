"""``advbench eval --certify``: certified accuracy, certificate by certificate."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, Certificate
from robustbench_cli.commands.display import Display
from robustbench_cli.config.schema import EvalConfig, specs_of
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.certify import Proofs, Voting
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.runs.outcomes import Proof, Within
from robustbench_cli.runs.recorder import Recorder

_RADII = (0.25, 0.5, 0.75, 1.0)
"""Radii at which certified accuracy is reported, in the certificate's norm (Cohen et al., 2019,
https://arxiv.org/abs/1902.02918)."""
SMALL_LINF_BALL = Threat("Linf", 2 / 255)
"""A ball in another norm for which it is always reported, too (Carmon et al., 2019,
https://arxiv.org/abs/1905.13736)."""

_KEPT_ARRAYS = ("prediction", "certified", "radius", "votes")
"""The arrays (N) that ``examples.npz`` holds for each certificate."""


@dataclass(frozen=True, kw_only=True)
class Certifying:
    """One process's part of certifying a model: it certifies its share of the examples."""

    config: EvalConfig
    model: nn.Module
    """In evaluation mode and float32 (see ``unchanged_model``)."""
    data: Split
    shard: Shard
    journal: Journal
    recorder: Recorder
    display: Display

    def run(self, note: Callable[[str], None]) -> dict[str, np.ndarray]:
        """Certify every example; the record is written after each certificate.

        Args:
            note: called with what a reader of the figures must know.

        Returns:
            The arrays (N) of ``examples.npz``, as ``LABEL/KEY``.
        """
        arrays: dict[str, np.ndarray] = {}
        proven: dict[str, Proof] = {}
        for position, spec in enumerate(specs_of(self.config.certify), 1):
            certificate, label = CERTIFICATES.build(spec), spec.label
            if said := out_of_reach_note(certificate, self.config.threat, self.data):
                note(f"{label}: {said}")
            proofs, seconds = self._proofs(f"certificate{position}", label, certificate)
            proven[label] = certificate_summary(
                certificate, proofs, self.data, self.config.threat, seconds
            )
            self.recorder.update(certificates=dict(proven))
            arrays |= {f"{label}/{name}": proofs.arrays[name] for name in _KEPT_ARRAYS}
        return arrays

    def _proofs(self, name: str, label: str, certificate: Certificate) -> tuple[Proofs, float]:
        """Return what one certificate says of each example, and the seconds it took."""
        n, where, labels = len(self.data), self.data.y.device, _labels(self.data)
        voting = Voting(
            model=self.model,
            data=self.data,
            noise=Noise(self.config.seed, self.data.ids),
            classes=len(self.data.classes),
            batch=self.config.batch_size,
        )
        proofs = Proofs.empty(certificate, n, voting.classes)
        seconds = self.journal.recall(name, proofs)
        mine = self.shard.mine(n)
        rows = torch.from_numpy((mine & ~proofs.done).nonzero()[0]).to(where)
        self.display.judging(label, int(mine.sum()), "certified accuracy")
        self.journal.started()
        for found, votes in voting.votes(certificate, rows):
            proofs.put(found, votes, certificate)
            self.journal.moved(name, proofs, found)
            done = proofs.done & mine
            right = proofs.arrays["certified"][done] == labels[done]
            self.display.judged(int(done.sum()), float(right.mean()))
        self.journal.flush(name, proofs)
        seconds += self.journal.spent
        return proofs, self.shard.merge_rows(proofs.arrays, n, seconds)


def certificate_summary(
    certificate: Certificate, proofs: Proofs, data: Split, threat: Threat, seconds: float
) -> Proof:
    """Return the figures of one certificate, as its record keeps them.

    Args:
        proofs: what the certificate says of each example (N).
        data: all images that were certified (N).
        threat: the evaluation's ball, which is one of those that are reported.
        seconds: that it took, over all processes.
    """
    a, n, labels = proofs.arrays, len(data), _labels(data)
    right, radii = a["certified"] == labels, a["radius"]
    correct = int((a["prediction"] == labels).sum())
    balls = dict.fromkeys(
        [*(Threat(certificate.norm, eps) for eps in _RADII), SMALL_LINF_BALL, threat]
    )
    sizes = [(certificate.norm, 0.0, 0.0)]
    sizes += [(ball.norm, ball.eps, _reach(certificate, ball, data)) for ball in balls]
    counts = [int((right & (radii >= reach)).sum()) for _, _, reach in sizes]
    return Proof(
        params=CERTIFICATES.describe(certificate),
        norm=certificate.norm,
        n=n,
        correct=correct,
        accuracy=correct / n,
        abstained=float((a["prediction"] == ABSTAINS).mean()),
        uncertified=float((a["certified"] == ABSTAINS).mean()),
        mean_radius=float(np.where(right, radii, 0).mean()),
        within=[
            Within(norm=norm, eps=eps, radius=reach, correct=count, accuracy=count / n)
            for (norm, eps, reach), count in zip(sizes, counts, strict=True)
        ],
        forwards=n * sum(certificate.polls),
        seconds=seconds,
    )


def out_of_reach_note(certificate: Certificate, threat: Threat, data: Split) -> str:
    """Return a note if the ball is larger than any that so many votes can certify, else nothing."""
    norm, furthest = certificate.norm, certificate.max_radius
    if furthest == 0:
        return "with so few votes nothing can be certified"
    reach = _reach(certificate, threat, data)
    if reach <= furthest:
        return ""
    return (
        f"unanimous votes prove no more than {norm} {furthest:.4f}, so nothing is certified "
        f"within {threat}, which needs {norm} {reach:.4f}"
    )


def _reach(certificate: Certificate, ball: Threat, data: Split) -> float:
    return ball.radius_in(certificate.norm, math.prod(data.image_shape))


def _labels(data: Split) -> np.ndarray:
    return np.asarray(data.y.cpu())
