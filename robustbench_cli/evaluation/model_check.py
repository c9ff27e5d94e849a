"""What a model must be to be judged, and to be attacked along gradients."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.rejecting import RejectingModel


def check_model(model: nn.Module, x: Tensor, classes: int, called: str = "the model") -> None:
    """Refuse a model that cannot be judged, or that lets no gradient through.

    Args:
        x: a few images (B, C, H, W) in [0, 1].
        classes: the number of classes of the data set; 0 where only the model can tell.  A
            ``RejectingModel`` has one more logit.
        called: the name of the model in the message.

    Raises:
        UserError: it cannot take the images, or does not return finite logits (B, classes) with a
            gradient.
    """
    if reason := gradient_obstacle(model, x, classes, called):
        raise UserError(f"{reason}; gradient attacks cannot work on it")


def gradient_obstacle(model: nn.Module, x: Tensor, classes: int, called: str = "the model") -> str:
    """Refuse a model that cannot be judged, and say what keeps gradients from its images.

    Args:
        model, x, classes, called: as in ``check_model``.

    Returns:
        A sentence without its full stop; empty where a gradient passes.

    Raises:
        UserError: it cannot take the images, or does not return finite logits (B, classes).
    """
    classes += classes > 0 and isinstance(model, RejectingModel)
    logits, reason = _answers(model, x, called)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{called} must return logits (B, {classes or 'K'}), it returned {got}")
    if logits.shape[1] != classes:
        more = "; --classes says which of them are meant" * (logits.shape[1] > classes > 0)
        raise UserError(
            f"{called} returns {logits.shape[1]} classes, the data set has {classes}{more}"
        )
    if not logits.is_floating_point():
        raise UserError(f"{called} must return logits, it returned whole numbers ({logits.dtype})")
    if not logits.isfinite().all():
        raise UserError(f"{called} returns NaN or infinite logits on clean images")
    if logits.requires_grad:
        return ""
    return f"the logits of {called} have no gradient with respect to the images ({reason})"


def _answers(model: nn.Module, x: Tensor, called: str) -> tuple[object, str]:
    """Return what a model answers, and why that has no gradient, if it has none."""
    with unchanged_model(model):
        try:
            with torch.enable_grad():
                return model(x.clone().requires_grad_()), "detached?"
        except Exception as error:  # it may be the user's code: anything can come out of it
            reason = in_one_line(error)
        try:  # code outside of torch refuses images that want a gradient
            with torch.no_grad():
                return model(x.clone()), reason
        except Exception as error:
            raise UserError(
                f"{called} cannot take images of shape {tuple(x.shape[1:])}: {in_one_line(error)}"
            ) from None
