"""Slots are kept full, survive a lack of memory, and trust no search model."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Iterated, IterativeAttack
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.attack_loop import REFILL, EvalContext, run_stage
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier

THREAT = Threat("Linf", 0.12)


@pytest.fixture
def half():
    """A net in float64 and 60 images that it gets right, about half of which fall."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    net.requires_grad_(False)
    x = torch.rand(60, 1, 6, 6).double()
    return net, x, net(x).argmax(1)


def field_of(half, **changes):
    net, x, y = half
    made = EvalContext(
        data=Tensors(x, y),
        threat=THREAT,
        verifier=Verifier(net),
        search_model=SearchModel(model=net),
        noise=Noise(0, torch.arange(len(y))),
        slots=16,
    )
    return replace(made, **changes)


def stage_of(text):
    (stage, *_) = ATTACKS.build(Spec.parse(text)).stages(THREAT, 4)
    return stage


def ran(text, context):
    """What became of every example, in the order of the data."""
    stage = text if not isinstance(text, str) else stage_of(text)
    found = list(run_stage(stage, torch.arange(len(context.data.y)), context))
    rows = torch.cat([each.rows for each in found])
    assert torch.equal(rows.sort().values, torch.arange(len(rows)))  # each of them once
    order = rows.argsort()
    names = ("broken", "step", "x", "prediction", "norm", "forwards", "backwards", "margin")
    return {n: torch.cat([getattr(each, n) for each in found])[order] for n in names}


class Recorder:
    """The sizes of the batches that a search's model is shown."""

    def __init__(self, net):
        self.net, self.sizes = net, []

    def __call__(self, x):
        self.sizes.append(len(x))
        return self.net(x)


@pytest.mark.parametrize("text", ["pgd:steps=20,step=0.1", "apgd-ce-30"])
def test_refilling_keeps_the_batches_full(text, half):
    seen = Recorder(half[0])
    found = ran(text, field_of(half, search_model=SearchModel(model=seen)))
    assert 10 < found["broken"].sum() < 50  # they leave at different times
    last = max(i for i, size in enumerate(seen.sizes) if size == 16)
    # A slot in eight may be free before it is worth a refill.
    assert min(seen.sizes[:last]) > 16 - 16 // REFILL - 1
    assert max(seen.sizes) == 16
    drained = seen.sizes[last:]
    assert drained == sorted(drained, reverse=True)  # afterwards the batch only shrinks
    looks = int((found["forwards"] - 2 - (found["step"] >= 0).long()).sum())
    assert sum(seen.sizes) == looks  # nobody is looked at in vain


def test_a_search_with_probes_counts_them_as_slots(half):
    seen = Recorder(half[0])
    ran("nes:queries=40,pairs=3", field_of(half, slots=28, search_model=SearchModel(model=seen)))
    assert max(seen.sizes) == 4 * 6  # four examples, six probes each


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_lack_of_memory_halves_the_slots_and_goes_on(error, half):
    """The results are those of a machine with more memory."""
    net, notes, sizes = half[0], [], []

    def small(x):
        sizes.append(len(x))
        if len(x) > 4:
            raise error("out of memory")
        return net(x)

    expected = ran("pgd:steps=6,step=0.3", field_of(half))
    context = field_of(half, search_model=SearchModel(model=small), note=notes.append)
    found = ran("pgd:steps=6,step=0.3", context)
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=0, atol=1e-9, msg=key)
    assert notes == [f"out of memory: going on with {n} examples at a time" for n in (8, 4)]
    assert max(sizes) == 16
    assert 0 < len([size for size in sizes if size > 4]) <= 2


def test_memory_that_runs_out_halfway_costs_nobody_a_verdict(half):
    net, calls = half[0], []

    def tired(x):
        calls.append(len(x))
        if len(calls) == 12:  # in the middle: some have left, others are under way
            raise torch.OutOfMemoryError("out of memory")
        return net(x)

    expected = ran("pgd:steps=6,step=0.3", field_of(half))
    found = ran("pgd:steps=6,step=0.3", field_of(half, search_model=SearchModel(model=tired)))
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=0, atol=1e-9, msg=key)


def test_other_errors_and_too_little_for_one_example_are_not_hidden(half):
    def broken(x):
        raise RuntimeError("shapes do not match")

    def full(x):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(RuntimeError, match="shapes"):
        ran("pgd", field_of(half, search_model=SearchModel(model=broken)))
    with pytest.raises(torch.OutOfMemoryError):
        ran("pgd", field_of(half, search_model=SearchModel(model=full)))


def test_claims_that_the_judge_denies_do_not_count_and_the_search_goes_on(half):
    """The search's model is wrong a little early: what it claims is still right for the judge."""
    net, x, y = half

    def early(z):
        whose = torch.cdist(z.flatten(1), x.flatten(1)).argmin(1)
        return net(z) - 0.15 * nn.functional.one_hot(y[whose], 4)

    plain = ran("pgd:steps=20,step=0.1,start=clean", field_of(half))
    lied = ran(
        "pgd:steps=20,step=0.1,start=clean", field_of(half, search_model=SearchModel(model=early))
    )
    assert torch.equal(net(lied["x"]).argmax(1) != y, lied["broken"])
    assert (lied["forwards"] > plain["forwards"]).any()  # claims were looked at, and refused
    assert (lied["broken"] & plain["broken"]).sum() >= plain["broken"].sum() - 2
    assert (lied["step"][lied["broken"]] >= 0).all()
    assert (lied["step"][~lied["broken"]] == -1).all()
    assert torch.equal(lied["prediction"] != y, lied["broken"])


