"""Certificates by votes, on a few images in memory."""

import pytest
import torch

from robustbench_cli.certificates import ProofSubject
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.certify import Proofs
from robustbench_cli.evaluation.tensors import Tensors


@pytest.fixture
def subject_of():
    """A maker of subjects: a model and images, labelled 1."""

    def made(net, x, batch=64, seed=0, threat=("L2", 1), classes=2):
        return ProofSubject(
            model=net,
            data=Tensors(x, torch.ones(len(x), dtype=torch.long)),
            noise=Noise(seed, torch.arange(len(x))),
            classes=classes,
            threat=Threat(*threat),
            batch=batch,
        )

    return made


@pytest.fixture
def proofs():
    """Everything that a certificate finds out about a subject, as arrays by name."""

    def found(certificate, subject):
        n = len(subject.data.y)
        result = Proofs.empty(certificate, subject, n)
        for evidence in certificate.evidence(subject, torch.arange(n)):
            result.put(evidence, certificate)
        assert result.done.all()
        return result.arrays

    return found
