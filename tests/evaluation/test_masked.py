"""Under a mask every attack keeps to the pixels that are free, and is as strong there as it can."""

import dataclasses
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.errors import RunError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.evaluation import attack_loop, mask_binding
from robustbench_cli.evaluation.batch_attack import Attacked, attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel, exact_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

SHORT = {
    **{f"apgd-{loss}": {"steps": 5} for loss in ("ce", "dlr", "t")},
    "ensemble": {"of": "apgd-ce-3/apgd-t-3/fab-t-3/square-10"},
    **{name: {"steps": 5} for name in ("fab", "fab-t", "ddn", "fmn")},
    "cw-l2": {"steps": 5, "searches": 2},
    "cw-linf": {"steps": 5, "largest": 0.01},
    "feaatt": {"steps": 4, "restarts": 2},
    "adaptive": {"budget": 250},
    "boundary": {"queries": 60},
    "hop-skip-jump": {"queries": 60},
    "mt": {"steps": 5},
    "lavan": {"steps": 5, "restarts": 2},
    "nes": {"queries": 40, "pairs": 3},
    "patch-pgd": {"steps": 5, "restarts": 2},
    "pg-ours": {"steps": 5, "restarts": 2},
    "signature": {"steps": 4},
    "sparse-rs": {"queries": 15},
    "spsa": {"steps": 2, "pairs": 3},
    "square": {"queries": 15},
}
FULL = Threat("Linf", 0.1)


FEW = {"steps": 6, "restarts": 2, "targets": 2, "queries": 40}
"""Of every other attack, where its default is larger."""


def built(name, **params):
    defaults = {each.name: each.default for each in dataclasses.fields(ATTACKS.entry(name).cls)}
    few = {key: value for key, value in FEW.items() if key in defaults and defaults[key] > value}
    return ATTACKS.build(Spec(name, {**few, **SHORT.get(name, {}), **params}))


def maskable(name):
    return all(stage.attack.maskable for stage in built(name).stages(FULL, 4))


KEEPING = [name for name in ATTACKS.names() if name != "autoattack" and maskable(name)]
SAME = {
    "adaptive",
    "apgd-dlr",
    "bim",
    "cw",
    "di-fgsm",
    "fgsm",
    "fgsm-rs",
    "mt",
    "pg-ours",
    "signature",
    "ti-fgsm",
}
"""They walk as others do, and need not do it in three norms."""
CASES = [
    (name, norm)
    for name in KEEPING
    for norm in built(name).measures
    if name not in SAME or norm == "L2"
]
every_case = pytest.mark.parametrize(("name", "norm"), CASES)
EPS = {"Linf": 0.1, "L2": 0.5, "L1": 2.0, "L0": 6, "patch": 4}


def run(model, x, y, name, threat):
    return attack_batch(model, x, y, built(name), threat, Noise(0, torch.arange(len(y))))


@pytest.fixture
def free():
    """Half of the pixels of each image, others in each."""
    return torch.rand(6, 1, 8, 8) < 0.5


def test_what_runs_by_itself_is_told_apart():
    whole = {"autoattack", "autoattack-reference", "lbfgs", "patch", "perceptual", "spatial"}
    assert {*ATTACKS.names()} - {*KEEPING} == whole | {"universal", "universal-sgd"}
    assert maskable("autoattack")  # left out above for its length; its members are there


@every_case
def test_a_mask_of_ones_is_no_mask_bit_for_bit(name, norm, model, batch):
    x, y = batch
    threat = Threat(norm, EPS[norm])
    whole = run(model, x, y, name, threat)
    masked = run(model, x, y, name, threat.bound(torch.ones(6, 1, 8, 8).bool()))
    for part in Attacked._fields:
        assert torch.equal(getattr(masked, part), getattr(whole, part)), part


@every_case
def test_a_mask_of_zeros_leaves_every_image(name, norm, model, batch):
    x, y = batch
    y = model.eval()(x).argmax(1)
    found = run(model, x, y, name, Threat(norm, EPS[norm]).bound(torch.zeros(6, 1, 8, 8).bool()))
    assert torch.equal(found.x, x)
    assert not found.broken.any()


