"""Weights from a file that somebody else may have written: read, never run.

Safetensors files (Hugging Face, 2022), https://github.com/huggingface/safetensors, and PyTorch
files through the restricted unpickler of ``torch.load(weights_only=True)``.
"""

import argparse
import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models._names import fitted_names, state_mismatches

_USUAL = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the weights beside the optimiser's state."""
_SHOWN = 3
_MOST_KEYS = 12


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The state dict in a file, and what was chosen on the way to it."""

    path: Path
    state: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    """What is to be said of the choice, where the file left one."""
    others: tuple[str, ...] = ()
    """The keys of the other state dicts in the file."""


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> tuple[str, ...]:
    """Fill ``model``, every tensor of it, from a state dict on disk.

    Args:
        key: the key of the state dict in the file, ``ema`` or ``last.state_dict``; None: found.

    Returns:
        What is to be said of it.

    Raises:
        UserError: the file is absent or damaged, holds code, does not fit the model, or leaves open
            which of its state dicts is meant.
    """
    return fill_from_file(model, read_weights(path, key))


def fill_from_file(
    model: nn.Module, file: WeightsFile, own: tuple[str, ...] = (), extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Fill ``model`` from a state dict; every tensor must be there, and none may be left over.

    Names are matched through prefixes that wrappers put before them: ``module.``, ``model.``, ...

    Args:
        own: last parts of the names of buffers for which the model's own values will do.
        extra: parts of the names of tensors that may be left over.

    Returns:
        What is to be said of it.

    Raises:
        UserError: it does not fit; the model is unchanged.
    """
    wanted = model.state_dict()
    spare = {n for n, _ in model.named_buffers() if n.rpartition(".")[2] in own and n in wanted}
    state = fitted_names({n: v for n, v in wanted.items() if n not in spare}, file.state)
    kept = tuple(sorted(spare - {*state}))
    dropped = [n for n in state if n not in wanted and any(part in n for part in extra)]
    state = {name: value for name, value in state.items() if name not in dropped}
    wrong = state_mismatches({n: v for n, v in wanted.items() if n not in kept}, state)
    if wrong:
        raise UserError(f"{file.path} does not fit the model: {_told(wrong, wanted, state, file)}")
    model.load_state_dict({**{name: wanted[name] for name in kept}, **state})
    said = []
    if kept:
        said.append(f"{_quoted(kept)} not in the weights file: the architecture's own values")
    if dropped:
        said.append(f"left over in the weights file: {_quoted(dropped)}")
    return (*file.notes, *said)


