"""Messages: what is offered instead of a name that nobody knows, and errors of others."""

import pytest

from robustbench_cli.core.errors import hint, in_one_line, stopped_program


def test_the_nearest_name_or_all_of_a_few():
    assert hint("tradse", ["mart", "trades"]) == "; did you mean 'trades'?"
    assert hint("?", ["trades", "mart"]) == "; known: mart, trades"
    assert hint("?", []) == "; known: none"


def test_many_names_are_no_message():
    many = [f"preset-{i:03}" for i in range(180)]
    assert hint("presett-017", many, "advbench list presets") == "; did you mean 'preset-017'?"
    assert hint("?", many, "advbench list presets") == "; see advbench list presets"
    assert hint("?", many).endswith(", preset-019 and 160 more")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no\tsuch   layer\nTraceback: more"), "ValueError: no such layer"),
        (RuntimeError("\n\n  it begins below"), "RuntimeError: it begins below"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_an_error_of_others_is_one_line(error, text):
    assert in_one_line(error) == text
    assert str(stopped_program(error)) == f"the model's own code ended the program ({text})"
