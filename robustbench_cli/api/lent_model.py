"""A caller's model, lent to an evaluation and given back as it was."""

import hashlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.api.load_model import load_model
from robustbench_cli.audit._probe import Copy
from robustbench_cli.commands.devices import resolve_device
from robustbench_cli.core.errors import UserError, stopped_program
from robustbench_cli.evaluation.model_check import gradient_obstacle
from robustbench_cli.evaluation.verifier import device_of, unchanged_model
from robustbench_cli.models._around import FittedModel
from robustbench_cli.models.fitting import Fitting, fit_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.models.weights import digest


@contextmanager
def lent(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """Lend a model: float32, on the device, laid out for it; gradients can be taken.

    Whatever happens, each module gets its class and training flag back, and each parameter and
    buffer its own tensor with its values, device, dtype and strides; parameters their
    ``requires_grad`` and ``grad``, too.

    Args:
        device: None: where the model's parameters are.

    Yields:
        The device.

    Raises:
        UserError: there is no such device; or the model's own code called ``sys.exit()`` or the
            like, which must not end the caller's program as if all were well.
    """
    where = resolve_device(str(device_of(model) if device is None else device))
    state = _State(model)
    try:
        # The caller may be inside no_grad or inference_mode, under which attacks cannot work.
        with torch.inference_mode(False), torch.enable_grad():
            laid_out(model.float(), where)
            yield where
    except (KeyboardInterrupt, GeneratorExit, Exception):
        raise
    except BaseException as error:
        raise stopped_program(error) from error
    finally:
        state.restore()


class _State:
    """What a model was before it was lent."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(module, type(module), module.training) for module in model.modules()]
        self._parameters = [
            (module, dict(module._parameters), dict(module._buffers)) for module in model.modules()
        ]
        self._tensors = [
            (p, p.data, p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()
        ]
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        for parameter in model.parameters():
            parameter.grad = None  # else it would be moved and cast along with its parameter

    def restore(self) -> None:
        for module, kind, training in self._modules:
            module.__class__, module.training = kind, training
        for module, parameters, buffers in self._parameters:
            # One by one: these are no dictionaries in a TorchScript module.
            for name, parameter in parameters.items():
                module._parameters[name] = parameter
            for name, buffer in buffers.items():
                module._buffers[name] = buffer
        for parameter, data, wanted, grad, values in self._tensors:
            parameter.data = data
            _write_back(data, values)
            parameter.requires_grad_(wanted)
            parameter.grad = grad
        for buffer, values in self._buffers:
            _write_back(buffer, values)


def _write_back(tensor: Tensor, values: Tensor) -> None:
    """Put values back that a model has changed in place."""
    if not torch.equal(tensor, values):
        with torch.no_grad():
            tensor.copy_(values)


def named_model(model: nn.Module | str, images: Tensor) -> nn.Module:
    """Return the model that was given, or the one of that name.

    Args:
        images: the images that it is for (N, C, H, W), as ``read_images`` returns them.

    Raises:
        UserError: it is neither, or it cannot be loaded.
    """
    if isinstance(model, nn.Module):
        return model
    if not isinstance(model, str):
        raise UserError(
            f"the model must be an nn.Module or a name such as 'timm:resnet18', got "
            f"{type(model).__name__}"
        )
    return load_model(model, images)


def fitted_for(
    model: nn.Module, copy: Copy, x: Tensor, labels: Tensor
) -> tuple[nn.Module, Copy, dict[str, Any], tuple[str, ...]]:
    """Return the model as it returns logits, copies of it, what the record says, and notes.

    Args:
        model: a lent model; it is asked about a few images.
        copy: makes copies of the model as it was.
        x: the images (B, C, H, W) in [0, 1].
        labels: those of all images (N).

    Raises:
        UserError: it is not clear what its logits are.
    """
    if isinstance(model, FittedModel):
        return model, copy, model.settings, model.notes
    fitted = fit_model(model, Fitting(), x, None, two=bool((labels <= 1).all()))

    def fresh() -> nn.Module | None:
        made = copy()
        return None if made is None else fitted.around(made).eval()

    return fitted.around(model), fresh, fitted.settings, fitted.notes


def count_classes(model: nn.Module, x: Tensor) -> tuple[int, str]:
    """Return how many classes a model tells apart, and what keeps gradients from its images.

    Args:
        x: a few images, float32 (B, C, H, W) in [0, 1].

    Raises:
        UserError: the model cannot be evaluated: it fails on such images, returns anything but
            finite logits (B, K).
    """
    with unchanged_model(model), torch.no_grad():
        try:
            logits = model(x)
            classes = logits.shape[1]
        except Exception:  # the model is the caller's code: anything can come out of it
            classes = 0  # gradient_obstacle says what is wrong
    return int(classes), gradient_obstacle(model, x, classes)


def dtype_notes(model: nn.Module) -> tuple[str, ...]:
    """Return a note for a model whose weights are not float32."""
    kinds = {str(p.dtype) for p in model.parameters() if p.is_floating_point()} - {"torch.float32"}
    said = f"the model's weights are {' and '.join(sorted(kinds))}: it is evaluated in float32"
    return (said,) * bool(kinds)


def model_digest(model: nn.Module) -> str:
    """Return a sha256 of a model's weights, ``+``, and one of its code.

    Of the code as much as can be seen counts: the structure, the numbers and texts that modules
    hold, and the source of every class that is not torch's.  An unfinished evaluation goes on only
    with a model of the same digest.
    """
    plain = re.sub(r"0x[0-9a-f]+", "", repr(model))  # addresses are others in each process
    code = hashlib.sha256(plain.encode())
    for name, module in model.named_modules():
        held = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float | str) and key != "training"
        }
        code.update(f"{name} {type(module).__qualname__} {sorted(held.items())}".encode())
    kinds = {type(module) for module in model.modules()}
    for source in sorted({_source(kind) for kind in kinds}):
        code.update(source.encode())
    return f"{digest(model)}+{code.hexdigest()}"


def _source(kind: type[Any]) -> str:
    """Return the source of a class, or nothing for torch's own and where there is none."""
    if kind.__module__.partition(".")[0] == "torch":
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
