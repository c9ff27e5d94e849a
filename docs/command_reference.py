"""The command reference (commands.md), from the Typer app: help texts, arguments and options."""

import re
from collections.abc import Iterator
from typing import Any

from marked_parts import table

from robustbench_cli.cli import program
from robustbench_cli.cli.exit_codes import ExitCode

EXAMPLES = "\b\n"
"""Stands in a help text before lines that keep their shape: examples."""
SHARED = ("-q", "--quiet", "--debug")
"""Options that every command has; they are described once."""


def reference() -> str:
    """Return a table of all commands and a section for each, as ``advbench --help`` has them."""
    found = [*commands(program(), "advbench")]
    rows = [
        [f"[{name}](#{name.replace(' ', '-')})", escaped(first_sentence(command))]
        for name, command in found
    ]
    contents = table(["command", "does"], rows, left=2)
    return "\n\n".join([contents, *(section(name, command) for name, command in found)])


def exit_codes() -> str:
    """Return a table of the numbers that a command may end with."""
    return table(
        ["exit code", "meaning"], [[f"{each:d}", each.meaning] for each in ExitCode], left=2
    )


def first_sentence(command: Any) -> str:
    """Return what a command does, in one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split())


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, those of a group after each other."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        elif not command.hidden:
            yield f"{name} {word}", command


def section(name: str, command: Any) -> str:
    """Return what is to be known of one command."""
    text, _, examples = (command.help or "").partition(EXAMPLES)
    parts = [f"## {name}", text.strip()]
    if lines := [example(line) for line in examples.strip().splitlines()]:
        parts.append("\n".join(["```sh", *lines, "```"]))
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments:
        rows = [[f"`{(p.metavar or p.name).upper()}`", described(p)] for p in arguments]
        parts.append(table(["argument", "meaning"], rows, left=2))
    options = [p for p in command.params if p.param_type_name == "option"]
    rows = [
        [", ".join(f"`{each}`" for each in p.opts), described(p)]
        for p in options
        if not set(p.opts) & {*SHARED}
    ]
    parts.append(table(["option", "meaning"], rows, left=2))
    return "\n\n".join(parts)


def example(line: str) -> str:
    """Return a line of examples with what it says of the command as a comment."""
    return re.sub(r"^(\S.*?\S) {2,}(\S.*)$", r"\1  # \2", line)


def described(parameter: Any) -> str:
    """Return the help of a parameter with its default and its environment variable."""
    text = escaped(parameter.help or "")
    known = []
    if parameter.default not in (None, False):
        known.append(f"default: `{parameter.default}`")
    if parameter.envvar:
        known.append(f"or the environment variable `{parameter.envvar}`")
    return f"{text} ({'; '.join(known)})" if known else text


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return text.replace("|", r"\|").replace("*", r"\*").replace("<", r"\<")
