"""Names of tensors in state dicts, matched through the prefixes that wrappers put before them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from torch import Tensor

_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile, and classes around a network put before every name."""
_COUNTS = ("n_averaged",)
"""Tensors beside the weights that are none: the count of ``torch.optim.swa_utils``."""

NamedTensors = Mapping[str, Tensor]


def fitted_names(wanted: NamedTensors, given: NamedTensors) -> dict[str, Tensor]:
    """Return ``given`` under the names that fit ``wanted`` best; unchanged if none do better."""
    best = max(_renamings(wanted, given), key=lambda state: _score(wanted, state))
    return dict(best)


def state_mismatches(wanted: NamedTensors, given: NamedTensors) -> list[str]:
    """Return what keeps a state dict from fitting, in words."""
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


def _score(wanted: NamedTensors, state: NamedTensors) -> tuple[int, int]:
    """More names in common, then fewer left over: the first of the best is taken."""
    common = len({*wanted} & {*state})
    return common, -len(state)


def _renamings(wanted: NamedTensors, given: NamedTensors) -> Iterator[NamedTensors]:
    """Yield the state dict as it is, then without prefixes, then with those that are wanted."""
    plain = given
    while True:
        yield plain
        yield from _with_prefixes(wanted, plain)
        weights = {name: v for name, v in plain.items() if name not in _COUNTS}
        prefix = next((p for p in _WRAPPERS if all(n.startswith(p) for n in weights)), None)
        if prefix is None or not weights:
            break
        plain = {name.removeprefix(prefix): value for name, value in weights.items()}
    # Parallel and compiled parts may stand anywhere: ``encoder._orig_mod.conv.weight``.
    inner = {_without(name, "module.", "_orig_mod."): value for name, value in given.items()}
    if len(inner) == len(given):
        yield inner
        yield from _with_prefixes(wanted, inner)


def _with_prefixes(wanted: NamedTensors, state: NamedTensors) -> Iterator[NamedTensors]:
    """Yield the state dict with prefixes before its names that names of the model have."""
    starts = {
        ".".join(parts[:end]) + "."
        for parts in {tuple(name.split(".")[:-1]) for name in wanted}
        for end in (1, 2)
        if len(parts) >= end
    }
    for start in sorted(starts, key=len):
        if start in _WRAPPERS or all(each in _WRAPPERS for each in _parts(start)):
            yield {start + name: value for name, value in state.items()}


def _parts(prefix: str) -> list[str]:
    ends = [i + 1 for i, letter in enumerate(prefix) if letter == "."]
    return [prefix[start:end] for start, end in pairwise([0, *ends])]


def _without(name: str, *parts: str) -> str:
    for part in parts:
        name = name.replace(f".{part}", ".").removeprefix(part)
    return name
