"""What click would drop in silence is refused."""

from typing import Annotated

import pytest
import typer

from robustbench_cli.cli.strict_command import MeasuringCommand, StrictCommand
from robustbench_cli.core.errors import UserError


@pytest.fixture
def parsed():
    """The values that a command line means."""

    def run(*words, cls=MeasuringCommand):
        seen = []
        app = typer.Typer()

        @app.command(cls=cls)
        def command(
            path: str = typer.Argument(""),
            one: str | None = None,
            many: Annotated[list[str] | None, typer.Option("--many", "-m")] = None,
            number: int = 3,
            flag: Annotated[bool, typer.Option("--flag", "-f")] = False,
        ) -> None:
            """A command."""
            seen.append((path, one, many, number, flag))

        typer.main.get_command(app).main([*words], standalone_mode=False)
        return seen.pop() if seen else None

    return run


def test_what_means_one_thing_only_is_taken(parsed):
    assert parsed() == ("", None, None, 3, False)
    assert parsed("p", "--one", "x", "-m", "a", "--many", "a", "-f", "--flag") == (
        *("p", "x", ["a", "a"], 3, True),
    )
    assert parsed("--one=--many", "--", "--one") == ("--one", "--many", None, 3, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--one", "x", "--one", "x"], "--one is given 2 times; it takes one value"),
        (["--one=x", "--number=1", "--one=y", "--one", "z"], "--one is given 3 times"),
        (["--number", "1", "--number", "1"], "--number is given 2 times"),
        (["--one", ""], "--one '': give a value, or leave --one out"),
        (["--one="], "--one '': give a value"),
        (["--many", "a", "-m", ""], "--many '': give a value"),
    ],
)
def test_what_would_be_dropped_is_refused(parsed, words, message):
    with pytest.raises(UserError, match=message):
        parsed(*words)


def test_where_nothing_is_measured_the_last_value_counts_and_empty_ones_are_refused(parsed):
    assert parsed("--number=1", "--number=2", cls=StrictCommand) == ("", None, None, 2, False)
    with pytest.raises(UserError, match="--one '': give a value"):
        parsed("--one=", "--one=x", "--one=", cls=StrictCommand)


def test_help_comes_before_the_check(parsed, capsys):
    assert parsed("--one", "", "--help") is None
    assert "A command." in capsys.readouterr().out
