"""How layers of settings go over each other, and shapes that are not what they should be."""

import pytest

from robustbench_cli.commands import components, train_config
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.config.layers import apply_settings, merge_layers, parse_settings, read_preset
from robustbench_cli.core.errors import UserError


def train(*pairs, **typed):
    return train_config.resolve_train_config(
        {"defense": components.defense_tables("standard"), **typed}, list(pairs)
    )


def test_a_radius_goes_with_its_norm():
    base = {"threat": {"norm": "Linf", "eps": 0.05}}
    assert merge_layers(base, {"threat": {"norm": "L2"}})["threat"] == {"norm": "L2"}
    assert merge_layers(base, {"threat": {"norm": "linf"}})["threat"]["eps"] == 0.05
    assert merge_layers(base, {"threat": {"norm": "L2", "eps": 1}})["threat"]["eps"] == 1
    assert apply_settings(base, parse_settings(["threat.norm=L2"]))["threat"] == {"norm": "L2"}
    assert train("threat.eps=0.7", threat={"norm": "L2"}).threat.eps == 0.7
    assert train(threat={"norm": "L2"}, preset="trades-table5-mnist").threat.eps == 2.0


def test_a_component_that_changes_drops_the_other_s_parameters():
    chosen = train("optimizer.name=adam", preset="trades-table5-mnist")
    assert chosen.optimizer["name"] == "adam"
    assert "momentum" not in chosen.optimizer
    assert (
        train("optimizer.momentum=0.5", preset="trades-table5-mnist").optimizer["momentum"] == 0.5
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["model=small-cnn"], "'model' holds settings"),
        (["train=5"], "'train' holds settings"),
        (["threat=1"], "'threat' holds settings"),
        (["defense=x"], "'defense' holds settings"),
        (["dataset=mnist"], "'dataset' holds settings"),
        (["a=1", "a.b=2"], "was given a value before"),
        (["a.b=2"], "there is no section 'a'"),
        (["preset=trades-table5-mnist"], "a preset is named by --preset"),
        (["defense.awp.gamma=1"], "no such part"),
        (["train.batch_size=1"], "greater than or equal to 2"),
        (["train.select=oracle", "train.validation=10"], "leave validation out"),
        (["dataset.augment=crop", "dataset.pad=-1"], "greater than or equal to 0"),
    ],
)
def test_settings_of_the_wrong_shape_are_named(pairs, message):
    with pytest.raises(UserError, match=message) as caught:
        train(*pairs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defense = 'trades'", "'defense' holds settings"),
        ("model = 'small-cnn'", "'model' holds settings"),
        ("[defense]\ntrades = 6", "'defense' holds settings"),
        ("[nonsense]\nx = 1", "there is no section 'nonsense'"),
        ("[defense.trades", "not valid TOML"),
    ],
)
def test_presets_of_the_wrong_shape_are_named(text, message, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_preset(path)
    (tmp_path / "d.toml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_preset(tmp_path / "d.toml")


def test_an_evaluation_cannot_change_the_model():
    base = {"dataset": {"name": "digits"}, "model": {"name": "x"}, "threat": {"eps": 0.1}}
    typed = {"attack": chosen_attacks(["pgd2"], None, {})}
    assert resolve_eval_config(base, typed, ["threat.eps=0.2"]).threat.eps == 0.2
    for pair in ("model.width=99", "attack.pgd2.steps=3"):
        with pytest.raises(UserError, match="an evaluation cannot change that"):
            resolve_eval_config(base, typed, [pair])
    with pytest.raises(UserError, match=r"--set defense\.he: no such part"):  # a user's own model
        resolve_eval_config(base, typed, ["defense.he.eval_scale=1"])


def test_a_suite_holds_attacks_and_no_more(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("n = 5\n[attack.pgd20]\n")
    with pytest.raises(UserError, match="sets 'n'"):
        chosen_attacks([], str(path), {})
    path.write_text("")
    with pytest.raises(UserError, match="names no attack"):
        chosen_attacks([], str(path), {})


def test_a_name_and_a_parameter_that_disagree_are_refused():
    with pytest.raises(UserError, match="gives 'steps' twice"):
        chosen_attacks(["pgd20:steps=50"], None, {})


@pytest.mark.parametrize("text", ["pgd-at:step=2/255", "trades:step=0.007"])
def test_a_step_in_pixels_is_refused_in_training_too(text):
    with pytest.raises(UserError, match="fraction of eps"):
        train_config.resolve_train_config({"defense": components.defense_tables(text)}, [])


def test_the_margin_belongs_inside_the_smoothed_criterion():
    with pytest.raises(UserError, match="write he after label-smoothing"):
        train_config.resolve_train_config(
            {"defense": components.defense_tables("trades+he+label-smoothing")}, []
        )
    assert train_config.resolve_train_config(
        {"defense": components.defense_tables("trades+label-smoothing+he")}, []
    )
