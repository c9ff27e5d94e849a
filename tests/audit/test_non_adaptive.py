"""Numbers of models behind input defenses, unless every declared way back was taken."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import Probe
from robustbench_cli.audit.input_scale import InputScale
from robustbench_cli.audit.non_adaptive import NonAdaptive
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.input_defenses import INPUT_DEFENSES
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.models.rejecting import ModelWithRejectClass

LINF = Threat("Linf", 0.1)


@pytest.fixture
def found(digits_model):
    """What the check finds of the digits net behind a defense, under these attacks."""
    net, x, y = digits_model

    def look(defense, *attacks, wrap=lambda model: model, **more):
        front = [INPUT_DEFENSES.build(Spec.parse(defense))] if defense else []
        model = wrap(DefendedModel(net, front).eval() if front else net)
        stages = {name: ATTACKS.build(Spec.parse(name)).stages(LINF, 10) for name in attacks}
        noise = Noise(0, torch.arange(len(x)))
        probe = Probe(
            model=model,
            x=x,
            y=y,
            threat=LINF,
            attacked=LINF,
            noise=noise,
            random=False,
            stages=stages,
            **more,
        )
        return list(NonAdaptive().look(probe))

    return look


def test_an_attack_must_take_every_declared_way_back(found):
    (said,) = found("lgs", "pgd20", "adaptive")
    assert said.attacks == ["pgd20"]
    assert said.severity == "warning"
    assert said.message == (
        "non-adaptive upper bound: of the ways back through the input defenses (exact, "
        "straight-through, smoothed) not taken: straight-through, smoothed; use --attack adaptive"
    )
    assert not found("jpeg", "pgd20", "adaptive")  # it declares one way
    assert not found("total-variation", "adaptive")
    assert not found("", "square")


def test_black_box_attacks_and_images_for_another_model_took_none(found):
    (said,) = found("jpeg", "square", "pgd20")
    assert said.attacks == ["square"]
    assert "non-adaptive upper bound: no gradient was taken through" in said.message
    (said,) = found("jpeg", transferred=True)
    assert not said.attacks  # of all attacks
    assert "made for another model" in said.message
    assert not found("jpeg")


def test_a_defense_inside_of_what_rejects_is_seen(found):
    (said,) = found("lgs", "pgd20", wrap=lambda model: ModelWithRejectClass(model, 9, 9))
    assert said.attacks == ["pgd20"]


def test_what_a_change_of_scale_makes_of_a_defense_is_not_held_against_the_model(digits_model):
    """A defense that ruins images in [0, 1] and not those in [-1, 1] says nothing of the model."""
    net, x, y = digits_model

    class Ruins(INPUT_DEFENSES.entry("bit-depth").cls):
        def cleaned(self, x, context):
            return x.clamp_min(0) * (x < 0).flatten(1).any(1).view(-1, 1, 1, 1)

    model = DefendedModel(net, [Ruins()]).eval()
    noise = Noise(0, torch.arange(len(x)))
    probe = Probe(
        model=model, x=x, y=y, threat=LINF, attacked=LINF, noise=noise, random=False, stages={}
    )
    assert probe.right.float().mean() < 0.3
    assert not list(InputScale().look(probe))
