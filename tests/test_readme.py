"""What a newcomer pastes from the front door must be understood, and there must be such data."""

import re
import shlex
from pathlib import Path

import pytest

from robustbench_cli.cli import program
from robustbench_cli.data.digits import Digits

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [
    line for line in "\n".join(BLOCKS).splitlines() if line.startswith(("advbench ", "torchrun "))
]


def words(line: str) -> list[str]:
    """What the command gets to see, whoever starts it."""
    given = shlex.split(line, comments=True)
    return given[given.index("--") + 1 :] if given[0] == "torchrun" else given[1:]


def test_the_tour_is_read_at_all():
    assert len(LINES) > 40
    assert any(line.startswith("torchrun") for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_readme_has_the_options_that_it_is_given(line):
    command, name, given = program(), "advbench", words(line)
    while hasattr(command, "commands"):
        name, command, given = command.resolve_command(command.make_context(name, [*given]), given)
    command.make_context(name, given)  # complains of what it does not know


def test_the_readme_asks_for_no_more_images_than_the_digits_have(tmp_path):
    own = [line for line in LINES if not {"--dataset", "--data-dir"} & {*words(line)}]
    asked = [
        int(given[given.index("--n") + 1])
        for given in map(words, own)
        if "--n" in given and given[0] != "synth"
    ]
    assert asked
    assert max(asked) <= len(Digits().load("test", tmp_path))