@dataclass(frozen=True, kw_only=True)
class Witness(SearchModel):
    """Looks, and remembers what it was shown."""

    shown: list = field(default_factory=list)

    def observe(self, attack, state, task, taken):
        fits = task.threat.untouched(state["x"], task.x) | ~attack.counts(state, taken)
        if attack.probes:
            several = task.x[:, None].expand_as(state["probes"])
            closed = ~task.threat.free[:, None].expand_as(several)
            fits &= ((state["probes"] == several) | ~closed).flatten(1).all(1)
        self.shown.append((taken, fits, state["x"], task.x))
        return super().observe(attack, state, task, taken)


@every_case
def test_every_iterate_keeps_the_clean_pixels_exactly(name, norm, model, batch, free):
    """The random start included; what an attack looks at beside (feaatt's target) never counts."""
    x, y = batch
    threat = Threat(norm, EPS[norm]).bound(free)
    with unchanged_model(model):
        witness = Witness(model=model)
        fields = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model),
            search_model=witness,
            noise=Noise(0, torch.arange(6)),
            slots=3 * (1 + built(name).probes),
        )
        stages = built(name).stages(threat, 4)
        for stage in (each for each in stages if (each.most_spent or 0) >= 0):
            for found in attack_loop.run_stage(stage, torch.tensor([5, 0, 3, 1, 4, 2]), fields):
                closed = ~free[found.rows].expand_as(found.x)
                assert torch.equal(found.x[closed], x[found.rows][closed])
    assert all(fits.all() for _, fits, _, _ in witness.shown)
    assert any(not torch.equal(now, clean) for _, _, now, clean in witness.shown)


class Plane(nn.Module):
    """Two classes (and two that nobody is of) with a plane between them."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = torch.stack([-weight, weight, 0 * weight, 0 * weight])
        self.bias = torch.tensor([0.0, bias, -99, -99])

    def forward(self, x):
        return x.flatten(1) @ self.weight.T.to(x) + self.bias.to(x)


DUAL = {"Linf": 1, "L2": 2, "L1": torch.inf}


@pytest.fixture
def plane(free):
    """A plane that a change of the free pixels by 0.05 of any image reaches, in a given norm."""

    def make(norm):
        weight, x = torch.randn(64), torch.full((6, 1, 8, 8), 0.5)
        # The same free pixels for all: one plane is as far from each of them.
        same = free[:1].expand(6, 1, 8, 8)
        slope = torch.linalg.vector_norm(2 * weight[same[0].flatten()], ord=DUAL[norm])
        bias = float(-2 * (x[0].flatten() @ weight) - 0.05 * slope)
        return Plane(weight, bias), x, same

    return make


@pytest.mark.parametrize(("share", "falls"), [(0.99, False), (1.03, True)])
@pytest.mark.parametrize(
    ("name", "params", "norms"),
    [
        *((name, {"steps": 30}, ("Linf", "L2")) for name in ("pgd", "mim", "fmn")),
        # Under L1 a plane escapes Auto-PGD's sparse steps now and then, with a mask or without.
        *((name, {"steps": 40}, ("Linf", "L2")) for name in ("apgd-ce", "apgd-t")),
        *((name, {"steps": 5}, ("Linf", "L2", "L1")) for name in ("fab", "fab-t")),
        ("deepfool", {"overshoot": 0.005}, ("Linf", "L2")),
        ("ddn", {"steps": 300}, ("L2",)),
        ("cw-l2", {"steps": 120, "searches": 7}, ("L2",)),
    ],
)
def test_a_plane_falls_where_the_free_pixels_reach_it(name, params, norms, share, falls, plane):
    """The radius is that of the dual norm over the free pixels alone: more than the whole's."""
    for norm in norms:
        net, x, free = plane(norm)
        y = torch.zeros(6, dtype=torch.long)
        threat = Threat(norm, 0.05 * share).bound(free)
        found = run_with(net, x, y, ATTACKS.build(Spec(name, params)), threat)
        assert net(x).argmax(1).eq(y).all()
        assert (found.broken & (found.norm <= threat.eps * 1.00001)).all() == falls, norm


def run_with(model, x, y, attack, threat):
    return attack_batch(model, x, y, attack, threat, Noise(0, torch.arange(len(y))))


@pytest.mark.parametrize(
    "name", ["square:queries=300", "nes:queries=4000", "spsa:steps=40,pairs=32"]
)
def test_black_boxes_find_their_way_under_a_mask(name, digits_model):
    """Probes and proposals are not lost on closed pixels: as without a mask, about half of what
    PGD breaks falls to so few queries."""
    model, x, y = digits_model
    threat = Threat("Linf", 0.35).bound(x.amax(1, keepdim=True) <= 0.1)
    white = run_with(model, x, y, ATTACKS.build(Spec.parse("pgd40")), threat).broken.sum()
    black = run_with(model, x, y, ATTACKS.build(Spec.parse(name)), threat).broken.sum()
    assert white >= 8
    assert black >= 0.4 * white


