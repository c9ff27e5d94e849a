"""Certificates by the votes of a model on noisy copies of an example."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.certificates import Certificate, ProofEvidence, ProofSubject
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.models.keyed_draws import keyed_draws


@dataclass(frozen=True, kw_only=True)
class VotingCertificate(Certificate):
    """How copies are made, and what the votes on them prove.

    The evidence is ``votes``, counts of predictions (B, polls, K) over K classes.
    """

    norm: ClassVar[Norm] = "L2"
    """The norm of the radius."""
    digits: ClassVar[int] = 4
    """Decimals with which its radii are written."""
    radii: ClassVar[tuple[float, ...]] = ()
    """The radii, in that norm, within which certified accuracy is reported."""

    @abstractmethod
    def polls(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Return the number of copies per example in each of the independent polls.

        Args:
            image: the size of an image, (C, H, W).
        """

    @abstractmethod
    def max_radius(self, image: tuple[int, ...]) -> float:
        """Return the largest radius that unanimous votes prove of an image of this size."""

    @abstractmethod
    def copies(self, model: nn.Module, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        """Return a copy of each image, as the model is shown it.

        Args:
            model: the model.
            x: images (B, C, H, W) in [0, 1].
            noise: one independent draw per row.
            copy: the number of each copy among those of its example (B, int64), from 0, for
                certificates that go through all places in turn.

        Returns:
            Copies (B, ...), not necessarily in [0, 1].
        """

    def passes(self, subject: ProofSubject) -> int:
        return sum(self.polls(subject.image_shape))

    def norm_under(self, threat: Threat) -> Norm:
        return self.norm

    def reported(self, threat: Threat) -> list[Threat]:
        return [Threat(self.norm, eps) for eps in self.radii]

    def kept(self, subject: ProofSubject) -> dict[str, np.ndarray]:
        polls = len(self.polls(subject.image_shape))
        return {"votes": np.zeros((polls, subject.classes), np.int32)}

    def limit(self, subject: ProofSubject, reach: float) -> str:
        furthest = self.max_radius(subject.image_shape)
        if furthest == 0:
            return "with so few votes nothing can be certified"
        if reach <= furthest:
            return ""
        far, needed = (f"{self.norm} {size:.{self.digits}f}" for size in (furthest, reach))
        return (
            f"unanimous votes prove no more than {far}, so nothing is certified within "
            f"{subject.threat}, which needs {needed}"
        )

    def ballots(self, logits: Tensor) -> Tensor:
        """Return the votes (B, K, bool) that logits (B, K) cast: as a rule one, for the largest."""
        return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()

    def evidence(self, subject: ProofSubject, rows: Tensor) -> Iterator[ProofEvidence]:
        # Copies follow each other example by example, so that batches are full whatever the number
        # of copies.
        copies, told = self.passes(subject), 0
        shape = len(rows), len(self.polls(subject.image_shape)), subject.classes
        counts = torch.zeros(shape, dtype=torch.int32, device=rows.device)
        silent = torch.zeros((), dtype=torch.bool, device=rows.device)
        for start in range(0, len(rows) * copies, subject.batch):
            stop = min(start + subject.batch, len(rows) * copies)
            silent |= self._vote(subject, rows, start, stop, counts)
            complete = stop // copies
            if complete > told:
                votes = counts[told:complete].cpu().numpy()
                if silent:
                    raise UserError("the model returned NaN or infinite logits; it has no vote")
                yield ProofEvidence(rows[told:complete].cpu().numpy(), {"votes": votes})
                told = complete

    @torch.inference_mode()
    def _vote(
        self, subject: ProofSubject, rows: Tensor, start: int, stop: int, counts: Tensor
    ) -> Tensor:
        """Add the votes on the copies ``start`` to ``stop``, counted over all examples.

        Returns:
            Whether a copy has no vote because its logits are not finite (bool).
        """
        polls = self.polls(subject.image_shape)
        each = sum(polls)
        number = torch.arange(start, stop, device=rows.device)
        row, copy = number // each, number % each
        # Compare with numbers: a tensor would have to be copied to a GPU, which waits for it.
        poll = torch.stack([copy >= end for end in accumulate(polls)]).sum(0)
        # Every image is read once, however many of its copies are in the batch.
        first, last = start // each, (stop - 1) // each
        images = subject.data.images(rows[first : last + 1])[row - first]
        noise = subject.noise.only(rows[row]).at(copy)
        with keyed_draws(subject.model, noise.fork("vote")):
            logits: Tensor = subject.model(self.copies(subject.model, images, noise, copy))
        # argmax of NaN is a class like any other, so NaN gets no vote.
        sound = logits.isfinite().all(1)
        cast = (self.ballots(logits) & sound[:, None]).to(counts.dtype)
        counts.view(-1, counts.shape[2]).index_add_(0, row * counts.shape[1] + poll, cast)
        return ~sound.all()