@dataclass(frozen=True, kw_only=True)
class Still(IterativeAttack):
    """It never moves: what it claims it claims at every look."""

    def begin(self, task):
        return {"x": task.x.clone()}

    def loss(self, out, state, task, step_index):
        return out.logits.sum(1)

    def move(self, state, look, task):
        return state

    def over(self, state, taken):
        return taken >= 5


def test_an_attack_whose_claims_are_all_denied_ends_when_it_is_over(half):
    net, _, y = half
    (stage,) = Still().stages(THREAT, 4)
    for check_every in (1, 4):
        search_model = SearchModel(model=lambda x: -net(x), check_every=check_every)
        found = ran(stage, field_of(half, search_model=search_model))
        assert not found["broken"].any()
        assert (found["step"] == -1).all()
        assert torch.equal(found["prediction"], y)
        assert (found["backwards"] <= 6).all()


def test_what_was_close_is_looked_at_again_by_the_model_itself(half):
    """A search model that rounds logits misses what lies just across the boundary."""
    net, x, y = half

    def coarse(z):
        return (net(z) * 4).round() / 4 + 0.2 * nn.functional.one_hot(net(x[:1]).argmax(1), 4)

    n = len(y)
    itself = SearchModel(model=net)
    (stage,) = ATTACKS.build(Spec.parse("pgd:steps=10")).stages(THREAT, 4)

    def flags(search_model):
        column = AttackVerdicts.empty(n)
        for _ in run_stages(
            [stage], column, np.ones(n, bool), field_of(half, search_model=search_model), itself
        ):
            pass
        return column

    exact = flags(itself)
    trusting = flags(SearchModel(model=coarse))
    doubting = flags(SearchModel(model=coarse, uncertain_margin=0.5))
    assert 0 < exact.broken.sum() < n
    assert (exact.broken & ~trusting.broken).any()  # the coarse model alone would miss some
    assert not (exact.broken & ~doubting.broken).any()
    # Whoever was tried twice has paid twice.
    twice = doubting.arrays["forwards"] > 13
    assert twice.any()
    assert (doubting.arrays["forwards"][~doubting.broken] <= 26).all()


@pytest.mark.parametrize(
    "text",
    ["pgd:steps=9,step=0.2", "apgd-ce-12", "square-30", "fab:steps=6", "mim7"],
)
@pytest.mark.parametrize(("check_every", "shrink_below"), [(4, 0.5), (3, 0.0), (100, 0.5)])
def test_constant_shapes_give_the_same_verdicts(text, check_every, shrink_below, half):
    expected = ran(text, field_of(half))
    seen = Recorder(half[0])
    search_model = SearchModel(model=seen, check_every=check_every, shrink_below=shrink_below)
    found = ran(text, field_of(half, search_model=search_model))
    if text.startswith("fab"):  # in constant shapes, gradients that nobody needs are taken, too
        assert (found["backwards"] >= expected["backwards"]).all()
        assert (found["backwards"] > expected["backwards"]).any()
        expected["backwards"] = found["backwards"]
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=0, atol=1e-9, msg=key)
    last = max(i for i, size in enumerate(seen.sizes) if size == 16)
    assert set(seen.sizes[: last + 1]) == {16}
    # Then what the last refill left, and with ``shrink_below`` what halving leaves of that.
    assert len(set(seen.sizes)) <= 2 + 4 * (shrink_below > 0)


def test_no_examples_are_no_work(half):
    stage = stage_of("pgd")
    assert not list(run_stage(stage, torch.arange(0), field_of(half)))


@dataclass(frozen=True, kw_only=True)
class Scheduled(Iterated):
    """It climbs the mean logit for three steps, then the cross-entropy, as with an ODI start."""

    def loss(self, out, state, task, step_index):
        return torch.where(step_index < 3, out.logits.mean(1), cross_entropy(out.logits, task.y))


@pytest.mark.parametrize("slots", [4, 60])
def test_a_loss_may_follow_a_schedule_whoever_is_side_by_side(slots, half):
    net, x, y = half
    attack = Scheduled(steps=9, step=0.2, start="clean")
    x_adv, fell = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    for step_index in range(10):
        leaf = x_adv.clone().requires_grad_()
        logits = net(leaf)
        fell |= logits.argmax(1) != y
        loss = logits.mean(1) if step_index < 3 else cross_entropy(logits, y)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        x_adv = THREAT.project(x_adv + 0.2 * THREAT.eps * grad.sign(), x)
    (stage,) = attack.stages(THREAT, 4)
    found = ran(stage, field_of(half, slots=slots))
    assert torch.equal(found["broken"], fell)
    assert 0 < fell.sum() < len(x)
    assert (found["step"][fell] > 3).any()  # other slots were refilled in the meantime
