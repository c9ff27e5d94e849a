"""Weights and training state as safetensors: tensors only, so loading one never runs code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.records import sha256


def save_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Write tensors and a note to ``path``, under a temporary name until they are complete.

    Args:
        note: anything that JSON can hold.
    """
    # Contiguous copies, because the format has neither strides nor shared memory.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    metadata = {"advbench": json.dumps(dict(note))}
    write_atomically(path, lambda part: save_file(plain, part, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the note in ``path``.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            note = json.loads((file.metadata() or {}).get("advbench", "{}"))
    except FileNotFoundError:
        raise UserError(f"checkpoint {str(path)!r} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"checkpoint {str(path)!r} is damaged: {error}") from None
    return tensors, note


def load_recorded(folder: Path, entry: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors in a file of a run.

    Args:
        entry: the file's name and SHA-256 as the run's record has them (``file``, ``sha256``).

    Raises:
        UserError: it is missing, or not the file that was recorded.
    """
    path = folder / entry["file"]
    if not path.is_file() or sha256(path) != entry["sha256"]:
        raise UserError(f"{str(path)!r} is missing, damaged or was replaced: fit it again")
    return load_tensors(path)[0]


def training_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, auxiliaries: nn.Module
) -> dict[str, Tensor]:
    """Return everything that a run needs to resume, by name.

    Names are ``model.*``, ``aids.*`` (the auxiliary modules) and ``optimizer.N.*``.
    """
    slots = optimizer.state_dict()["state"]
    return {
        f"{owner}.{key}": value
        for owner, module in {"model": model, "aids": auxiliaries}.items()
        for key, value in module.state_dict().items()
    } | {
        f"optimizer.{index}.{key}": value
        for index, slot in slots.items()
        for key, value in slot.items()
        if isinstance(value, Tensor)
    }


def restore_training(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    auxiliaries: nn.Module,
) -> None:
    """Load the tensors that :func:`training_state` returned into the same objects."""
    slots: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "aids": {}}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner in weights:
            weights[owner][rest] = value
        else:
            index, _, key = rest.partition(".")
            slots.setdefault(int(index), {})[key] = value
    model.load_state_dict(weights["model"])
    auxiliaries.load_state_dict(weights["aids"])
    state = optimizer.state_dict()
    optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})
    # A fused optimiser reads a weight and its state side by side, so both need the same strides.
    for weight, slot in optimizer.state.items():
        for key, value in slot.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                slot[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
