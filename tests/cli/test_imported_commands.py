"""The program imports the command that is called, and no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_cli.cli import COMMANDS, program

ROOT = Path(__file__).parents[2]


def imported_by(*words):
    code = (
        "import sys; from robustbench_cli.cli import main; code = main(sys.argv[1:]);"
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {*done.stderr.split()}


def test_the_programs_help_imports_no_command():
    modules = imported_by("--help")
    assert "robustbench_cli.cli" in modules
    assert not {f"robustbench_cli.cli.{each.path.split('.')[0]}" for each in COMMANDS.values()} & (
        modules
    )


def test_a_command_imports_its_own_module_alone():
    modules = imported_by("eval", "--help")
    assert "robustbench_cli.cli.evaluate" in modules
    assert not {"torch", "numpy", "pandas"} & modules
    for other in ("train", "study", "report", "explain", "compare", "show"):
        assert f"robustbench_cli.cli.{other}" not in modules


def test_the_help_has_a_whole_line_for_every_command_but_the_hidden(capsys):
    program().main(["--help"], standalone_mode=False)
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    shown = {name: place for name, place in COMMANDS.items() if not place.hidden}
    assert [tuple(line.split(maxsplit=1)) for line in lines if line] == [
        (name, place.summary) for name, place in shown.items()
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_name_and_the_kind_that_the_table_gives(name):
    command, place = program().commands[name], COMMANDS[name]
    assert command.name == name
    assert command.hidden == place.hidden
    assert type(command) is place.kind if place.kind else command.commands
