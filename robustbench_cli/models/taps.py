"""Features inside a network, addressed by name, for our models and for a user's own.

``embedding`` is the input of the last layer; any other name is the path of a module, such as
``body.layer3``, and means that module's output.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.losses import wide

EMBEDDING = "embedding"


class _Features(dict[str, Tensor]):
    """Features by name; one that no forward pass came by is the model's fault, told in one line."""

    def __missing__(self, name: str) -> Tensor:
        raise UserError(
            f"features are asked for ({name}), but the model's forward pass does not call the layer"
        )


@contextmanager
def tapped(model: Any, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the named features of every forward pass of ``model`` while the context is open.

    Yields:
        A dictionary with the features of the latest pass by name, in float32 or wider: (B, F) for
            ``embedding``, the shape of the module's output otherwise.

    Raises:
        UserError: the model has no module of that name, or no last layer; or a feature is looked
            up that no pass came by, because the model does not call that layer as a module.
    """
    found = _Features()
    with ExitStack() as hooks:
        for name in names:
            hooks.callback(_hook(model, name, found).remove)
        yield found


def embedding(model: Any, x: Tensor) -> Tensor:
    """Return the input of the last layer, (B, F), for images ``x`` (B, C, H, W) in [0, 1]."""
    with tapped(model, [EMBEDDING]) as found:
        model(x)
    return found[EMBEDDING]


def last_layer(model: Any) -> nn.Module:
    """Return the layer whose input is the embedding: ``head``, else the last linear layer.

    Raises:
        UserError: the model has neither.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    linear = [m for m in modules if isinstance(m, nn.Linear)]
    found = getattr(model, "head", None) or (linear[-1] if linear else None)
    if not isinstance(found, nn.Module):
        raise UserError("features are asked for, but the model has no last linear layer")
    return found


def _hook(model: Any, name: str, found: dict[str, Tensor]) -> Any:
    """Register a hook that stores the feature ``name`` in ``found``; return its handle."""

    def store_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = wide(inputs[0].flatten(1))

    def store_output(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        found[name] = wide(out)

    if name == EMBEDDING:
        return last_layer(model).register_forward_pre_hook(store_input)
    modules = dict(model.named_modules())
    if name not in modules:
        known = [path for path in modules if path]
        raise UserError(f"the model has no part {name!r}{hint(name, known)}")
    return modules[name].register_forward_hook(store_output)
