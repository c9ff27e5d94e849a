"""``advbench eval --certify``: certified accuracy, certificate by certificate."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, Certificate, ProofSubject
from robustbench_cli.commands.contradictions import ProvenClasses, check_contradictions
from robustbench_cli.commands.display import Display
from robustbench_cli.config.schema import EvalConfig, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.certify import Proofs
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.outcomes import Proof, Within
from robustbench_cli.runs.recorder import Recorder


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

        Raises:
            UserError: a certificate can say nothing about this model.
        """
        arrays: dict[str, np.ndarray] = {}
        proven: dict[str, Proof] = {}
        for position, spec in enumerate(specs_of(self.config.certify), 1):
            certificate, label = CERTIFICATES.build(spec), spec.label
            for said in (*certificate.notes(self.subject), *_limits(certificate, self.subject)):
                note(f"{label}: {said}")
            proofs, seconds = self._proofs(f"certificate{position}", label, certificate)
            proven[label] = certificate_summary(certificate, proofs, self.subject, seconds)
            self.recorder.update(certificates=dict(proven))
            if proven[label].says_nothing:
                note(f"{label} says nothing about this model; that is not 0 %")
            kept = {name: values for name, values in proofs.arrays.items() if name != "stages"}
            arrays |= {f"{label}/{name}": values for name, values in kept.items()}
        return arrays

    def compare(
        self,
        arrays: Mapping[str, np.ndarray],
        columns: Mapping[str, AttackVerdicts],
        note: Callable[[str], None],
    ) -> None:
        """Compare what is proven with what attacks found, where both are about the same model.

        Args:
            arrays: what ``run`` returned.
            columns: the verdicts (N) by label: on clean images, then under attacks.
            note: called with what a reader of the figures must know.

        Raises:
            RunError: an image is certified and broken.
        """
        proofs = []
        for spec in specs_of(self.config.certify):
            label = spec.label
            if CERTIFICATES.build(spec).of_the_model:
                kept = {name: arrays[f"{label}/{name}"] for name in ("certified", "radius")}
                proofs.append(ProvenClasses(label=label, **kept))
            elif len(columns) > 1:
                note(
                    f"{label} certifies another predictor than the model that is attacked: the two "
                    "are not compared image by image"
                )
        ids = self.data.ids.tolist()
        check_contradictions(proofs, columns, _labels(self.subject), ids, self.config.threat)

    @property
    def subject(self) -> ProofSubject:
        """The model and the examples, as certificates are shown them."""
        return proof_subject(self.config, self.model, self.data)

    def _proofs(self, name: str, label: str, certificate: Certificate) -> tuple[Proofs, float]:
        """Return what one certificate says of each example, and the seconds it took."""
        subject, labels = self.subject, _labels(self.subject)
        n, where = len(labels), self.data.y.device
        proofs = Proofs.empty(certificate, subject, n)
        seconds = self.journal.recall(name, proofs)
        mine = self.shard.mine(n)
        rows = torch.from_numpy((mine & ~proofs.done).nonzero()[0]).to(where)
        self.display.judging(label, int(mine.sum()), "certified accuracy")
        self.journal.started()
        for found in certificate.evidence(subject, rows):
            proofs.put(found, certificate)
            self.journal.moved(name, proofs, found.rows)
            done = proofs.done & mine
            right = proofs.arrays["certified"][done] == labels[done]
            self.display.judged(int(done.sum()), float(right.mean()))
        self.journal.flush(name, proofs)
        seconds += self.journal.spent
        return proofs, self.shard.merge_rows(proofs.arrays, n, seconds)


def proof_subject(config: EvalConfig, model: nn.Module, data: Split) -> ProofSubject:
    """Return a model and the examples of an evaluation, as certificates are shown them.

    Args:
        model: in evaluation mode and float32 (see ``unchanged_model``).
    """
    return ProofSubject(
        model=model,
        data=data,
        noise=Noise(config.seed, data.ids),
        classes=len(data.classes),
        threat=config.threat,
        batch=config.batch_size,
    )


def check_certificates(config: EvalConfig, model: nn.Module, data: Split) -> None:
    """Refuse certificates that can say nothing about a model, before anything is run.

    Args:
        model: in evaluation mode and float32 (see ``unchanged_model``).

    Raises:
        UserError: the part of the model for which there is no proof.
    """
    for spec in specs_of(config.certify):
        CERTIFICATES.build(spec).check(proof_subject(config, model, data))


def certificate_summary(
    certificate: Certificate, proofs: Proofs, subject: ProofSubject, seconds: float
) -> Proof:
    """Return the figures of one certificate, as its record keeps them.

    Balls of which a radius in the certificate's norm says nothing are left out.

    Args:
        proofs: what the certificate says of each example (N).
        subject: what was certified; its ball is one of those that are reported.
        seconds: that it took, over all processes.
    """
    a, labels = proofs.arrays, _labels(subject)
    right, radii, n = a["certified"] == labels, a["radius"], len(labels)
    correct = int((a["prediction"] == labels).sum())
    norm = certificate.norm_under(subject.threat)
    balls = dict.fromkeys([*certificate.reported(subject.threat), subject.threat])
    reaches = [(ball, _reach(certificate, ball, subject)) for ball in balls]
    sizes = [(norm, 0.0, 0.0)]
    sizes += [(ball.norm, ball.eps, reach) for ball, reach in reaches if reach is not None]
    counts = [int((right & (radii >= reach)).sum()) for _, _, reach in sizes]
    least = min((reach for *_, reach in sizes[1:]), default=math.inf)
    return Proof(
        params=CERTIFICATES.describe(certificate),
        norm=norm,
        n=n,
        correct=correct,
        accuracy=correct / n,
        abstained=float((a["prediction"] == ABSTAINS).mean()),
        uncertified=float((a["certified"] == ABSTAINS).mean()),
        mean_radius=float(np.where(right, radii, 0).mean()),
        median_radius=float(np.median(np.where(right, radii, 0))),
        within=[
            Within(norm=norm, eps=eps, radius=reach, correct=count, accuracy=count / n)
            for (norm, eps, reach), count in zip(sizes, counts, strict=True)
        ],
        forwards=n * certificate.passes(subject),
        seconds=seconds,
        says_nothing=not (radii >= least).any(),
    )


def _reach(certificate: Certificate, ball: Threat, subject: ProofSubject) -> float | None:
    """Return the radius of ``ball`` in the certificate's norm; None: no such radius holds it.

    None, too, if it is larger than the images.
    """
    norm = certificate.norm_under(subject.threat)
    try:
        ball.geometry.fitting(subject.image_shape)
        return ball.radius_in(norm, math.prod(subject.image_shape))
    except UserError:
        return None


def _limits(certificate: Certificate, subject: ProofSubject) -> Iterator[str]:
    """Yield what keeps a certificate from saying anything about the evaluation's ball."""
    reach = _reach(certificate, subject.threat, subject)
    if reach is None:
        norm = certificate.norm_under(subject.threat)
        yield (
            f"radii in {norm} are proven, which say nothing about {subject.threat}: "
            f"--norm {norm} --eps SIZE asks for one of them"
        )
    elif said := certificate.limit(subject, reach):
        yield said


def _labels(subject: ProofSubject) -> np.ndarray:
    return np.asarray(subject.data.y.cpu())
