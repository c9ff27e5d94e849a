"""The verifier decides: a float32 pass of the model as it is, on the image as it is stored.

Attacks only propose images, and may work on a faster copy of the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin, target_or_rest
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.admissible import check_admissible
from robustbench_cli.evaluation.float32 import float32
from robustbench_cli.models.keyed_draws import keyed_draws
from robustbench_cli.models.rejecting import RejectingModel, shown_logits

CONFIRMATION_DRAWS = 10
"""Fresh draws that must all be wrong before an example counts as broken for good."""
VOTING_DRAWS = 100
"""Fresh draws over which a randomised model's accuracy is measured."""
MAX_NAMED = 3
"""Names in a message; of the others, how many there are."""


@contextmanager
def unchanged_model(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, its weights frozen, with float32 computed as float32.

    Afterwards the model is as it was before.

    Raises:
        RunError: the model changed its own parameters or buffers (running statistics that follow
            attacks).
    """
    required_grad = [p.requires_grad for p in model.parameters()]
    # Copies, because torch's version counters miss writes to running statistics and ``.data``.
    before = {name: value.clone() for name, value in _parameters_and_buffers(model)}
    with evaluating(model), torch.autocast(device_of(model).type, enabled=False), float32():
        for p in model.parameters():  # a TorchScript module freezes its weights in no other way
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p, flag in zip(model.parameters(), required_grad, strict=True):
                p.requires_grad_(flag)
    after = _parameters_and_buffers(model)
    changed = [name for name, now in after if not _same(before.get(name, now), now)]
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise RunError(
            f"the model changed its {', '.join(changed[:MAX_NAMED])}{more} while it was evaluated; "
            "it is not the same model from one image to the next"
        )


def _parameters_and_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name, also buffers that the state dict leaves out."""
    yield from ((f"parameter {name!r}", p.detach()) for name, p in model.named_parameters())
    yield from ((f"buffer {name!r}", b) for name, b in model.named_buffers())


def _same(was: Tensor, now: Tensor) -> bool:
    """True if two tensors are equal in every respect; NaN equals NaN."""
    alike = (was.shape, was.dtype, was.device) == (now.shape, now.dtype, now.device)
    if not alike or torch.equal(was, now):
        return alike
    return torch.allclose(was, now, rtol=0, atol=0, equal_nan=True)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def predict(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the model's logits (B, K) on images (B, C, H, W) in [0, 1], without a gradient.

    Raises:
        UserError: they are not finite.
    """
    with torch.no_grad():
        logits = model(x)
    # argmax of NaN is an index like any other and would count as a success.
    if not logits.isfinite().all():
        raise UserError("the model returned NaN or infinite logits; no verdict is possible")
    return logits


class Verdict(NamedTuple):
    """The decision about some images; tensors (B)."""

    prediction: Tensor
    """The predicted class, K for a rejection; of a randomised model the most frequent one."""
    share: Tensor
    """The fraction of draws that are classified right or rejected: 0 or 1, except for a randomised
    model."""
    broken: Tensor
    """True if the example counts as broken (bool): misclassified and not rejected, and at every
    draw if there are several."""
    margin: Tensor
    """Largest wrong logit minus the larger of the true one and the rejection's; of a randomised
    model the mean over a few draws that do not vote."""
    forwards: int
    """Forward passes per image."""
    rejected: Tensor | None = None
    """The fraction of draws that are rejected; None: the model rejects nothing."""

    @property
    def of_clean_images(self) -> "Verdict":
        """The same verdict where the images are clean: there a rejected image is not right."""
        if self.rejected is None:
            return self
        share = self.share - self.rejected
        return self._replace(share=share, broken=share <= 0)


@dataclass(frozen=True)
class Verifier:
    """The model that decides whether an image is misclassified.

    It is given the threat with the images that it judges, so there is one threat per evaluation.
    An error of a ``RejectingModel`` counts only if the image is not rejected.  Where it is given
    random numbers keyed by example, a model behind a random input defense draws them from there.
    """

    model: nn.Module
    random: bool = False
    """True if the model is randomised, so that one pass decides nothing."""
    towards: bool = False
    """True if a success is a given class: then the "labels" that it is asked about are the classes
    to reach, "right" is any other, and what attacks see are two logits (``target_or_rest``)."""

    def logits(self, x: Tensor) -> Tensor:
        """Return the model's logits, of one float32 pass over images (B, C, H, W) in [0, 1].

        Returns:
            (B, K); of a ``RejectingModel`` (B, K + 1).

        Raises:
            UserError: they are not finite.
        """
        return predict(self.model, x)

    def attacked_logits(self, x: Tensor, y: Tensor, noise: Noise | None = None) -> Tensor:
        """Return the logits (B, K) as attacks see them: an error among them is not rejected.

        Args:
            x: images (B, C, H, W) in [0, 1].
            y: true classes (B).
            noise: keyed by example, B of them; None: draws are those of torch's generator.

        Raises:
            UserError: they are not finite.
        """
        with keyed_draws(self.model, noise):
            return self._merged(self.logits(x), y)

    def unchecked_logits(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Return ``attacked_logits`` (B, K), finite or not: to look would wait for the device."""
        with keyed_draws(self.model, noise), torch.no_grad():
            return self._merged(self.model(x), y)

    def verdict(
        self,
        x_adv: Tensor,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        bounded: bool = True,
        noise: Noise | None = None,
    ) -> Verdict:
        """Decide about images (B, C, H, W) as they are stored.

        Args:
            x_adv: what is judged, in [0, 1].
            x: the clean images.
            y: the labels (B).
            threat: with a mask, bound to these images.
            bounded: whether they must be in the ball; those of a minimal attack need not.
            noise: keyed by example, B of them; None: draws are those of torch's generator.

        Raises:
            UserError: the model's logits are not finite.
            RunError: an image is not allowed (see ``check_admissible``).
        """
        check_admissible(x_adv, x, threat, bounded=bounded)
        with keyed_draws(self.model, noise):
            return self._decided(x_adv, y)

    def _decided(self, x_adv: Tensor, y: Tensor) -> Verdict:
        logits = self.logits(x_adv)
        gap = self._margin(logits, y)
        if not self.random:
            prediction = logits.argmax(1)
            wrong = self._undetected_errors(prediction, logits, y)
            rejected = (prediction == logits.shape[1] - 1).float() if self.rejects else None
            return Verdict(prediction, (~wrong).float(), wrong, gap, 1, rejected)
        votes = torch.zeros_like(logits, dtype=torch.long)
        every = torch.arange(len(x_adv), device=x_adv.device)
        for _ in range(VOTING_DRAWS):
            votes[every, self.logits(x_adv).argmax(1)] += 1
        rejected = votes[:, -1].float() / VOTING_DRAWS if self.rejects else None
        stands = votes[every, y] + (votes[:, -1] if self.rejects else 0)
        stands = VOTING_DRAWS - votes[every, y] if self.towards else stands
        share = stands.float() / VOTING_DRAWS
        # Broken is "wrong at every draw", never "at any draw", which would count luck as an attack.
        never_right = share < 1 / VOTING_DRAWS
        # By draws of their own, so that the choice between two images is no choice of lucky votes.
        others = [self._margin(self.logits(x_adv), y) for _ in range(CONFIRMATION_DRAWS - 1)]
        gap = torch.stack([gap, *others]).mean(0)
        forwards = VOTING_DRAWS + CONFIRMATION_DRAWS
        return Verdict(votes.argmax(1), share, never_right, gap, forwards, rejected)

    def broken(self, x_adv: Tensor, y: Tensor, noise: Noise | None = None) -> Tensor:
        """Return whether images (B, C, H, W) are misclassified at each of ``passes`` draws (B).

        Those of a ``RejectingModel`` must not be rejected, either.
        """
        wrong = torch.ones_like(y, dtype=torch.bool)
        with keyed_draws(self.model, noise):
            for _ in range(self.passes):
                logits = self.logits(x_adv)
                wrong &= self._undetected_errors(logits.argmax(1), logits, y)
        return wrong

    @property
    def rejects(self) -> bool:
        """True if the model can reject an image."""
        return isinstance(self.model, RejectingModel)

    @property
    def rejects_as(self) -> int | None:
        """The number that stands for a rejection among predictions; None: nothing is rejected.

        It follows those of the classes, which are numbered from 0.
        """
        return self.model.classes if isinstance(self.model, RejectingModel) else None

    def _merged(self, logits: Tensor, y: Tensor) -> Tensor:
        return target_or_rest(logits, y) if self.towards else shown_logits(self.model, logits, y)

    def _margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the margin (B) of the largest wrong class, or of the class to reach."""
        return margin(self._merged(logits, y), torch.zeros_like(y) if self.towards else y)

    def _undetected_errors(self, prediction: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Return a mask (B) of the predictions that are wrong, and no rejection; or reach y."""
        if self.towards:
            return prediction == y
        wrong = prediction != y
        return wrong & (prediction != logits.shape[1] - 1) if self.rejects else wrong

    @property
    def passes(self) -> int:
        """The forward passes that ``broken`` takes per image."""
        return CONFIRMATION_DRAWS if self.random else 1
