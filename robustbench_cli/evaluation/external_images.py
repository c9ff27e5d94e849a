"""The images of attacks that call the model themselves, on any of their rows at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from robustbench_cli.attacks import ExternalAttack, Task
from robustbench_cli.core.losses import target_or_rest
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.models.rejecting import RejectingModel


def craft_images(
    attack: ExternalAttack,
    model: Meter,
    task: Task,
    rejection: RejectingModel | None,
) -> Tensor:
    """Return the images (B, C, H, W) that another library's attack makes of a batch.

    The logits that attacks are shown of a model with rejection depend on the true class, and such
    an attack does not say which rows it asks about: the examples of each class are attacked
    together, apart from the others.  So it is with target classes.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), or (B, K + 1) with a ``rejection``.
        rejection: what merges the last logit into the others; None: the model rejects nothing.
    """
    if rejection is None and task.target is None:
        return attack.craft(model, task).detach().to(task.x)
    x_adv = task.x.clone()
    shown = target_or_rest if rejection is None or task.target is not None else rejection.merged
    for each in sorted({*task.aim.tolist()}):
        rows = (task.aim == each).nonzero().squeeze(1)
        seen = _ShownModel(model, shown, task.aim[rows[:1]])
        x_adv[rows] = attack.craft(seen, task.only(rows)).detach().to(task.x)
    return x_adv


@dataclass(frozen=True)
class _ShownModel:
    """A model with the logits that attacks on one class are shown."""

    model: Meter
    shown: Callable[[Tensor, Tensor], Tensor]
    of_class: Tensor
    """(1)."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.shown(self.model(x), self.of_class.expand(len(x)))

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the parts of the model by name."""
        return self.model.named_modules()
