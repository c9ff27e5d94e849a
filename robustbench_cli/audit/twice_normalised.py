"""Models that normalise their images themselves, and are given normalised ones.

The robust accuracy of such a model is that of another model than the one that was meant; its clean
accuracy may hardly fall, so that nothing else shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from robustbench_cli.audit import CHECKS, ModelCheck, Probe
from robustbench_cli.models import Normalize
from robustbench_cli.models._around import FittedModel
from robustbench_cli.models.defended import defended_part
from robustbench_cli.runs.trust import Finding, Severity

NAMES = (("mean", "std"), ("mu", "sigma"))
"""Names under which a layer that normalises keeps its numbers."""


@CHECKS.register("twice-normalised")
@dataclass(frozen=True, kw_only=True)
class TwiceNormalised(ModelCheck):
    """A model must be better for --mean and --std, if given, above all if it normalises itself.

    A layer that normalises is recognised by its numbers (``mean`` and ``std``, or ``mu`` and
    ``sigma``: one each, or one per channel). The model is asked about the same images once with
    and once without what --normalize, or --mean and --std, put in front of it; one that has no
    such layer and is no better for them is only mentioned. Of a model behind input defenses the
    classifier is asked.
    """

    severity: ClassVar[Severity] = "error"
    clean: ClassVar[bool] = True
    passes: ClassVar[float] = 1
    says: ClassVar[str] = (
        "the model {what}, and without --normalize, or --mean and "
        "--std, it answers as many right or more (a share of {value}): leave these out"
    )

    def look(self, probe: Probe) -> Iterator[Finding]:
        if (part := defended_part(probe.model)) is not None:
            probe = replace(probe, model=part.model)
        fitted = next((m for m in probe.model.modules() if isinstance(m, FittedModel)), None)
        if fitted is None or probe.random:
            return
        given = next((m for m in fitted.before if isinstance(m, Normalize)), None)
        own = _own_layer(fitted.model, probe.x.shape[1])
        if given is None:
            return
        undone = probe.logits(probe.x * given.std + given.mean)  # which ``given`` turns back into x
        right, with_it = int((undone.argmax(1) == probe.y).sum()), int(probe.right.sum())
        m = len(probe.x)
        if right and right >= with_it:
            yield self.finding(
                right,
                m,
                what=f"normalises its images itself ({own})"
                if own
                else "may expect images as given",
                value=right / m,
                threshold=with_it / m,
                severity=None if own else "info",
            )


def _own_layer(model: nn.Module, channels: int) -> str:
    """Return the name of a layer that normalises images of so many channels; empty: none does."""
    for name, module in model.named_modules():
        for first, second in NAMES:
            mean, std = getattr(module, first, None), getattr(module, second, None)
            if not (isinstance(mean, Tensor) and isinstance(std, Tensor)):
                continue
            fits = {mean.numel(), std.numel()} <= {1, channels}
            if fits and not (bool((mean == 0).all()) and bool((std == 1).all())):
                return ".".join(filter(None, (name, first)))
    return ""
