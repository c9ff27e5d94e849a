"""Captum (Kokhlikyan et al., 2020), https://arxiv.org/abs/2009.07896, which computes most methods.

It is an optional package: nothing here imports it before a method needs it.
"""

import warnings
from typing import Any

from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.explanations import ExplainedImages


def captum_method(name: str, *parts: nn.Module) -> Any:
    """Return a method of ``captum.attr``, made of a model and, for some, a layer.

    Args:
        name: the class, e.g. ``Saliency``.
        parts: what its constructor takes.

    Raises:
        UserError: captum is not installed.
    """
    try:
        from captum import attr
    except ModuleNotFoundError:
        raise UserError(
            f"this explanation needs captum: pip install captum, or {install_command('explain')}"
        ) from None
    return getattr(attr, name)(*parts)


def captum_attributions(method: Any, asked: ExplainedImages, **options: Any) -> Tensor:
    """Return a method's attributions of the target classes' logits, detached.

    Args:
        method: as ``captum_method`` returns it.
        asked: the images, whose ``x`` is left as it is.
        options: what the method's ``attribute`` takes beside images and targets.
    """
    with warnings.catch_warnings():
        # It warns of hooks and of gradients that it sets, and takes all of them back.
        warnings.simplefilter("ignore")
        found = method.attribute(asked.x.detach().clone(), target=asked.target, **options)
    assert isinstance(found, Tensor)
    return found.detach()
