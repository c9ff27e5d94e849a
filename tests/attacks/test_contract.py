"""The contract of every registered attack, and exact answers on a linear model."""

import copy
from dataclasses import fields, replace
from itertools import product

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, ExternalAttack
from robustbench_cli.attacks.corners import Corners
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import attack_loop
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.fitting import fit_in_memory, fitted_context
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

NOISE = Noise(0, torch.arange(6))
SMALL = {
    **{"steps": 5, "queries": 24, "pairs": 3, "searches": 2, "restarts": 2, "targets": 2},
    **{"passes": 2, "epochs": 3, "least": 0.02},
    **{"shifts": 3, "angles": 5},
    "of": ("apgd-ce-3", "apgd-t-3", "fab-t-3", "square-10"),
}
"""Small values of the parameters that an attack's cost depends on."""


def with_values(name, values):
    """Those of the values that the attack has a parameter for, where its default is larger."""
    defaults = {f.name: f.default for f in fields(ATTACKS.entry(name).cls)}
    usable = {key: value for key, value in values.items() if key in defaults}
    return {k: v for k, v in usable.items() if isinstance(v, tuple) or defaults[k] > v}


def built(name, **params):
    return ATTACKS.build(Spec(name, {**with_values(name, SMALL), **params}))


def is_fixed_series(name):
    """Whether it runs members with budgets of their own, which no parameter makes smaller."""
    attack = built(name)
    return len(attack.members(Threat("Linf", 0.1))) > 1 and not with_values(name, SMALL)


RUN = [name for name in ATTACKS.names() if not is_fixed_series(name)]
"""Every registered attack but the fixed series, whose members are run here on their own."""


def run(model, x, y, attack, threat, noise=None, **options):
    noise = noise or Noise(0, torch.arange(len(y)))
    others = Tensors(x.roll(1, 0), y.roll(1, 0))
    return attack_batch(model, x, y, attack, threat, noise, fit_on=others, **options)


SIZES = {"Linf": 0.1, "L2": 0.1, "L1": 0.1, "L0": 4, "patch": 3, "spatial": 1}
BALLS = ("Linf", "L2", "L1")
CASES = [(name, norm) for name in RUN for norm in built(name).measures]
every_case = pytest.mark.parametrize(("name", "norm"), CASES)


@every_case
def test_attack_leaves_everything_but_the_input_alone(name, norm, model, batch):
    x, y = batch
    state, x_before = copy.deepcopy(model.state_dict()), x.clone()
    rng = torch.get_rng_state()
    attack, threat = built(name), Threat(norm, SIZES[norm])
    found = run(model, x, y, attack, threat)
    assert found.x.shape == x.shape
    assert found.x.dtype == x.dtype
    assert not found.x.requires_grad
    assert ((found.x >= 0) & (found.x <= 1)).all()
    if not attack.minimal:
        assert threat.inside(found.x, x).all()
    assert torch.equal(x, x_before)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training  # as it came
    assert torch.equal(torch.get_rng_state(), rng)


@every_case
def test_examples_are_independent(name, norm, model, batch):
    """Some of the rows, in another order and refilled one by one, get the same answers."""
    x, y = batch
    attack, threat = built(name), Threat(norm, {**SIZES, "Linf": 0.05, "L2": 0.3, "L1": 1.0}[norm])
    with unchanged_model(model):
        itself = exact_search_model(model)
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model),
            search_model=itself,
            noise=NOISE,
            slots=256,
            fit=fit_in_memory(Tensors(x.flip(0), y.flip(0))),
        )
        for number, stage in enumerate(attack.stages(threat, 4)):
            context, *_ = fitted_context(number, stage, context, itself)
            together = found_by_row(stage, torch.arange(6), context)
            few = replace(context, slots=2 * (1 + attack.probes))
            alone = found_by_row(stage, torch.tensor([4, 1, 3]), few)
            assert set(alone) == {1, 3, 4}
            for row, seen in alone.items():
                torch.testing.assert_close(seen["x"], together[row]["x"], rtol=0, atol=1e-7)
                same = ["broken", "step", "prediction"]
                # A foreign code is charged by the batch.
                same += (
                    [] if isinstance(stage.attack, ExternalAttack) else ["forwards", "backwards"]
                )
                for key in same:
                    assert torch.equal(seen[key], together[row][key]), (row, key)


def found_by_row(stage, rows, context):
    """What becomes of each example, whatever the order in which they leave."""
    return {
        int(row): {f.name: getattr(found, f.name)[i] for f in fields(found)}
        for found in attack_loop.run_stage(stage, rows, context)
        for i, row in enumerate(found.rows)
    }


