"""A program that imports the module of a command when the command is called, and no other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class CommandPlace:
    """Where a command is.

    Attributes:
        path: the module in ``robustbench_cli.cli`` and what to take from it: a function, or a group
            of commands (``Typer``).
        summary: what it does, in the line that the program's help has for it.
        kind: the class of the command; a group brings its own.
        hidden: the program's help says nothing of it.
    """

    path: str
    summary: str
    kind: type[TyperCommand] | None = None
    hidden: bool = False

    @cache  # noqa: B019 -- a place is a constant of the program
    def command(self, name: str) -> Any:
        """Import the command and return it as click calls it."""
        module, _, found = self.path.rpartition(".")
        function = getattr(import_module(f"{_PACKAGE}.{module}"), found)
        if isinstance(function, typer.Typer):
            group = typer.main.get_group(function)
            group.name = name
            return group
        alone = typer.Typer(
            add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
        )
        alone.command(name, cls=self.kind, hidden=self.hidden)(function)
        return typer.main.get_command(alone)


class _Commands(Mapping[str, Any]):
    """Commands by name, each imported when it is first asked for."""

    def __init__(self, places: Mapping[str, CommandPlace]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        return self._places[name].command(name)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class ImportedCommands(TyperGroup):
    """A group of commands whose modules are imported one by one; its help imports none."""

    places: ClassVar[Mapping[str, CommandPlace]]
    """The commands in the order of the help."""

    @property
    def commands(self) -> Any:
        """Every command by its name."""
        return _Commands(self.places)

    @commands.setter
    def commands(self, _: Any) -> None:
        """Take the empty table that click begins with; the places stand for it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command, without importing it."""
        shown = [(name, place.summary) for name, place in self.places.items() if not place.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(shown)
