"""What a preset cannot do without beside its settings: declared, shown, and asked for."""

import re

import pytest

from robustbench_cli.commands import components, train_config
from robustbench_cli.config import presets
from robustbench_cli.core.errors import UserError

NEEDS = {name: presets.needs(name) for name in presets.preset_names()}


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NEEDS)
def test_a_preset_needs_what_it_says(name):
    lines = presets.preset_file(name).read_text().splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert presets.needs(name) == re.findall(r"Needs --([a-z-]+)", comment)


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", [name for name, needed in NEEDS.items() if needed])
@pytest.mark.parametrize("smoke", [False, True])
def test_a_preset_without_what_it_needs_is_refused_in_one_line(name, smoke):
    (option,) = presets.needs(name)
    with pytest.raises(UserError, match=f"^preset '{name}' needs --{option} [^ ]*$"):
        train_config.resolve_train_config({"preset": name}, [], smoke=smoke)


def test_who_learns_without_a_teacher_needs_none():
    typed = {
        "preset": "rslad-table-rslad-cifar10",
        "defense": components.defense_tables("trades"),
    }
    assert train_config.resolve_train_config(typed, []).defense.keys() == {"trades"}


@pytest.mark.parametrize("name", [name for name, needed in NEEDS.items() if "extra-data" in needed])
def test_a_batch_without_a_share_for_extra_data_needs_none(name):
    assert train_config.resolve_train_config({"preset": name}, ["train.extra_share=0"]).extra == {}
    with pytest.raises(UserError, match="needs --extra-data"):
        train_config.resolve_train_config({"preset": name}, ["train.extra_share=0.1"])


@pytest.mark.parametrize(
    ("name", "option"), [("rst-table1-cifar10", "extra-data"), ("pcl-readme-pcl-cifar10", "init")]
)
def test_what_another_defense_still_uses_is_asked_for(name, option):
    with pytest.raises(UserError, match=f"needs --{option}"):
        train_config.resolve_train_config(
            {"preset": name, "defense": components.defense_tables("trades")}, []
        )


def test_needs_pass_to_what_is_based_on_a_preset(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "rst-table1-cifar10"\n')
    assert presets.needs(str(mine)) == ["extra-data"]
    for value, needed in (("[]", []), ('["init", "teacher"]', ["init", "teacher"])):
        mine.write_text(f'base = "rst-table1-cifar10"\nneeds = {value}\n')
        assert presets.needs(str(mine)) == needed
    mine.write_text('needs = ["extradata"]\n[defense.trades]\n')
    with pytest.raises(UserError, match="needs 'extradata'; did you mean 'extra-data'"):
        train_config.resolve_train_config({"preset": str(mine)}, [])
