"""From a model to the graph of its operations, by torch.fx."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from robustbench_cli.bounds.graph import BoundGraph, GraphStep
from robustbench_cli.bounds.operations import AffineMap, Operation
from robustbench_cli.bounds.rules import LayerRule, UnknownBounds, kind_of, known_rules
from robustbench_cli.core.errors import UserError, in_one_line

_BATCH = 7
"""The number of examples in the shapes that the model's code is shown while a graph is built."""


@dataclass(frozen=True)
class Symbol:
    """A value that depends on the image, while a graph is built."""

    number: int
    """Its number in the graph."""
    shape: torch.Size
    """Its shape, with a stand-in for the number of examples."""


class TracedModel:
    """A model's forward pass as torch.fx records it; the weights stay the model's own.

    Raises:
        UserError: it cannot be recorded, or has hooks, which a recording leaves out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            if weight.is_floating_point() and weight.dtype not in (torch.float32, torch.float64):
                kind = str(weight.dtype).removeprefix("torch.")
                raise UserError(f"no bounds are known for a model in {kind} ({name})")
        for name, module in model.named_modules():
            if module._forward_hooks or module._forward_pre_hooks:
                raise UserError(
                    f"no bounds are known for a model with forward hooks ({name or 'the model'})"
                )
        try:
            self.graph = _Tracer().trace(model)
        except Exception as error:  # it runs the user's code: anything can come out of it
            raise UserError(
                f"no bounds are known for this model: its forward pass cannot be traced "
                f"({in_one_line(error)})"
            ) from None

    def lowered(self, image: torch.Size, dtype: torch.dtype = torch.float32) -> BoundGraph:
        """Return the graph of the model with its weights as they are now.

        Bounds are differentiable in the weights.

        Args:
            image: the shape of one image (C, H, W).
            dtype: the precision of the bounds.

        Raises:
            UserError: a layer or function for which no bounds are known, by name.
        """
        builder = GraphBuilder(dtype)
        values: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if values:
                    continue  # an optional argument, which keeps its default
                values[node] = Symbol(0, torch.Size([_BATCH, *image]))
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "output":
                return builder.graph(args[0])
            if node.op == "get_attr":
                values[node] = _attribute(self.model, node.target)
                continue
            builder.name = _place(node)
            try:
                values[node] = self._value(builder, node, args, kwargs)
            except UnknownBounds as unknown:
                raise UserError(
                    f"no bounds are known for {unknown} ({builder.name or 'the model'})"
                ) from None
        raise AssertionError("a graph ends in its output")

    def _value(self, builder: "GraphBuilder", node: fx.Node, args: Any, kwargs: Any) -> Any:
        """Return the value of one node: a symbol, or what does not depend on the image."""
        symbolic = any(isinstance(each, Symbol) for each in _leaves((args, kwargs)))
        rules = known_rules()
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            kind = kind_of(module)
            if kind is None:
                raise UnknownBounds(type(module).__name__)
            return rules.layers[kind](builder, module, *args, **kwargs)
        if not symbolic:
            target: Any = node.target
            call = getattr(args[0], target) if node.op == "call_method" else target
            return call(*args[1:], **kwargs) if node.op == "call_method" else call(*args, **kwargs)
        rule = rules.functions.get(node.target)
        name = node.target if isinstance(node.target, str) else _name_of(node.target)
        if rule is None:
            raise UnknownBounds(name)
        return _ruled(rule, name, builder, args, kwargs)


@dataclass
class GraphBuilder:
    """Collects the operations of a graph while its rules are applied."""

    dtype: torch.dtype
    name: str = ""
    """The place in the model of what is added."""
    steps: list[GraphStep] = field(default_factory=list)

    def constant(self, value: Any) -> Tensor:
        """Return a weight or a number as a tensor of the graph's precision."""
        return torch.as_tensor(value).to(self.dtype)

    def add(self, operation: Operation, shape: torch.Size, *inputs: Symbol) -> Symbol:
        """Add an operation; return its output.

        Args:
            shape: that of the output.
        """
        if not shape or shape[0] != _BATCH:
            raise UnknownBounds(f"a value of shape {tuple(shape)}, which mixes examples")
        numbers = tuple(each.number for each in inputs)
        self.steps.append(GraphStep(operation=operation, inputs=numbers, name=self.name))
        return Symbol(len(self.steps), shape)

    def affine(
        self,
        x: Symbol,
        apply: Callable[[Tensor, Tensor | None], Tensor],
        *,
        weight: Any = None,
        shift: Any = None,
        terms: int = 0,
    ) -> Symbol:
        """Add an ``AffineMap`` of ``x``, with weight and shift in the graph's precision."""
        w = None if weight is None else self.constant(weight)
        b = None if shift is None else self.constant(shift)
        shape = self.shape_of(lambda v: apply(v, None if w is None else w.to("meta")), x)
        return self.add(AffineMap(apply=apply, weight=w, shift=b, terms=terms), shape, x)

    def shape_of(self, function: Callable[[Tensor], Tensor], x: Symbol) -> torch.Size:
        """Return the shape of a function's value at ``x``; nothing is computed."""
        with torch.no_grad():
            return function(torch.empty(x.shape, dtype=self.dtype, device="meta")).shape

    def graph(self, output: Any) -> BoundGraph:
        """Return the graph that ends in ``output``.

        Raises:
            UserError: this is not one tensor of logits (B, K).
        """
        if not isinstance(output, Symbol) or len(output.shape) != 2:
            raise UserError("no bounds are known for this model: it does not return logits (B, K)")
        return BoundGraph(steps=self.steps, output=output.number, dtype=self.dtype)


class _Tracer(fx.Tracer):
    """Keeps whole what there is a rule for, and torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if kind_of(m) is not None:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _ruled(rule: LayerRule, name: str, builder: GraphBuilder, args: Any, kwargs: Any) -> Any:
    try:
        return rule(builder, *args, **kwargs)
    except TypeError:  # arguments that the rule does not know
        raise UnknownBounds(f"{name} with these arguments") from None


def _attribute(model: nn.Module, path: Any) -> Any:
    owner, _, name = str(path).rpartition(".")
    return getattr(model.get_submodule(owner), name)


def _place(node: fx.Node) -> str:
    """Return the path of the module in which a node is called."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def _name_of(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
    elif isinstance(value, slice):
        yield from _leaves([value.start, value.stop, value.step])
    else:
        yield value
