"""The images of attacks that call the model themselves, on any of their rows at a time."""

from collections.abc import Callable

from torch import Tensor

from robustbench_cli.attacks import ExternalAttack, Task
from robustbench_cli.core.losses import target_or_rest
from robustbench_cli.models.rejecting import RejectingModel


def craft_images(
    attack: ExternalAttack,
    model: Callable[[Tensor], Tensor],
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

        def seen(x: Tensor, of_class: Tensor = task.aim[rows[:1]]) -> Tensor:
            return shown(model(x), of_class.expand(len(x)))

        x_adv[rows] = attack.craft(seen, task.only(rows)).detach().to(task.x)
    return x_adv