def test_the_judge_denies_a_changed_pixel(model, batch):
    x, y = batch
    free = torch.ones(6, 1, 8, 8, dtype=torch.bool)
    free[:, :, 0, 0] = False
    verifier, threat = Verifier(model.eval()), FULL.bound(free)
    near = (x + 0.05).clamp(max=1)
    near[:, :, 0, 0] = x[:, :, 0, 0]
    assert threat.inside(near, x).all()
    verifier.verdict(near, x, y, threat)
    near[2, 0, 0, 0] = x[2, 0, 0, 0] + 1e-7
    assert threat.inside(near, x).tolist() == [True, True, False, True, True, True]
    for bounded in (True, False):  # of a nearest image only the radius is not asked
        with pytest.raises(RunError, match="changed pixels that must stay"):
            verifier.verdict(near, x, y, threat, bounded=bounded)
    part = threat.only(torch.tensor([0, 5]))
    verifier.verdict(near[[0, 5]], x[[0, 5]], y[[0, 5]], part)


def test_an_attack_that_ignores_the_mask_is_brought_back(model, batch, free):
    class Rude(type(built("pgd"))):
        def begin(self, task):
            return {"x": 1 - task.x}

        def move(self, state, look, task):
            return {"x": 1 - task.x}

    x, y = batch
    found = run_with(model, x, y, Rude(steps=2, step=1.0), FULL.bound(free))
    assert torch.equal(found.x[~free], x[~free])
    assert FULL.inside(found.x, x).all()


@pytest.mark.parametrize("mask", ["saliency:top=0.4", "threshold:above=0.5", "border:width=2"])
def test_a_mask_is_each_example_s_own(mask, model):
    """The same whatever is side by side, and beyond one batch of the mask's."""
    model = model.float().eval()
    data = Split((torch.rand(300, 1, 8, 8) * 255).byte(), torch.arange(300) % 4, tuple("abcd"))
    whole = mask_binding.bind_mask(replace(FULL, mask=mask), model, data)
    assert len(whole.free) == 300
    rows = torch.tensor([299, 3, 256, 255, 17])
    few = mask_binding.bind_mask(replace(FULL, mask=mask), model, data.only(rows))
    assert torch.equal(few.free, whole.free[rows])
    assert mask_binding.bind_mask(FULL, model, data) is FULL


def test_verdicts_do_not_depend_on_batch_size_or_order(model, free):
    x, y = torch.rand(24, 1, 8, 8).double(), torch.arange(24) % 4
    y = model.eval()(x).argmax(1)
    threat = Threat("L2", 0.6).bound(free.repeat(4, 1, 1, 1))
    with unchanged_model(model):
        fields = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model),
            search_model=exact_search_model(model),
            noise=Noise(0, torch.arange(24)),
            slots=24,
        )
        (stage,) = built("pgd", steps=8).stages(threat, 4)
        whole = by_row(stage, torch.arange(24), fields)
        assert 0 < sum(whole[row][0] for row in whole) < 24
        for size in (1, 5):
            parts = by_row(stage, torch.randperm(24), replace(fields, slots=size))
            for row, (broken, image) in parts.items():
                assert broken == whole[row][0]
                torch.testing.assert_close(image, whole[row][1], rtol=0, atol=1e-9)


def by_row(stage, rows, fields):
    return {
        int(row): (bool(found.broken[i]), found.x[i])
        for found in attack_loop.run_stage(stage, rows, fields)
        for i, row in enumerate(found.rows)
    }


def test_what_an_attack_looks_at_beside_its_iterates_is_left_whole(model, batch, free):
    """The features that feaatt pulls towards are those of another image, not of a blend."""
    x, y = batch
    threat = FULL.bound(free)
    with unchanged_model(model):
        witness = Witness(model=model)
        fields = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model),
            search_model=witness,
            noise=Noise(0, torch.arange(6)),
        )
        (stage,) = built("feaatt", restarts=1).stages(threat, 4)
        list(attack_loop.run_stage(stage, torch.arange(6), fields))
    _, _, first, clean = witness.shown[0]
    for image, own in zip(first, clean, strict=True):
        assert sum(torch.equal(image, other) for other in x) == 1
        assert not torch.equal(image, own)
