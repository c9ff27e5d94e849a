"""What presets say of their settings: what is official, what departs from it, what is unknown."""

import tomllib

import pytest

from robustbench_cli.commands import train_config
from robustbench_cli.config import presets
from robustbench_cli.core.errors import UserError

NAMES = presets.preset_names()


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_follows_and_where_it_does_not(name):
    """Its own file says what is official; the other lines may be those of its base."""
    said = presets.preset_source(name)
    assert [*said] == ["official", "departs", "unknown"]
    for text in said.values():
        assert len(text) > 10
        assert text == " ".join(text.split())
    assert "official" in tomllib.loads(presets.preset_file(name).read_text())["source"]


def test_lines_pass_to_what_is_based_on_a_preset_and_change_no_setting(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(
        '[source]\nofficial = "a script"\ndeparts = ["one thing", "another"]\n[defense.trades]\n'
    )
    two.write_text(f'base = "{one}"\n[source]\ndeparts = "a third"\nunknown = []\n')
    assert presets.preset_source(str(one)) == {
        "official": "a script",
        "departs": "one thing; another",
    }
    assert presets.preset_source(str(two)) == {"official": "a script", "departs": "a third"}
    plain = tmp_path / "plain.toml"
    plain.write_text("[defense.trades]\n")
    configs = [
        train_config.resolve_train_config({"preset": str(path)}, []) for path in (two, plain)
    ]
    assert configs[0].defense == configs[1].defense
    assert "source" not in presets.load_preset(str(two))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('offical = "a script"', "source.offical; did you mean 'official'"),
        ("departs = 3", "source.departs is a text, or several in a list"),
        ("departs = [3]", "source.departs is a text, or several in a list"),
    ],
)
def test_another_line_or_another_kind_of_value_is_refused(tmp_path, line, message):
    mine = tmp_path / "mine.toml"
    mine.write_text(f"[source]\n{line}\n[defense.trades]\n")
    with pytest.raises(UserError, match=message):
        presets.preset_source(str(mine))


def test_a_source_that_is_no_section_is_refused(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('source = "a script"\n[defense.trades]\n')
    with pytest.raises(UserError, match="source"):
        train_config.resolve_train_config({"preset": str(mine)}, [])
