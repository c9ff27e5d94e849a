"""Sites inside a model: what goes into its modules and what comes out, reached by hooks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn


class Site(NamedTuple):
    """The first argument of a call of a module, or what the call returns."""

    module: str
    """The module's name in the model; empty: the model itself."""
    call: int
    """The number of the call among those of the module in one pass, from 0."""
    side: Literal["in", "out"]


ENTRANCE = Site("", 0, "in")
"""The images that a model is given."""

Visit = Callable[[Site, Tensor], Tensor | None]
"""From a site and the numbers there (B, ...) to what is to stand there instead; None: they stay.
No function is intercepted while it runs."""


@contextmanager
def visited(model: nn.Module, batch: int, visit: Visit) -> Iterator[None]:
    """Call ``visit`` at every site that has floating numbers of ``batch`` examples, in order."""
    calls: dict[str, int] = {}

    def at(site: Site, value: Any) -> Tensor | None:
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
        if not fits or len(value) != batch:
            return None
        with torch._C.DisableTorchFunction():
            return visit(site, value)

    def entered(name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            calls[name] = calls.get(name, -1) + 1
            new = at(Site(name, calls[name], "in"), args[0]) if args else None
            return None if new is None else (new, *args[1:])

        return hook

    def left(name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], out: Any) -> Tensor | None:
            return at(Site(name, calls.get(name, 0), "out"), out)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            for handle in (
                module.register_forward_pre_hook(entered(name)),
                module.register_forward_hook(left(name)),
            ):
                stack.callback(handle.remove)
        yield