def digest(model: nn.Module) -> str:
    """sha256 over the names and values of all tensors."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def classes_in_layer(model: nn.Module, state: Mapping[str, Tensor], layer: str) -> int | None:
    """Return how many classes the last layer of some weights has; None: it is not there.

    Args:
        model: a network of this kind, with any number of classes.
        layer: the name of its last layer.
    """
    weight = fitted_names(model.state_dict(), state).get(f"{layer}.weight")
    return None if weight is None else len(weight)


def read_weights(path: Path, key: str | None = None) -> WeightsFile:
    """The state dict in a file.

    It is looked for at the top of the file, under the usual keys, and one level deeper.  Beside the
    weights of the last step there may be an average of them (``ema``): it is taken only if
    ``key`` says so.

    Raises:
        UserError: the file is absent, damaged, or more than data, or it leaves open which of its
            state dicts is meant.
    """
    found = dict(_state_dicts(_content(path)))
    if key is not None:
        if key not in found:
            raise UserError(f"--weights-key {key}: {path} has no state dict there; {_keys(found)}")
        chosen = key
    elif not found:
        raise UserError(
            f"{path} holds no state dict: expected names and tensors, bare or under one of "
            f"{', '.join(map(repr, _USUAL))}{_top(_content(path))}"
        )
    else:
        chosen = _chosen(path, found)
    others = tuple(name for name in found if name != chosen)
    notes = () if key or not others or not chosen else (_choice(chosen, others),)
    return WeightsFile(path=path, state=found[chosen], notes=notes, others=others)


def _choice(chosen: str, others: tuple[str, ...]) -> str:
    return f"weights under {chosen!r}; the file also has {_quoted(others)} (--weights-key)"


def _chosen(path: Path, found: Mapping[str, object]) -> str:
    """Return the key of the state dict to take where none was named."""
    if "" in found or len(found) == 1:
        return "" if "" in found else next(iter(found))
    parents = {name.rpartition(".")[0] for name in found}
    inside = f"{parents.pop()}." if len(parents) == 1 else ""
    plain = [name for name in found if name.removeprefix(inside) in _USUAL]
    if len(plain) == 1:
        return plain[0]
    raise UserError(
        f"{path} holds several state dicts: choose one by --weights-key; {_keys(found)}"
    )


def _keys(found: Mapping[str, object]) -> str:
    named = [name for name in found if name]
    return f"there are {_quoted(named)}" if named else "the state dict is at the top: leave it out"


def _quoted(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_KEYS} more" if len(names) > _MOST_KEYS else ""
    return ", ".join(map(repr, names[:_MOST_KEYS])) + more


def _top(content: object) -> str:
    if not isinstance(content, Mapping) or not content:
        return f"; it holds {type(content).__name__}"
    return f"; its keys are {_quoted(content)}"


def _state_dicts(content: object, at: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the state dicts in what a file holds, with their keys, ``last.state_dict``."""
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    rest = [v for k, v in content.items() if k not in tensors]
    # Numbers and texts beside tensors are no weights; a mapping with other things is no state dict.
    if tensors and all(isinstance(each, str | int | float | np.generic | None) for each in rest):
        yield at, tensors
        return
    if depth < 2:
        for name, each in content.items():
            if isinstance(name, str) and name != "optimizer":
                yield from _state_dicts(each, f"{at}.{name}".lstrip("."), depth + 1)


def _content(path: Path) -> object:
    """What a weights file holds; nothing in it is run."""
    if not path.is_file():
        raise UserError(f"no weights at {path}: expected a .safetensors, .pt or .pth file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_globals()):
            warnings.simplefilter("ignore")  # of a file's format; the error below says enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged bytes make the readers raise nearly anything
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} is a TorchScript program, no state dict: give it as --model {path}"
            ) from None
        needs = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error))
        why = f"it needs {needs[1]}" if needs else type(error).__name__
        raise UserError(
            f"{path} is damaged, or holds more than tensors ({why}); "
            "loading weights never runs code: save model.state_dict() alone"
        ) from error


def _plain_globals() -> list[Any]:
    """Types that scripts put beside weights, and that hold data only: nothing of them is run."""
    array = np.array(0.0)
    scalar, rebuild = np.float64(0).__reduce__()[0], array.__reduce__()[0]
    kinds = [getattr(np.dtypes, name) for name in vars(np.dtypes) if name.endswith("DType")]
    older = [  # as numpy 1 called them
        (scalar, "numpy.core.multiarray.scalar"),
        (rebuild, "numpy.core.multiarray._reconstruct"),
    ]
    return [scalar, rebuild, np.dtype, np.ndarray, argparse.Namespace, *older, *set(kinds)]


_NORMALISATION = ("mu", "sigma", "mean", "std")
"""Last parts of the names of buffers that hold the statistics of a normalisation."""


def _told(
    wrong: list[str], wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], file: WeightsFile
) -> str:
    """Say what does not fit, and what may help."""
    more = f"; {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    missing = [name for name in wanted if name not in given]
    if len(missing) == len(wrong) and all(
        name.rpartition(".")[2] in _NORMALISATION for name in missing
    ):
        return (
            f"only the normalisation ({_quoted(missing)}) is missing; if the values that the "
            "model's code sets are right, register these buffers there with persistent=False"
        )
    elsewhere = f"; the file also has {_quoted(file.others)} (--weights-key)" if file.others else ""
    return f"{'; '.join(wrong[:_SHOWN])}{more}{elsewhere}"
