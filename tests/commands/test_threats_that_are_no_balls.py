"""L0, patches and poses in commands: their sizes, what is refused, what is left out and named."""

import pytest

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS
from robustbench_cli.commands import components, control, eval_config, threat_config, train_config
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.geometries import GEOMETRIES
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.data import DATASETS
from robustbench_cli.runs.trust import Checked, trust_in

WHOLE_CONTROL = True

BASE = {"dataset": {"name": "digits"}, "model": {"name": "digits-cnn"}}


def resolved(**table):
    return threat_config.resolve_threat(table, DATASETS.build(Spec("digits")))


def test_the_usual_size_is_the_norm_s():
    assert resolved(norm="patch") == Threat("patch", 5)
    assert resolved(norm="Patch", eps="3") == Threat("patch", 3)
    assert resolved(norm="l0") == Threat("L0", 8)
    assert resolved(norm="spatial", eps="1/2") == Threat("spatial", 0.5)


def test_sizes_are_written_as_they_are_meant():
    assert format_threat("patch", 5.0) == "patch 5"
    assert format_threat("spatial", 1 / 3) == "spatial 0.333333"  # no 85/255
    assert format_threat("L2", 1 / 3) == "L2 85/255"


@pytest.mark.parametrize(
    ("name", "threat", "others"),
    [
        ("pgd20", Threat("patch", 5), "use --norm Linf, or corners or lavan or patch or patch-pgd"),
        ("square", Threat("spatial", 1), "use --norm Linf, or spatial"),
        ("autoattack", Threat("L0", 3), "use --norm Linf, or corners or sparse-rs"),
        ("patch-pgd", Threat("Linf", 0.1), "use --norm patch"),
    ],
)
def test_an_attack_that_cannot_is_refused_with_those_that_can(name, threat, others):
    with pytest.raises(UserError) as caught:
        eval_config.check_attacks({name: ATTACKS.build(Spec.parse(name))}, threat, 10)
    assert str(caught.value).endswith(others)
    assert "\n" not in str(caught.value)


def test_every_norm_has_an_attack():
    for norm in GEOMETRIES.names():
        assert eval_config.attacks_in(norm), norm


def test_training_is_refused():
    typed = {"defense": components.defense_tables("pgd-at"), "threat": {"norm": "patch"}}
    with pytest.raises(UserError, match="patch is none: train with --norm Linf, L2 or L1, and ev"):
        train_config.resolve_train_config(typed, [])


@pytest.mark.parametrize(
    ("sweep", "message"),
    [("eps=1,2.5", "a whole number of pixels"), ("eps=0,1,...,4", None)],
)
def test_a_sweep_has_sizes_that_there_are(sweep, message):
    attack = {"attack": eval_config.chosen_attacks(["patch-pgd"], None, {})}
    typed = {**attack, "threat": {"norm": "patch"}, "sweep": sweep}
    if message:
        with pytest.raises(UserError, match=message):
            eval_config.resolve_eval_config(BASE, typed, [])
    else:
        config = eval_config.resolve_eval_config(BASE, typed, [])
        assert config.sweep["eps"] == [0, 1, 2, 3, 4]


def test_the_control_consists_of_what_works_under_the_threat():
    parts = (control.CORNER, *control.SEARCHES, control.TARGETED)

    def members(norm, classes=10):
        return [each for each in parts if control._fits(each, Threat(norm, 1), classes)]

    assert members("Linf") == ["corners20", "square200", "apgd-t:steps=10,targets=3"]
    assert members("Linf", 2) == ["corners20", "square200"]
    assert members("L0") == ["corners20", "sparse-rs200"]
    assert members("patch") == ["corners20"]
    assert members("spatial") == []


def test_checks_that_need_a_ball_belong_to_audits_and_a_number_without_them_is_not_sound():
    checks = {name: CHECKS.build(Spec(name)) for name in CHECKS.names()}
    left_out = [name for name, check in checks.items() if not check.fits(Threat("patch", 5))]
    assert set(left_out) == {
        *("binarization", "eps-units", "linearity", "loss-surface", "radius"),
        *("self-test", "stronger", "transfer", "unbounded"),
    }
    assert all(check.fits(Threat("L2", 1)) for check in checks.values())
    rest = {"names": [], "images": 4, "forwards": 1, "backwards": 1, "seconds": 0.1}
    whole, partly = Checked(**rest), Checked(**rest, left_out=left_out)
    assert trust_in([], "pgd20", checked=whole.all_made) == "sound"
    assert trust_in([], "pgd20", checked=partly.all_made) == "unchecked"