class Halfspaces(nn.Module):
    """Four classes by planes: the smallest successful radius has a closed form."""

    def __init__(self, weight, x, distance, norm):
        super().__init__()
        self.weight = torch.stack([weight, -weight, torch.zeros_like(weight), weight * 0])
        dual = torch.linalg.vector_norm(2 * weight, {"Linf": 1, "L2": 2, "L1": torch.inf}[norm])
        self.bias = torch.tensor(
            [float(distance * dual - 2 * (x.flatten(1)[0] @ weight)), 0, -99, -99],
            dtype=weight.dtype,
        )

    def forward(self, x):
        return x.flatten(1) @ self.weight.T.to(x) + self.bias.to(x)


def even(norm):
    """Weights of one sign, none of them small: what is smoothed, resized or estimated has it, too.

    In L1 the steepest pixels are what counts: a quarter is as steep as can be.
    """
    weight = 0.5 + torch.rand(8, 8)
    weight[-1], weight[:, -1] = 0, 0  # where the official Square draws no small square
    steep = (torch.rand(8, 8) < 0.25) & (weight > 0)
    return (weight.masked_fill(steep, 2.0) if norm == "L1" else weight).flatten()


ENOUGH = {
    **{"steps": 60, "queries": 1500, "pairs": 20, "targets": 2, "kappa": 0.001},
    "of": ("apgd-ce-20", "fab-t-5"),
}
"""Enough of each for two per cent, where defaults are larger."""
NEAR = {"hop-skip-jump": {"queries": 600}}
"""Enough to come as near as a decision-based attack must: see ``reach``."""


def is_indirect(attack):
    """Whether it follows an estimated or a blurred gradient, or none at all."""
    return attack.black_box or hasattr(attack, "kernel")


def plane_cases():
    """Every attack and norm that a plane decides; ``taps`` needs a net with features."""
    for name in RUN:
        attack = built(name)
        balls = [norm for norm in attack.measures if norm in BALLS]
        if getattr(attack, "taps", False) or not balls:
            continue
        # A norm in which the sign or the rank of every pixel matters asks for the very gradient.
        linf = is_indirect(attack) and "Linf" in balls
        yield from product([name], ["Linf"] if linf else balls)


def reach(attack):
    """The radius at which it must succeed, as a share of the plane's distance."""
    if isinstance(attack, Corners):
        return 3  # of 1,500 random corners one has a third of all pixels more on the right side
    if getattr(attack, "steps", 0) == 1 and attack.start != "clean":
        return 1.5  # one step from a random start does not reach the far corner
    if attack.fits:
        return 3  # DeepFool's steps are those of L2 under every norm
    if attack.minimal and attack.access == "decision":
        return 1.6  # how near so few queries come: see test_decision.py
    if attack.minimal and hasattr(attack, "decay"):
        return 1 / attack.decay  # it measures distances in such steps
    return 1.02 + getattr(attack, "overshoot", 0)


@pytest.mark.parametrize(("name", "norm"), [*plane_cases()])
def test_a_plane_falls_exactly_where_it_should(name, norm):
    attack = ATTACKS.build(Spec(name, with_values(name, {**ENOUGH, **NEAR.get(name, {})})))
    x = torch.full((3, 1, 8, 8), 0.5)
    y = torch.zeros(3, dtype=torch.long)
    weight = even(norm) if is_indirect(attack) or norm == "L1" else torch.randn(64)
    distance = 0.8 if norm == "L1" else 0.05  # of L1 balls APGD begins with ones thrice as large
    plane = Halfspaces(weight, x, distance=distance, norm=norm)
    assert plane(x).argmax(1).eq(y).all()
    far, near = (Threat(norm, distance * share) for share in (reach(attack), 0.99))
    found = run(plane, x, y, attack, far)
    assert (found.broken & (found.norm <= far.eps * 1.00001)).all()
    # A search for the nearest image does not ask for the radius: once is enough.
    asks = not attack.minimal or getattr(attack, "within", False)
    found = run(plane, x, y, attack, near) if asks else found
    assert not (found.broken & (found.norm <= near.eps * 1.00001)).all()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in RUN
        if ATTACKS.accepts(name, "last_iterate")
        and not ATTACKS.entry(name).cls.taps
        and "Linf" in built(name).measures
    ],
)
def test_any_iterate_counts_unless_the_last_is_asked_for(name):
    """Wrong only in a band that the attack walks into and out of."""

    class Band(nn.Module):
        def forward(self, z):
            score = z.flatten(1).mean(1)
            inside = (score > 0.52) & (score < 0.56)
            return torch.stack([(~inside).double(), score], 1)

    x, y = torch.full((2, 1, 4, 4), 0.5).double(), torch.zeros(2, dtype=torch.long)
    params = {"steps": 10, "step": 0.3, "start": "clean", **with_values(name, {"opening": 0})}
    any_, last = (
        run(Band(), x, y, built(name, **params, last_iterate=flag), Threat("Linf", 0.1))
        for flag in (False, True)
    )
    assert Band()(any_.x).argmax(1).ne(y).all()
    assert any_.broken.all()
    assert (any_.step > 0).all()
    assert (any_.step < 10).all()
    assert Band()(last.x).argmax(1).eq(y).all()
    assert not last.broken.any()
    assert (last.step == -1).all()


