"""Weights from a file that somebody else may have written: read, never run.

Safetensors files (Hugging Face, 2022), https://github.com/huggingface/safetensors, and PyTorch
files through the restricted unpickler of ``torch.load(weights_only=True)``.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError

_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts put the state dict beside the optimiser's."""
_SHOWN = 3


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model``, every tensor of it, from a state dict on disk.

    Raises:
        UserError: the file is absent or damaged, holds code, or does not fit the model.
    """
    fill_from_state_dict(model, read_state(path), path)


def fill_from_state_dict(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill ``model`` from a state dict that was read from ``path``; strict."""
    prefix = "module."  # what DataParallel puts before every name
    if all(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    wrong = _mismatches(model.state_dict(), state)
    if wrong:
        more = f"; {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(f"{path} does not fit the model: {'; '.join(wrong[:_SHOWN])}{more}")
    model.load_state_dict(dict(state))


def digest(model: nn.Module) -> str:
    """sha256 over the names and values of all tensors."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file; raise ``UserError`` if it is absent, damaged, or more than that."""
    try:
        if not path.is_file():
            raise UserError(f"no weights at {path}: expected a .safetensors, .pt or .pth file")
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():  # of a file's format; the error below says enough
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged bytes make the readers raise nearly anything
        raise UserError(
            f"{path} is damaged, or holds more than tensors ({type(error).__name__}); "
            "loading weights never runs code: save model.state_dict() alone"
        ) from error
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if key in content), content)
        # A bare state dict may itself have a tensor called 'model'.
        content = inner if isinstance(inner, Mapping) else content
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise UserError(
            f"{path} holds no state dict: expected names and tensors, bare or under one of "
            f"{', '.join(map(repr, _WRAPPERS))}"
        )
    return dict(content)


def _mismatches(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name!r} is missing" for name in wanted if name not in given]
    unexpected = [f"{name!r} is unexpected" for name in given if name not in wanted]
    misshaped = [
        f"{name!r} has shape {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    # One of each kind first: a renamed layer shows as a missing and an unexpected name.
    kinds = [kind for kind in (missing, unexpected, misshaped) if kind]
    return [kind[0] for kind in kinds] + [text for kind in kinds for text in kind[1:]]
