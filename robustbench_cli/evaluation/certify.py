"""The votes of a model on noisy copies, on which certificates rest, batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Examples
from robustbench_cli.certificates import ABSTAINS, Certificate
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise


@dataclass(frozen=True)
class Proofs:
    """The results of a certificate on N examples.

    ``prediction``, ``certified`` and ``radius`` are those of ``Certified``, ``votes`` (N, polls,
    classes) is what they follow from, ``stages`` is 1 where all votes are in.
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def empty(cls, certificate: Certificate, n: int, classes: int) -> "Proofs":
        """Return the results on ``n`` examples of which nothing is known yet."""
        return cls(
            {
                "prediction": np.full(n, ABSTAINS, np.int32),
                "certified": np.full(n, ABSTAINS, np.int32),
                "radius": np.zeros(n),
                "votes": np.zeros((n, len(certificate.polls), classes), np.int32),
                "stages": np.zeros(n, np.int16),
            }
        )

    @property
    def done(self) -> np.ndarray:
        """The examples that have all their votes, a mask (N)."""
        return np.asarray(self.arrays["stages"] > 0)

    def put(self, rows: np.ndarray, votes: np.ndarray, certificate: Certificate) -> None:
        """Take in the votes (B, polls, classes) on the examples ``rows`` (B), and certify them."""
        found = certificate.certify(votes)._asdict()
        for name, values in {**found, "votes": votes, "stages": 1}.items():
            self.arrays[name][rows] = values


@dataclass(frozen=True, kw_only=True)
class Voting:
    """A model and the examples that it votes on."""

    model: nn.Module
    """In evaluation mode and float32 (see ``unchanged_model``)."""
    data: Examples
    noise: Noise
    """Keyed by example, as many as ``data`` has."""
    classes: int
    batch: int
    """The number of noisy copies in a forward pass; the votes do not depend on it."""

    def votes(
        self, certificate: Certificate, rows: Tensor
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield examples, and their votes (B, polls, classes), as they are complete.

        Copies follow each other example by example, so that batches are full whatever the number
        of copies.

        Raises:
            UserError: the model returned NaN or infinite logits.
        """
        copies, reported = sum(certificate.polls), 0
        shape = len(rows), len(certificate.polls), self.classes
        counts = torch.zeros(shape, dtype=torch.int32, device=rows.device)
        for start in range(0, len(rows) * copies, self.batch):
            stop = min(start + self.batch, len(rows) * copies)
            self._vote(certificate, rows, start, stop, counts)
            complete = stop // copies
            if complete > reported:
                votes = counts[reported:complete].cpu().numpy()
                if not (votes.sum((1, 2)) == copies).all():
                    raise UserError("the model returned NaN or infinite logits; it has no vote")
                yield rows[reported:complete].cpu().numpy(), votes
                reported = complete

    @torch.inference_mode()
    def _vote(
        self, certificate: Certificate, rows: Tensor, start: int, stop: int, counts: Tensor
    ) -> None:
        """Add the votes on the copies ``start`` to ``stop``, counted over all examples."""
        each = sum(certificate.polls)
        number = torch.arange(start, stop, device=rows.device)
        row, copy = number // each, number % each
        # Compare with numbers: a tensor would have to be copied to a GPU, which waits for it.
        poll = torch.stack([copy >= end for end in accumulate(certificate.polls)]).sum(0)
        # Every image is read once, however many of its copies are in the batch.
        first, last = start // each, (stop - 1) // each
        images = self.data.images(rows[first : last + 1])[row - first]
        logits = self.model(certificate.copies(images, self.noise.only(rows[row]).at(copy)))
        place = (row * counts.shape[1] + poll) * self.classes + logits.argmax(1)
        # argmax of NaN is a class like any other, so NaN gets no vote; ``votes`` misses it.
        sound = logits.isfinite().all(1).to(counts.dtype)
        counts.view(-1).index_add_(0, place, sound)
