"""What a certificate has gathered and proven on the examples of an evaluation."""

from dataclasses import dataclass

import numpy as np

from robustbench_cli.certificates import ABSTAINS, Certificate, ProofEvidence, ProofSubject


@dataclass(frozen=True)
class Proofs:
    """The results of a certificate on N examples.

    ``prediction``, ``certified``, ``radius`` and ``confidence`` are those of ``Certified``; the
    certificate's own arrays (N, ...) are the evidence from which they follow; ``stages`` is 1 where
    it is complete.
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def empty(cls, certificate: Certificate, subject: ProofSubject, n: int) -> "Proofs":
        """Return the results on ``n`` examples of which nothing is known yet."""
        kept = certificate.kept(subject)
        return cls(
            {
                "prediction": np.full(n, ABSTAINS, np.int32),
                "certified": np.full(n, ABSTAINS, np.int32),
                "radius": np.zeros(n),
                "confidence": np.zeros(n),
                **{name: np.stack([one] * n) for name, one in kept.items()},
                "stages": np.zeros(n, np.int16),
            }
        )

    @property
    def done(self) -> np.ndarray:
        """The examples whose evidence is complete, a mask (N)."""
        return np.asarray(self.arrays["stages"] > 0)

    def put(self, evidence: ProofEvidence, certificate: Certificate) -> None:
        """Take in the evidence on some examples, and certify them."""
        found = certificate.certify(evidence.arrays)._asdict()
        for name, values in {**found, **evidence.arrays, "stages": 1}.items():
            self.arrays[name][evidence.rows] = values
