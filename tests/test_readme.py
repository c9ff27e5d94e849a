"""What a newcomer pastes from the README or the documentation must be understood."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from robustbench_cli.cli import app
from robustbench_cli.data.digits import Digits

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = {
    (path.name, line)
    for path in PAGES
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()  # a command may go on in the next line
    if line.startswith(("advbench ", "torchrun "))
}


def words(line: str) -> list[str]:
    """What the command gets to see, whoever starts it."""
    given = shlex.split(line, comments=True)
    return given[given.index("--") + 1 :] if given[0] == "torchrun" else given[1:]


def test_the_tours_are_read_at_all():
    of = [name for name, _ in LINES]
    assert of.count("README.md") >= 10
    assert of.count("tour.md") > 40
    assert of.count("commands.md") > 20
    assert any(line.startswith("torchrun") for _, line in LINES)


@pytest.fixture(scope="module")
def tree():
    """The commands, made anew: click keeps the help option of a command's first context, and the
    contexts here know nothing of those above them."""
    return typer.main.get_command(app)


@pytest.mark.parametrize("line", sorted({line for _, line in LINES}))
def test_a_command_that_is_shown_has_the_options_that_it_is_given(line, tree):
    command, name, given = tree, "advbench", words(line)
    while hasattr(command, "commands"):
        name, command, given = command.resolve_command(command.make_context(name, [*given]), given)
    command.make_context(name, given)  # complains of what it does not know


def test_a_tour_asks_for_no_more_images_than_the_digits_have(tmp_path):
    tours = {line for name, line in LINES if name in ("README.md", "tour.md")}
    own = [line for line in tours if not {"--dataset", "--data-dir"} & {*words(line)}]
    asked = [
        int(given[given.index("--n") + 1])
        for given in map(words, own)
        if "--n" in given and given[0] != "synth"
    ]
    assert asked
    assert max(asked) <= len(Digits().load("test", tmp_path))
