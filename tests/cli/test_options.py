"""Groups of options: each written once, taken by several commands."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import pytest
import typer

from robustbench_cli.cli import options, program
from robustbench_cli.cli.eval_options import EvalOptions
from robustbench_cli.cli.strict_command import StrictCommand

OWN_MEANING = {
    ("attack", "attack"),  # one, without a flag
    ("attack", "n"),  # 64 images are enough for a picture
    ("detect eval", "attack"),  # must be given
    ("detect fit", "detector"),  # the kind of detector to fit, not a run that fitted one
    ("detect eval", "detector"),  # by name, several
}
"""Options of a command that share nothing but the name with those of ``eval``."""


@dataclass(frozen=True, kw_only=True)
class Base:
    last: Annotated[bool, typer.Option("--last")] = False
    unused: int = 7


@dataclass(frozen=True, kw_only=True)
class Group(Base):
    first: Annotated[str, typer.Option(help="Words.")] = "a"
    second: Path = Path("b")


@pytest.fixture
def called():
    """Run an app of one command; return what the command was called with."""

    def run(*words, names=()):
        seen = []
        app = typer.Typer()

        @app.command()
        @options.takes_options(*names)
        def command(word: str, number: int = 3, *, group: Group) -> None:
            """A command."""
            seen.append((word, number, group))

        typer.main.get_command(app).main([*words], standalone_mode=False)
        return seen.pop()

    return run


def test_a_command_gets_its_own_parameters_and_the_group(called):
    assert called("x") == ("x", 3, Group())
    typed = called("x", "--number", "4", "--first", "y", "--second", "p/q", "--last")
    assert typed == ("x", 4, Group(first="y", second=Path("p/q"), last=True))


def test_a_command_takes_the_fields_it_names_and_the_others_keep_their_defaults(called):
    named = {"names": ("second", "last")}
    assert called("x", "--last", **named) == ("x", 3, Group(last=True))
    with pytest.raises(Exception, match="No such option"):
        called("x", "--first", "y", **named)


def leaves(command, name=()):
    """All commands by the words that call them."""
    inner = getattr(command, "commands", {})
    found = {} if inner else {" ".join(name): command}
    for word, each in inner.items():
        found |= leaves(each, (*name, word))
    return found


def test_an_option_of_an_evaluation_is_the_same_in_every_command():
    commands = leaves(program())
    shared = {each.name: each for each in commands["eval"].params}
    assert {each.name for each in fields(EvalOptions)} <= {*shared}
    for name, command in commands.items():
        for each in command.params if name in ("attack", "detect fit", "detect eval") else ():
            if each.name in shared and (name, each.name) not in OWN_MEANING:
                assert (each.opts, each.help, each.default, each.multiple) == (
                    shared[each.name].opts,
                    shared[each.name].help,
                    shared[each.name].default,
                    shared[each.name].multiple,
                ), (name, each.name)


def test_every_command_refuses_what_would_be_dropped_in_silence():
    assert all(isinstance(each, StrictCommand) for each in leaves(program()).values())