def test_more_steps_and_restarts_only_break_more(model):
    model.eval()
    x = torch.rand(64, 1, 8, 8).double()
    y = model(x).argmax(1)
    noise, threat = Noise(1, torch.arange(64)), Threat("Linf", 0.04)

    def broken(**params):
        return run(model, x, y, built("pgd", **params), threat, noise).broken

    few, many = broken(steps=3, step=0.4), broken(steps=20, step=0.4)
    once, often = broken(steps=3, step=0.4, restarts=1), broken(steps=3, step=0.4, restarts=4)
    assert (few <= many).all()
    assert (once <= often).all()
    assert few.any()
    assert not often.all()


class Lottery(nn.Module):
    """Cross-entropy 0.70 misclassifies with two classes, 1.05 does not with three."""

    def forward(self, x):
        broken = torch.tensor([[0.0, 0.1, -9.0]]).double()
        robust = torch.tensor([[0.0, -0.01, -0.01]]).double()
        first = x.flatten(1)[:, :1] > 0.5
        return torch.where(first, broken, robust) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_a_misclassified_restart_beats_a_higher_loss():
    x, y = torch.full((40, 1, 2, 2), 0.5).double(), torch.zeros(40, dtype=torch.long)
    attack = built("pgd", steps=1, step=1, restarts=8)
    found = run(Lottery(), x, y, attack, Threat("Linf", 0.1))
    assert found.broken.all()
    assert (Lottery()(found.x).argmax(1) != y).all()


def test_a_restart_works_on_what_the_ones_before_it_left(model):
    """``by`` is the restart that broke an example; the later ones cost it nothing."""
    x, y = torch.full((40, 1, 2, 2), 0.5).double(), torch.zeros(40, dtype=torch.long)
    attack = built("pgd", steps=1, step=1, restarts=8)
    found = run(Lottery(), x, y, attack, Threat("Linf", 0.1))
    # By start or by step, every restart breaks each example with the same chance.
    assert len(found.by.unique()) >= 3
    for by in found.by.unique():
        mine = found.by == by
        # Failed restarts cost clean + 2 looks + verdict, the last one a confirmation instead of
        # the look it does not need, if it was broken at the start.
        expected = 4 * by + 3 + (1 + found.step[mine])
        assert torch.equal(found.forwards[mine], expected.long())


def test_fgsm_is_the_formula(model, batch):
    x, y = batch
    model.eval()
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    model.zero_grad()
    expected = (x + 0.1 * leaf.grad.sign()).clamp(0, 1)
    found = run(model, x, y, built("fgsm"), Threat("Linf", 0.1))
    standing = model(x).argmax(1) == y
    assert standing.any()
    fell = model(expected).argmax(1) != y
    torch.testing.assert_close(found.x[standing & fell], expected[standing & fell])
    assert torch.equal(found.broken[standing], fell[standing])


def test_one_zero_gradient_does_not_freeze_the_momentum():
    """Dividing by a zero mean makes NaN, and sign(NaN) is 0: the example would never move."""
    calls = []

    class FlatAtFirst(nn.Module):
        def forward(self, z):
            if torch.is_grad_enabled():
                calls.append(0)
            score = z.flatten(1).mean(1) * (0 if len(calls) == 1 else 1)
            return torch.stack([0.6 - score, score], 1)

    x, y = torch.full((1, 1, 4, 4), 0.25).double(), torch.zeros(1, dtype=torch.long)
    found = run(FlatAtFirst(), x, y, built("mim", steps=5), Threat("Linf", 0.1))
    assert len(calls) > 3
    assert (found.x - x).abs().max() > 0.05


def test_mim_takes_steps_of_eps_over_steps():
    assert built("mim", steps=8).stride == 1 / 8
    assert built("mim", steps=8, step=0.5).stride == 0.5


def test_the_reference_leaves_torch_s_generators_alone(model, batch):
    x, y = batch
    net = model.float()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    # So large a radius that nothing is left for the slow last member.
    found = run(net, x.float(), y, built("autoattack-reference"), Threat("Linf", 0.5))
    assert torch.equal(torch.get_rng_state(), before)
    assert Threat("Linf", 0.5).inside(found.x, x.float()).all()
    assert found.broken.all()


def test_more_steps_or_queries_are_planned_as_more_passes():
    """Of every attack that has a number of either; the budget of the checks is a part of it."""
    for name in ATTACKS.names():
        attack = ATTACKS.build(Spec(name))
        assert attack.planned_passes > 0, name
        for parameter in ("steps", "queries"):
            if parameter in {each.name for each in fields(attack)}:
                more = replace(attack, **{parameter: 2 * getattr(attack, parameter)})
                assert more.planned_passes == 2 * attack.planned_passes, name
