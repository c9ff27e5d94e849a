"""What is proven of an image, beside what attacks found: both cannot be true."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from robustbench_cli.certificates import ABSTAINS
from robustbench_cli.core.errors import RunError
from robustbench_cli.core.geometries import Ball
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.stages import AttackVerdicts


@dataclass(frozen=True, kw_only=True)
class ProvenClasses:
    """What one certificate proves of the model that attacks are judged on."""

    label: str
    """The certificate's."""
    certified: np.ndarray
    """The proven class of each example (N), or ``ABSTAINS``."""
    radius: np.ndarray
    """How far it is proven, in the norm of the evaluation (N)."""


def check_contradictions(
    proofs: Iterable[ProvenClasses],
    columns: Mapping[str, AttackVerdicts],
    labels: np.ndarray,
    ids: Sequence[int],
    threat: Threat,
) -> None:
    """Compare each proof with each attack, image by image.

    Args:
        columns: the verdicts (N) by label: on clean images, then under attacks.
        labels: the true classes (N).
        ids: the positions of the examples in the test split (N).
        threat: the evaluation's ball.

    Raises:
        RunError: an attack found an image of another class within the radius that is proven.
    """
    for proof in proofs:
        assert isinstance(threat.geometry, Ball), "such a proof is about a ball"
        # An image counts as inside a ball up to what float32 rounds; proofs hold up to there.
        slack = threat.geometry.slack(torch.from_numpy(proof.radius)).numpy()
        for label, column in columns.items():
            a = column.arrays
            near = a["norm"] <= proof.radius + slack
            known = (proof.certified != ABSTAINS) & (a["prediction"] >= 0)
            wrong = known & near & (a["prediction"] != proof.certified)
            if not wrong.any():
                continue
            first = int(wrong.argmax())
            sure = (proof.certified == labels) & (proof.radius >= threat.eps)
            stands = a["share"] > 0.5
            raise RunError(
                f"{proof.label} and {label} contradict each other on {int(wrong.sum())} image(s): "
                f"image {ids[first]} is certified as class {proof.certified[first]} within "
                f"{threat.norm} {proof.radius[first]:.6g}, but {label} has one of class "
                f"{a['prediction'][first]} at {threat.norm} {a['norm'][first]:.6g} "
                f"({proof.label}: {sure.mean():.2%} within {threat}, {label}: {stands.mean():.2%} "
                "right); one of the two is wrong, so neither number can be used"
            )
