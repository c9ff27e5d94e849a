"""The images that a threat allows: whatever an attack returns, others are an error of it."""

from torch import Tensor

from robustbench_cli.core.errors import RunError
from robustbench_cli.core.threat import Threat


def check_admissible(x_adv: Tensor, x: Tensor, threat: Threat, *, bounded: bool) -> None:
    """Refuse images that the threat does not allow.

    Args:
        x_adv: images (B, C, H, W) of an attack.
        x: the clean images.
        threat: with a mask, bound to these images.
        bounded: whether they must be in the ball, too.

    Raises:
        RunError: a pixel is outside [0, 1] or NaN, a pixel changed that a mask holds fast, or an
            image is outside the ball.
    """
    if not bool(threat.untouched(x_adv, x).all()):
        raise RunError(f"the attack changed pixels that must stay ({threat})")
    box = (x_adv >= 0) & (x_adv <= 1)  # False for NaN, too
    if not bool(box.all()) or (bounded and not bool(threat.inside(x_adv, x).all())):
        raise RunError(f"the attack left the ball or the box, or made NaN pixels ({threat})")
