"""Model sources: where a model of somebody else comes from, one file each.

A source is a frozen dataclass that is registered under the prefix of its models' names, ``timm:``
for ``timm:resnet18``, with one method, ``load``.
"""

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from torch import nn

from robustbench_cli.core.errors import UserError, hint, install_command
from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.fitting import Fitting


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """What a model is loaded with."""

    weights: Path | None = None
    """A weights file; None: the model brings its own."""
    weights_key: str | None = None
    """The key of the state dict in that file; None: it is found."""
    folder: Path
    """The folder of ``--data-dir``, below which published weights are looked for."""
    shape: Callable[[], Shape]
    """Returns the size of the data's images and the number of its classes; it may take time.  The
    channels' statistics in it are 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model, what it expects, and what is to be said of it."""

    model: nn.Module
    fitting: Fitting = Fitting()  # noqa: RUF009 - it is frozen
    notes: tuple[str, ...] = ()
    code: str = ""
    """sha256 of the code that the model runs, where that is a file of the user's own."""
    described: Any = None
    """What the record says of it beside its name: a table, or None."""


@dataclass(frozen=True, kw_only=True)
class ModelSource(ABC):
    """A place that models come from."""

    prefixed: ClassVar[bool] = True
    """True if the names of its models begin with the source's own, ``timm:``."""
    example: ClassVar[str]
    """One of its models, as ``--model`` takes it."""
    rebuilt: ClassVar[bool] = False
    """True if a copy is made by loading it again: its code may keep things outside of the model."""

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return the source that a model's name stands for; None: the name is not of this kind.

        Raises:
            UserError: it is of this kind, and wrong.
        """
        prefix, colon, _ = text.partition(":")
        name = prefix.lower()
        if not colon or name not in prefixes() or SOURCES.entry(name).cls is not cls:
            return None
        return cast(Self, SOURCES.build(Spec.parse(text)))

    @abstractmethod
    def load(self, wanted: LoadRequest) -> Loaded:
        """Return the model.

        Raises:
            UserError: a package is missing, the model is unknown, or the weights are absent,
                damaged or do not fit.
        """


SOURCES: Registry[ModelSource] = Registry("model source", __name__)


def find_source(text: str) -> ModelSource:
    """Return the source of a model from the model's name, as ``--model`` takes it.

    Raises:
        UserError: there is no such source or model.
    """
    for name in SOURCES.names():
        cls: type[ModelSource] = SOURCES.entry(name).cls
        if (found := cls.from_text(text)) is not None:
            return found
    near = hint(text.partition(":")[0], [*prefixes(), *MODELS.names()], "advbench list models")
    raise UserError(
        f"unknown model {text!r}{near}; a model is file.py:function, a program (.pt2 or .pt), a "
        f"name after {', '.join(f'{name}:' for name in prefixes())} or a registered architecture"
    )


def prefixes() -> list[str]:
    """Return the names of the sources that stand before a colon."""
    kinds: dict[str, Any] = {name: SOURCES.entry(name).cls for name in SOURCES.names()}
    return [name for name, cls in kinds.items() if cls.prefixed]


def package_of_extra(name: str, extra: str, text: str) -> Any:
    """Import a package that comes with an extra.

    Args:
        name: the module's dotted name.
        extra: the extra that installs it.
        text: the model that needs it, for the message.

    Raises:
        UserError: it is not there, or cannot be imported.
    """
    try:
        with warnings.catch_warnings():  # of the package's own code
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        lacks = error.name or name
        raise UserError(
            f"model {text!r} needs the package {lacks.partition('.')[0]}: {install_command(extra)}"
        ) from error
