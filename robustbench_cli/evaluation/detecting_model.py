"""A model and a detector of its errors as one model that rejects what the detector flags."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustbench_cli.core.examples import Examples
from robustbench_cli.core.losses import merge_rejection, picked, wide
from robustbench_cli.detectors import Detector, ModelOutputs
from robustbench_cli.evaluation.detect import seen, spread, threshold_at
from robustbench_cli.models.rejecting import RejectingModel
from robustbench_cli.models.taps import EMBEDDING, tapped

_FAR = 100.0
"""Interquartile ranges of the gap between the two largest logits that no score makes up for."""
_KNOWN = "known_"
"""Before the names of the buffers that hold what the detector was fitted to."""


class ModelWithDetector(RejectingModel):
    """A classifier that rejects the images whose suspicion is above a threshold.

    The logit of the rejection is max_k z_k + scale (suspicion - threshold): it leads exactly where
    the detector flags the image, and its gradient leads attacks out of there (after Carlini &
    Wagner, 2017, https://arxiv.org/abs/1705.07263, who multiply instead).  Where no gradient passes
    through the detector, gradient attacks aim at the model alone.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
        known: the tensors that the detector was fitted to.
        classes: the number of classes, K.
        threshold: the largest suspicion that is accepted.
        scale: the logits that a unit of suspicion is worth, above 0; no verdict depends on it.
        behind: the logits by which images that are classified correctly are behind flagged errors,
            where attacks without gradients compare images; 0: they are not.
        differentiable: whether a gradient passes through the detector.
        held_out: the number of held-out images that the threshold was set on.
        flagged: the number of these with a higher suspicion.
    """

    def __init__(
        self,
        model: nn.Module,
        detector: Detector,
        known: Mapping[str, Tensor],
        *,
        classes: int,
        threshold: float,
        scale: float,
        behind: float,
        differentiable: bool,
        held_out: int,
        flagged: int,
    ) -> None:
        super().__init__(model, classes)
        self.detector = detector
        self.threshold, self.scale, self.differentiable = threshold, scale, differentiable
        self.behind, self.held_out, self.flagged = behind, held_out, flagged
        for name, tensor in known.items():
            self.register_buffer(_KNOWN + name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K + 1) of images (B, C, H, W) in [0, 1], the rejection's last."""
        logits, suspicion = self._answer(x)
        excess, top = suspicion - self.threshold, logits.amax(1)
        rejection = top + (self.scale * excess).to(logits)
        # However small the excess is beside the logits: what is flagged leads.
        least = torch.nextafter(top.detach(), torch.full_like(top, torch.inf))
        lost = (excess > 0) & (rejection < least)
        rejection = torch.where(lost, rejection + (least - rejection).detach(), rejection)
        return torch.cat([logits, rejection[:, None]], 1)

    def merged(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the logits (B, K) that attacks are shown: an error among them is not rejected.

        Attacks heed the detector only where a wrong class leads already (selective gradients,
        Bryniarski et al., 2021, https://arxiv.org/abs/2106.15023): a detector that asks how sure
        the prediction is would else lead them back to the true class.
        """
        wrong = logits[:, :-1].argmax(1) != y
        return merge_rejection(logits, y, heeded=wrong & self.differentiable)

    def ranked(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the logits (B, K) that attacks without gradients are shown.

        Where the score depends on the prediction, an image that is misclassified and flagged is
        nearer to success than any that is classified correctly: a random search, which accepts the
        better image only, would else stop where the prediction changes and every image is flagged.
        """
        if not self.behind:
            return self.merged(logits, y)
        merged = self.merged(logits, y)
        right = (merged.argmax(1) == y) & (logits[:, :-1].argmax(1) == y)
        shown = torch.where(right, picked(wide(logits), y) + self.behind, picked(merged, y))
        return merged.scatter(1, y[:, None], shown[:, None])

    def _answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with tapped(self.model, [EMBEDDING]) as found:
            logits = wide(self.model(x))
        known = {
            name.removeprefix(_KNOWN): buffer for name, buffer in self.named_buffers(recurse=False)
        }
        outputs = ModelOutputs(found[EMBEDDING], logits)
        return logits, self.detector.suspicion(outputs, known)


def with_detector(
    model: nn.Module,
    detector: Detector,
    known: Mapping[str, Tensor],
    held_out: Examples,
    fpr: float,
    batch: int,
) -> ModelWithDetector:
    """Return the model with the detector at the operating point that flags clean images at ``fpr``.

    As many held-out images are flagged as ``fpr`` allows; where scores are tied, fewer.  The
    threshold is in the middle between the highest score that is accepted and the lowest that is
    not.  The scale makes the scores' interquartile range that of the gap between the two largest
    logits.

    Args:
        model: in evaluation mode and float32 (see ``unchanged_model``), logits (B, K).
        known: the tensors that the detector was fitted to, on the CPU.
        held_out: clean images that are neither trained on nor evaluated, at least one.
        fpr: a share in (0, 1).
        batch: images in a forward pass.
    """
    outputs = seen(model, held_out, batch)
    scores = detector.suspicion(outputs, known).double()
    threshold, flagged = threshold_at(scores.numpy(), fpr)
    top = outputs.logits.topk(2, 1).values.double()
    gap = spread((top[:, 0] - top[:, 1]).numpy())
    return ModelWithDetector(
        model,
        detector,
        known,
        classes=outputs.logits.shape[1],
        threshold=threshold,
        scale=gap / spread(scores.numpy()),
        behind=_FAR * gap if _reads_logits(detector, known, outputs) else 0.0,
        differentiable=_is_differentiable(detector, known, outputs),
        held_out=len(scores),
        flagged=flagged,
    )


def _is_differentiable(
    detector: Detector, known: Mapping[str, Tensor], outputs: ModelOutputs
) -> bool:
    """Whether the scores have a gradient with respect to the features or the logits."""
    with torch.enable_grad():
        leaves = ModelOutputs(*(each[:2].detach().requires_grad_() for each in outputs))
        return detector.suspicion(leaves, known).requires_grad


def _reads_logits(detector: Detector, known: Mapping[str, Tensor], outputs: ModelOutputs) -> bool:
    """Whether the scores depend on more than the features: on the prediction, or how sure it is."""
    others = ModelOutputs(outputs.features, -outputs.logits)
    before, after = (detector.suspicion(each, known) for each in (outputs, others))
    return not torch.equal(before, after)
