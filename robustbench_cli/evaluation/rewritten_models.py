"""Models that answer almost like the evaluated one and may be faster, for attacks to work on."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx.experimental import optimization

from robustbench_cli.core.errors import in_one_line
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.search_model import SearchModel, for_device
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models import has_bf16
from robustbench_cli.models.layout import laid_out, restore_classes, row_major
from robustbench_cli.models.rejecting import rejection_of, with_network

COMPARED_IMAGES = 64
"""Images on which a faster model is compared with the original."""
GRADIENT_TOLERANCE = 1e-2
"""The largest relative L2 error of a folded model's gradients.  It is not smaller because
max-pooling may pick another of two equal pixels."""
LOGIT_TOLERANCE = 1e-3
"""The largest error of a folded model's logits, as a fraction of their standard deviation."""
MAX_BF16_SHIFT = 0.2
"""The largest change of a logit by bfloat16.  The softmax works in units of one: on a net with
logits so large that rounding shows there, attacks take other paths and end too far from those on
the original for a second attempt to correct them."""

_DOUBT = 5
"""Images that stand by less than so many of the largest shifts of a logit are attacked again.  On
two nets AutoPGD on the model itself ended within 1.5 shifts of where it had ended in bfloat16, and
Square, whose path is random, within 5.  Of 102 attacks within 10 shifts five succeeded at
the second try, all within 1.6."""


def rewritten_search_model(
    model: nn.Module, x: Tensor, *, random: bool = False
) -> tuple[SearchModel, list[str]]:
    """Return the model rewritten as far as its answers stay close to the original's.

    It runs in bfloat16 only where the hardware is made for it.

    Args:
        x: images (B, C, H, W) in [0, 1] on which the two are compared.
        random: whether the model is randomised: no two of its answers can be compared, so it is
            used as it is.

    Returns:
        The search model, and notes on what could not be rewritten and why.
    """
    device, answers = device_of(model), _answers(model, x)
    fast, notes = _folded(model, x, answers, random)
    shift = 0.0 if fast is model else _largest_shift(answers, fast, x)
    about = "float32" + ", BatchNorm folded" * (fast is not model)
    made = {"model": fast, "rejection": rejection_of(model), "about": about}
    own = for_device(device, uncertain_margin=_DOUBT * shift, **made)
    if random or not has_bf16(device):
        return own, notes
    narrow, why = bfloat16_search_model(model, own, x)
    return narrow or own, notes + why


def bfloat16_search_model(
    model: nn.Module, own: SearchModel, x: Tensor
) -> tuple[SearchModel | None, list[str]]:
    """Return a search model that runs in bfloat16; None, and a note that says why: it must not.

    Args:
        model: the evaluated model, not randomised.
        own: what runs in bfloat16: it, or what stands for it.
        x: images (B, C, H, W) in [0, 1] on which the two are compared.
    """
    assert isinstance(own.model, nn.Module)
    narrow = _Narrow(own.model, device_of(model)).eval()
    try:
        shift = _largest_shift(_answers(model, x), narrow, x)
        top_logit_gradient(narrow, x[:2])  # a backward pass of the user's own may not do it
        why = "" if shift <= MAX_BF16_SHIFT else f"it moves logits by {shift:.2g}"
    except Exception as error:  # this runs the user's code: anything can come out of it
        why = in_one_line(error)
    if why:
        return None, [f"bfloat16 was not used: {why}"]
    about = own.about.replace("float32", "bfloat16", 1)
    return replace(own, model=narrow, uncertain_margin=_DOUBT * shift, about=about), []


def row_major_search_model(model: nn.Module, own: SearchModel, x: Tensor) -> SearchModel | None:
    """Return a search model whose convolutions run on contiguous images; None: it cannot be had.

    On a CPU that can be faster than channels_last, above all on small nets.

    Args:
        model: the evaluated model, not randomised.
        own: what is copied and laid out: it, or what stands for it.
        x: images (B, C, H, W) in [0, 1] on which the two are compared.
    """
    if not isinstance(own.model, nn.Module):
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in own.model.modules()):
        return None
    try:
        copied = _RowMajor(restore_classes(copy.deepcopy(own.model))).requires_grad_(False).eval()
        answers = _answers(model, x)
        if _difference(model, copied, x, answers):
            return None
        shift = _largest_shift(answers, copied, x)
    except Exception:  # the user's code may not be copied: it is used as it is
        return None
    about = f"{own.about}, row-major"
    return replace(own, model=copied, uncertain_margin=_DOUBT * shift, about=about)


class _Narrow(nn.Module):
    """A model whose forward pass runs in bfloat16."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.device = device

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()


class _RowMajor(nn.Module):
    """A model whose convolutions run on contiguous images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for parameter in model.parameters():
            parameter.data = row_major(parameter.data)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(row_major(x))
        return logits


def _folded(
    model: nn.Module, x: Tensor, answers: Tensor, random: bool
) -> tuple[nn.Module, list[str]]:
    """The model with every BatchNorm that directly follows a convolution folded into it.

    Args:
        answers: the original's logits, as ``_answers`` returns them.

    Returns:
        The folded model, or the model itself with a note that says why.
    """
    folded: nn.Module = model
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        why = "the model has forward hooks"
    elif not _foldable(model):
        return model, []
    elif random:
        why = "the model is randomised"  # a trace keeps one branch of many
    else:
        try:
            folded = laid_out(with_network(model, _fused), device_of(model)).requires_grad_(False)
            if _foldable(folded) == _foldable(model):  # none of them follows a convolution
                return model, []
            why = _difference(model, folded, x, answers)
        except Exception as error:  # this runs the user's code: anything can come out of it
            why = in_one_line(error)
    return (model, [f"BatchNorm was not folded: {why}"]) if why else (folded, [])


def _foldable(model: nn.Module) -> int:
    """The number of BatchNorm layers that normalise with running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return sum(norm.running_mean is not None for norm in norms)


def _fused(model: nn.Module) -> nn.Module:
    return optimization.fuse(restore_classes(copy.deepcopy(model)).eval())


def _difference(model: nn.Module, folded: nn.Module, x: Tensor, answers: Tensor) -> str:
    """The reason not to use a folded model; empty if there is none."""
    if not _largest_shift(answers, folded, x) <= LOGIT_TOLERANCE * float(answers.std()):
        return "the folded model answers differently"
    original, other = (top_logit_gradient(each, x) for each in (model, folded))
    if not float((original - other).norm()) <= GRADIENT_TOLERANCE * float(original.norm()):
        # A backward pass of the user's own (a straight-through estimator) is lost in tracing.
        return "the folded model has other gradients"
    return ""


def top_logit_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """The gradient (B, C, H, W) of each image's largest logit."""

    def part_gradient(part: Tensor) -> Tensor:
        leaf = part.clone().requires_grad_()
        with torch.enable_grad():
            top = model(leaf).amax(1).sum()
            (grad,) = torch.autograd.grad(top, leaf, allow_unused=True)
        return torch.zeros_like(part) if grad is None else grad

    return in_parts(part_gradient, x)


def _largest_shift(answers: Tensor, other: nn.Module, x: Tensor) -> float:
    """The largest difference between another model's logits and the original's ``answers``."""
    return float((answers - _answers(other, x)).abs().max())


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (3 B, K) on the images, their negatives and blends of two of them.

    Clean images alone would not do: attacks go where images are not clean, and a difference that
    shows only there would mislead them.
    """
    with torch.no_grad():
        return in_parts(model, torch.cat([x, 1 - x, x.roll(1, 0) / 2 + x / 2]))
