"""Features inside a network, by name: ours, or one of the user's own.

``embedding`` is what the last layer reads; any other name is the path of a module, such as
``body.layer3``, and means what that module puts out.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.losses import wide

EMBEDDING = "embedding"


@contextmanager
def tapped(model: Any, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open, every pass of ``model`` leaves these features behind, in float32 or wider.

    Yields:
        The features of the latest pass by name; maps and sequences keep their shape.

    Raises:
        UserError: the model has no such module, or no last layer.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in names:
            hooks.callback(_hook(model, name, found).remove)
        yield found


def embedding(model: Any, x: Tensor) -> Tensor:
    """What the last layer of ``model`` reads of images ``x``, (B, F)."""
    with tapped(model, [EMBEDDING]) as found:
        model(x)
    return found[EMBEDDING]


def last_layer(model: Any) -> nn.Module:
    """The layer whose input is the embedding: ``head``, else the last linear one.

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
    def reads(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = wide(inputs[0].flatten(1))

    def puts_out(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        found[name] = wide(out)

    if name == EMBEDDING:
        return last_layer(model).register_forward_pre_hook(reads)
    modules = dict(model.named_modules())
    if name not in modules:
        known = [path for path in modules if path]
        raise UserError(f"the model has no part {name!r}{hint(name, known)}")
    return modules[name].register_forward_hook(puts_out)
