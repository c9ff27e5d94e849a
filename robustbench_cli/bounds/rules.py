"""Which operation a layer or a function is: rules, registered by a decorator.

A rule is a function in a module of ``bounds.layers``.  It is called with a ``GraphBuilder`` and the
arguments of the layer's forward pass, or of the function, where a ``Symbol`` stands for each value
that depends on the image; it returns the symbol of the result.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from torch import nn

LayerRule = Callable[..., Any]
_Rule = TypeVar("_Rule", bound=LayerRule)


class UnknownBounds(Exception):
    """A layer or function for which there are no bounds; its text says which: ``GELU``."""


@dataclass(frozen=True)
class Rules:
    """The rules for layers and functions."""

    layers: dict[type[nn.Module], LayerRule] = field(default_factory=dict)
    functions: dict[object, LayerRule] = field(default_factory=dict)
    """By the function; by the name of a tensor's method."""

    def layer(self, *kinds: type[nn.Module]) -> Callable[[_Rule], _Rule]:
        """Register a rule for layers; it is given the builder, the layer and its input."""

        def add(rule: _Rule) -> _Rule:
            self.layers.update(dict.fromkeys(kinds, rule))
            return rule

        return add

    def function(self, *targets: object) -> Callable[[_Rule], _Rule]:
        """Register a rule for functions, and for methods of tensors by name."""

        def add(rule: _Rule) -> _Rule:
            self.functions.update(dict.fromkeys(targets, rule))
            return rule

        return add


RULES = Rules()


@cache
def known_rules() -> Rules:
    """Return all rules; on first use every module of ``bounds.layers`` is imported."""
    package = importlib.import_module(f"{__package__}.layers")
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
    return RULES


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class with a rule whose forward pass is the module's; None: there is none.

    A subclass with a forward pass of its own is something else, unless it says ``same_outputs``.
    """
    known: Mapping[type[nn.Module], LayerRule] = known_rules().layers
    for kind in type(module).__mro__:
        if kind in known:
            return kind
        if "forward" in vars(kind) and not vars(kind).get("same_outputs", False):
            return None
    return None
