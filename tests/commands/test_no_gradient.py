"""Models that let no gradient through: attacks that need none are run on them, and marked."""

import pytest
import torch
from torch import nn

from robustbench_cli import Threat, attack, evaluate
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.views import _surrogates

EPS = Threat("Linf", 0.12)


class Numpy(nn.Module):
    """Has its images coded outside of torch, which refuses those that want a gradient."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(torch.from_numpy(x.numpy().copy()))


class NoGrad(Numpy):
    def forward(self, x):
        with torch.no_grad():
            return self.net(x)


class Detached(Numpy):
    def forward(self, x):
        return self.net(x).detach()


MODELS = {"numpy": Numpy, "no_grad": NoGrad, "detached": Detached}


@pytest.fixture(autouse=True, scope="module")
def quick_surrogates():
    """Stand-ins for the parts that hide a gradient are trained for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_surrogates, "_UPDATES", 20)
        yield


@pytest.fixture
def threes(digits_model):
    net, x, y = digits_model
    return net, x[:12], y[:12]


@pytest.mark.parametrize("kind", MODELS)
def test_a_black_box_attack_does_what_it_does_to_the_net_within(kind, threes):
    net, x, y = threes
    plain = evaluate(net, x, y, attacks="square60", threat=EPS)
    result = evaluate(MODELS[kind](net), x, y, attacks="square60", threat=EPS)
    assert result.record.attacks["square60"].correct == plain.record.attacks["square60"].correct
    assert (result.trust, result.clean_trust) == ({"square60": "upper bound"}, "sound")
    assert {each.check for each in result.findings} == {"no-gradient"}
    names = result.record.checked.names
    assert "no-gradient" in names
    assert not {"secant", "path", "zero-gradient"} & set(names)
    assert plain.trust == {"square60": "sound"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_script_whose_graph_is_cut(threes):
    net, x, y = threes
    script = torch.jit.trace(Detached(net).eval(), x)
    assert evaluate(script, x, y, attacks="corners", threat=EPS).trust == {"corners": "upper bound"}
    with pytest.raises(UserError, match="have no gradient"):
        evaluate(script, x, y, attacks="pgd3", threat=EPS)


@pytest.mark.parametrize("kind", MODELS)
def test_gradient_attacks_are_refused_in_a_line_that_names_the_others(kind, threes, tmp_path):
    net, x, y = threes
    line = "which pgd3 must follow; attacks that need none: adaptive, "
    for call in (
        lambda model: evaluate(model, x, y, attacks=["square60", "pgd3"], threat=EPS, out=tmp_path),
        lambda model: attack("pgd3", model, x, y, threat=EPS),
    ):
        with pytest.raises(UserError, match="have no gradient with respect to the images") as said:
            call(MODELS[kind](net))
        assert line in str(said.value)
        assert "\n" not in str(said.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", MODELS)
def test_the_adaptive_attack_leaves_out_what_needs_gradients(kind, threes):
    net, x, y = (threes[0], *(each[:6] for each in threes[1:]))
    broken = attack("adaptive:budget=300", MODELS[kind](net), x, y, threat=EPS).broken
    weaker = attack("square60", MODELS[kind](net), x, y, threat=EPS).broken
    assert broken.sum() >= weaker.sum() > 0


def test_what_needs_no_gradient():
    needs = {
        name: ATTACKS.build(Spec.parse(name)).needs_gradients(EPS)
        for name in ("pgd20", "autoattack", "deepfool", "square", "rays", "adaptive")
    }
    needs["both"] = ATTACKS.build(Spec.parse("ensemble:pgd5/square60")).needs_gradients(EPS)
    needs["none"] = ATTACKS.build(Spec.parse("ensemble:corners/square60")).needs_gradients(EPS)
    assert [name for name, so in needs.items() if not so] == ["square", "rays", "adaptive", "none"]
