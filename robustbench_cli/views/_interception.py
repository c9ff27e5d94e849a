"""Torch functions that stop or scramble the gradient, replaced while a model runs.

The model computes exactly what it computes anyway; only the gradient of some functions is that of a
smooth function instead (backward pass differentiable approximation; Athalye et al., 2018,
https://arxiv.org/abs/1802.00420).  Functions are found as the model calls them, so that it does not
matter whether a module, a functional call or a custom ``torch.autograd.Function`` holds them.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.overrides import TorchFunctionMode

from robustbench_cli.core.inner_autograd import Engine, engine_replaced
from robustbench_cli.models.bpda import swap_gradient

Call = Callable[..., Any]
GradientRule = Callable[["Interception", Call, tuple[Any, ...], dict[str, Any]], Any]
"""From a function and its arguments to its result, with another gradient."""

_OWN = ("torch.", "robustbench_cli.")
"""The modules whose custom functions are kept: their backward passes are meant as they are."""


class Interception(TorchFunctionMode):
    """A context in which functions have the gradients that ``rules`` give them."""

    def __init__(self, rules: Mapping[Call, GradientRule]) -> None:
        super().__init__()
        self._rules = rules
        self._companions: dict[int, tuple[Tensor, Tensor]] = {}
        self._exported: list[Tensor] = []
        self.paused = False
        """True in the step of an optimiser, which changes its parameters in place."""
        self.graded: list[Tensor] = []
        """Tensors whose ``.grad`` the model may have taken in its forward pass."""

    def __torch_function__(
        self, func: Call, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func`` with the arguments, by its rule if it has one."""
        kwargs = kwargs or {}
        args = self._imported(args) if self._exported else args
        rule = self._rules.get(func)
        out = (rule or self.__class__.call)(self, func, args, kwargs)
        if _in_place(func) and isinstance(out, Tensor) and out is not args[0]:
            return args[0].copy_(out)
        return out

    def call(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``func``; where it takes whole numbers or truth values, follow their companions."""
        if not any(id(each) in self._companions for each in _tensors(args)):
            return func(*args, **kwargs)
        if _in_place(func):
            args = (args[0].clone(), *args[1:])
        out = func(*args, **kwargs)
        smooth = _mapped(args, lambda each: self._companions.get(id(each), (each, each))[1])
        try:
            with_gradient = self.__torch_function__(func, (), smooth, kwargs)
        except (RuntimeError, TypeError, IndexError):  # a function of whole numbers only
            return out
        return self.attach(out, with_gradient)

    def attach(self, exact: Any, smooth: Any) -> Any:
        """Return the values of ``exact`` with the gradient of ``smooth``.

        Whole numbers and truth values cannot have a gradient: what is computed of them later on
        gets it.
        """
        pair = isinstance(exact, Tensor) and isinstance(smooth, Tensor)
        if not pair or exact.shape != smooth.shape or not smooth.requires_grad:
            return exact
        if not exact.is_floating_point():
            self._companions[id(exact)] = exact, smooth
            return exact
        return swap_gradient(exact.detach(), smooth.to(exact.dtype))

    def companion(self, exact: Any) -> Tensor | None:
        """Return the smooth numbers that go with whole numbers or truth values, if there are."""
        return self._companions[id(exact)][1] if id(exact) in self._companions else None

    def export(self, x: Tensor) -> None:
        """Remember a tensor that leaves torch: the next one of its shape that comes back is it."""
        if x.requires_grad:
            self._exported.append(x)

    def part_grads(self) -> None:
        """Cut ``.grad`` of what was graded off its graph, which would hold the tensor for ever."""
        for each in self.graded:
            if each.grad is not None and each.grad.requires_grad:
                each.grad = each.grad.detach()
        self.graded.clear()

    def _imported(self, args: Any) -> Any:
        def attached(each: Tensor) -> Tensor:
            if each.requires_grad or isinstance(each, nn.Parameter) or id(each) in self._companions:
                return each
            for place, source in enumerate(self._exported):
                if source.shape == each.shape:
                    del self._exported[place]
                    return self.attach(each, source)  # type: ignore[no-any-return]
            return each

        return _mapped(args, attached)


@contextmanager
def intercepted(rules: Mapping[Call, GradientRule], inner_graphs: bool = False) -> Iterator[None]:
    """Give functions the gradients of ``rules``, and custom functions that of what they compute.

    ``torch.no_grad`` and ``torch.inference_mode`` have no effect while the context is open, but in
    the step of an optimiser.

    Args:
        inner_graphs: whether gradients that the model takes in its forward pass can themselves be
            differentiated; otherwise they are constants.
    """
    with ExitStack() as stack:
        function = torch.autograd.Function
        original = vars(function)["apply"]

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            if cls.__module__.startswith(_OWN):
                return original.__get__(None, cls)(*args, **kwargs)
            return _differentiated(cls, original, args, kwargs)

        interception = Interception(rules)

        def kept(engine: Engine) -> Engine:
            def run(
                roots: Any, grads: Any, _retain: bool, create: bool, *rest: Any, **to: Any
            ) -> Any:
                if inner_graphs and to.get("accumulate_grad"):
                    interception.graded += _leaves(roots)
                with warnings.catch_warnings():
                    # Of tensors whose ``.grad`` holds them; it is cut off in the end.
                    warnings.filterwarnings("ignore", message="Using backward")
                    return engine(roots, grads, True, create or inner_graphs, *rest, **to)

            return run

        # A model that attacks itself in its forward pass must leave the graph as it is.
        stack.enter_context(engine_replaced(kept))
        stack.callback(interception.part_grads)
        stack.enter_context(mock.patch.object(function, "apply", classmethod(apply)))
        for name in ("__enter__", "__exit__"):
            stack.enter_context(mock.patch.object(torch.inference_mode, name, return_value=None))
        stack.enter_context(interception)
        for register, paused in (
            (register_optimizer_step_pre_hook, True),
            (register_optimizer_step_post_hook, False),
        ):
            handle = register(lambda *_, paused=paused: setattr(interception, "paused", paused))
            stack.callback(handle.remove)
        yield


class Intercepted(nn.Module):
    """A model whose functions have the gradients of ``rules``."""

    def __init__(
        self, model: nn.Module, rules: Mapping[Call, GradientRule], inner_graphs: bool = False
    ) -> None:
        super().__init__()
        self.model, self.rules, self.inner_graphs = model, rules, inner_graphs

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return self.model(x)  # type: ignore[no-any-return]
        with torch.enable_grad(), intercepted(self.rules, self.inner_graphs):
            logits: Tensor = self.model(x)
        _open_custom_nodes(logits)
        return logits


class _Context:
    """What the forward method of a custom function may ask of its context."""

    saved_tensors: tuple[Tensor, ...] = ()
    needs_input_grad = (True,) * 16

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def mark_dirty(self, *_: Any) -> None: ...

    def mark_non_differentiable(self, *_: Any) -> None: ...

    def set_materialize_grads(self, _: bool) -> None: ...


def _differentiated(cls: Any, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a custom function, with the gradient of its forward method.

    Where that has none, the gradient passes as through the identity.
    """
    old_style = cls.setup_context is torch.autograd.Function.setup_context
    try:
        out = cls.forward(*((_Context(), *args) if old_style else args), **kwargs)
    except (RuntimeError, AttributeError, TypeError):
        return original.__get__(None, cls)(*args, **kwargs)
    sources = [each for each in _tensors(args) if each.requires_grad]
    if not isinstance(out, Tensor) or not sources or not out.is_floating_point():
        return out
    if any(out is each for each in sources):
        return out.view_as(out)
    same = [each for each in sources if each.shape == out.shape]
    return swap_gradient(out, same[0]) if same and not out.requires_grad else out


def _leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """The tensors at which the graph of ``roots`` begins."""
    waiting, seen, found = [root.grad_fn for root in roots], set(), []
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
        if hasattr(node, "variable"):
            found.append(node.variable)
    return found


def _open_custom_nodes(logits: Tensor) -> None:
    """Let the gradient pass through custom functions that could not be run again.

    It is so where a model keeps ``Function.apply`` itself.  Their backward passes are replaced by
    the identity, where shapes agree.
    """
    waiting, seen = [logits.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
        if isinstance(node, BackwardCFunction) and not _is_own(node):
            node.register_hook(_passed_through)


def _is_own(node: Any) -> bool:
    return str(node._forward_cls.__module__).startswith(_OWN)


def _passed_through(inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradient of a node's output for the first of its inputs that has the shape for it."""
    passed = list(inputs)
    for place, grad in enumerate(inputs):
        if outputs[0] is not None and (grad is None or grad.shape == outputs[0].shape):
            passed[place] = outputs[0]
            break
    return tuple(passed)


def _in_place(func: Call) -> bool:
    """True if a function changes its first argument, as ``round_`` and ``__imul__`` do."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def _tensors(args: Any) -> Iterable[Tensor]:
    """All tensors among arguments, also those in lists and tuples."""
    for each in args:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _mapped(args: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The arguments with every tensor changed."""
    if isinstance(args, Tensor):
        return change(args)
    if isinstance(args, list | tuple):
        changed = [_mapped(each, change) for each in args]
        return changed if isinstance(args, list) else tuple(changed)
    return args
