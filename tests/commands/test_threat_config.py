"""The threat of a run: made in one place, and handed on as it is."""

import pytest

from robustbench_cli.commands import components, eval_config, threat_config, train_config
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS

BASE = {"dataset": {"name": "digits"}, "model": {"name": "digits-cnn"}}


@pytest.fixture
def resolved():
    digits = DATASETS.build(Spec("digits"))
    return lambda **table: threat_config.resolve_threat(table, digits)


@pytest.fixture
def handed_on(monkeypatch):
    """The threats that were made, in the order in which they were."""
    made = []

    def resolve(table, dataset):
        made.append(threat_config.resolve_threat(table, dataset))
        return made[-1]

    for module in (train_config, eval_config):
        monkeypatch.setattr(module, "resolve_threat", resolve)
    return made


def test_a_radius_that_is_not_given_is_the_usual_one_in_that_norm(resolved):
    assert resolved() == Threat("Linf", 0.15)
    assert resolved(norm="l2") == Threat("L2", 1.0)
    assert resolved(norm="L2", eps="1/2") == Threat("L2", 0.5)
    assert resolved(eps="8/255").eps == 8 / 255


def test_a_mask_is_written_out(resolved):
    assert resolved(mask="border").mask == "border:width=1"
    assert resolved(mask="").mask == ""


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"norm": "L3"}, "norm: must be L0, L1, L2, Linf, patch or spatial, got 'L3'"),
        ({"eps": "eight"}, "eps: Input should be a valid number"),
        ({"eps": "8"}, "did you mean '8/255'"),
        ({"esp": "8/255"}, "unknown setting 'threat.esp'; did you mean 'eps'?"),
        ({"mask": "boarder"}, "did you mean 'border'"),
    ],
)
def test_a_mistake_is_named(resolved, table, message):
    with pytest.raises(UserError) as caught:
        resolved(**table)
    assert message in str(caught.value)


def test_a_configuration_holds_the_very_threat_that_was_made(handed_on):
    typed = {"threat": {"eps": "16/255"}}
    defense = {"defense": components.defense_tables("pgd-at")}
    trained = train_config.resolve_train_config({**defense, **typed}, [])
    attack = {"attack": eval_config.chosen_attacks(["pgd3"], None, {})}
    evaluated = eval_config.resolve_eval_config(BASE, {**attack, **typed, "sweep": "eps=0,0.1"}, [])
    assert [trained.threat, evaluated.threat] == handed_on == [Threat("Linf", 16 / 255)] * 2
    assert trained.threat is handed_on[0]
    assert evaluated.threat is handed_on[1]
