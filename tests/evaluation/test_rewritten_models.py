"""Fast models are vouched for or given up, and never make an attack weaker."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.attacks import ATTACKS, ExternalAttack
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.evaluation import rewritten_models as module
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.rewritten_models import rewritten_search_model
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.stages import AttackVerdicts, run_stages
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.layout import Contiguous, laid_out
from robustbench_cli.models.taps import last_layer

COLOUR = Shape(3, 8, 8, 5, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))


@pytest.fixture(autouse=True)
def plain_float32(monkeypatch):
    """Whether this processor has bfloat16 must not decide what is tested."""
    monkeypatch.setattr(module, "has_bf16", lambda _where: False)


def warmed(net, shape=(3, 8, 8)):
    """BatchNorm has seen some data, so that folding it changes the convolutions."""
    net.train()
    for _ in range(4):
        net(torch.rand(16, *shape))
    return net.eval().requires_grad_(False)


def norms(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("digits-cnn:width=4", 0),
        ("resnet-18:width=4", 0),
        # Pre-activation: a norm without a convolution in front of it stays.
        ("preact-resnet-18:width=4", None),
        ("wrn:depth=10,width=1", None),
    ],
)
def test_a_norm_behind_a_convolution_is_folded_into_it(name, left):
    net = warmed(MODELS.build(Spec.parse(name)).build(COLOUR))
    x = torch.rand(12, 3, 8, 8)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast, notes = rewritten_search_model(net, x)
    assert not notes
    assert fast.about == "float32, BatchNorm folded"
    found = len(norms(fast.model))
    assert found < len(norms(net))
    assert found == left if left is not None else found > 0
    z = torch.rand(20, 3, 8, 8)
    spread = net(z).std()
    torch.testing.assert_close(fast.model(z), net(z), rtol=0, atol=1e-3 * float(spread))
    assert 0 <= fast.uncertain_margin < 1e-2 * spread
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_large_kernels_are_folded_like_others_and_stay_as_the_processor_wants_them():
    parts = [nn.Conv2d(3, 176, 3), nn.Conv2d(176, 176, 3, padding=1), nn.BatchNorm2d(176)]
    net = laid_out(
        warmed(nn.Sequential(*parts, nn.ReLU(), nn.Flatten(), nn.Linear(6336, 5))),
        torch.device("cpu"),
    )
    fast, notes = rewritten_search_model(net, torch.rand(4, 3, 8, 8))
    assert not notes
    assert fast.about == "float32, BatchNorm folded"
    assert not norms(fast.model)
    for each in (net, fast.model):
        convolutions = [m for m in each.modules() if isinstance(m, nn.Conv2d)]
        assert [isinstance(m, Contiguous) for m in convolutions] == [False, True]


def test_without_batchnorm_there_is_nothing_to_fold_or_to_say():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    fast, notes = rewritten_search_model(net, torch.rand(4, 3, 8, 8))
    assert fast.model is net
    assert not notes
    assert fast.uncertain_margin == 0
    assert fast.about == "float32"


class Block(nn.Module):
    """Something in front of a net with a foldable norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(256, 5)

    def before(self, x):
        return x

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(self.before(x)))).flatten(1))


class Branching(Block):
    """Control flow on the images' values, which no tracer follows."""

    def before(self, x):
        return x * 2 if x.mean() > 2 else x


class Quantised(torch.autograd.Function):
    """Rounds forward and passes the gradient straight through."""

    @staticmethod
    def forward(ctx, x):
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx, grad):
        return grad


class StraightThrough(Block):
    """A gradient of its own making."""

    def before(self, x):
        return Quantised.apply(x)


class Detached(Block):
    """Straight through without a Function: a trace keeps that."""

    def before(self, x):
        return x + ((x * 16).round() / 16 - x).detach()


@pytest.mark.parametrize(
    ("kind", "why"), [(Branching, "TraceError"), (StraightThrough, None), (Detached, None)]
)
def test_what_cannot_be_folded_faithfully_is_left_alone(kind, why):
    net = warmed(kind())
    x = torch.rand(12, 3, 8, 8)
    fast, notes = rewritten_search_model(net, x)
    z = torch.rand(8, 3, 8, 8).requires_grad_()
    (mine,) = torch.autograd.grad(fast.model(z).amax(1).sum(), z)
    (right,) = torch.autograd.grad(net(z).amax(1).sum(), z)
    assert right.abs().sum() > 0
    assert (mine - right).norm() <= 0.02 * right.norm()  # whatever was given up
    if why is not None or fast.model is net:
        assert len(notes) == 1
        assert notes[0].startswith("BatchNorm was not folded")
        assert (why or "") in notes[0]
        assert fast.model is net


class Dynamic(Block):
    """Follows its own gradient first: it can be traced, and the trace cannot run."""

    def before(self, x):
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            top = self.head(F.relu(self.norm(self.conv(leaf))).flatten(1)).logsumexp(1)
            (grad,) = torch.autograd.grad(top.sum(), leaf)
        return x + 0.01 * grad


class Coin(Block):
    """A branch at random, of which a trace keeps one."""

    def before(self, x):
        return x.flip(3) if random.random() < 0.5 else x


def test_a_trace_that_cannot_run_is_given_up():
    net = warmed(Dynamic())
    fast, notes = rewritten_search_model(net, torch.rand(12, 3, 8, 8))
    assert fast.model is net
    assert len(notes) == 1
    assert notes[0].startswith("BatchNorm was not folded: RuntimeError: ")


def test_a_randomised_model_is_not_folded_into_one_of_its_answers():
    x = torch.rand(12, 3, 8, 8)
    net = warmed(Coin())
    random.seed(916)  # ten draws on one side: no comparison could tell
    assert rewritten_search_model(net, x)[0].model is not net
    random.seed(916)
    fast, notes = rewritten_search_model(net, x, random=True)
    assert fast.model is net
    assert notes == ["BatchNorm was not folded: the model is randomised"]


def test_a_model_with_hooks_is_left_alone():
    net = warmed(Block())
    net.conv.register_forward_hook(lambda _m, _i, out: out * 0.5)
    fast, notes = rewritten_search_model(net, torch.rand(8, 3, 8, 8))
    assert fast.model is net
    assert notes == ["BatchNorm was not folded: the model has forward hooks"]


def test_a_fold_that_answers_differently_is_given_up(monkeypatch):
    net = warmed(Block())
    folded = module.optimization.fuse

    def wrong(model):
        made = folded(model)
        made.head.bias.data += 0.5
        return made

    monkeypatch.setattr(module.optimization, "fuse", wrong)
    fast, notes = rewritten_search_model(net, torch.rand(8, 3, 8, 8))
    assert fast.model is net
    assert notes == ["BatchNorm was not folded: the folded model answers differently"]


def test_a_deterministic_model_in_its_own_precision_is_in_no_doubt(digits_model):
    net, *_ = digits_model
    assert exact_search_model(net).uncertain_margin == 0
    assert exact_search_model(net).model is net


def test_features_are_the_input_of_the_last_layer(digits_model):
    net, *_ = digits_model
    assert last_layer(net) is net.head
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert last_layer(plain) is plain[3]
    with pytest.raises(UserError, match="no last linear layer"):
        last_layer(nn.Conv2d(1, 1, 1))


def flags(net, x, y, text, fast):
    """Which examples an attack breaks when it searches with ``fast``."""
    threat, n = Threat("Linf", 0.2 if "square" in text else 0.1), len(y)
    column = AttackVerdicts.empty(n)
    with unchanged_model(net):
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(net),
            search_model=fast,
            noise=Noise(0, torch.arange(n)),
            slots=16,
        )
        stages = ATTACKS.build(Spec.parse(text)).stages(threat, 10)
        standing = (net(x).argmax(1) == y).numpy()
        for _ in run_stages(stages, column, standing, context, exact_search_model(net)):
            pass
    return torch.from_numpy(column.broken)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "text", ["pgd20", "apgd-ce-20", "square-60", "fab-t:steps=5,targets=2,within=true"]
)
def test_a_fast_search_is_never_weaker(text, narrow, digits_model, monkeypatch):
    net, x, y = digits_model
    monkeypatch.setattr(module, "has_bf16", lambda _where: narrow)
    fast, notes = rewritten_search_model(net, x)
    assert not notes
    assert fast.about == ("bfloat16" if narrow else "float32") + ", BatchNorm folded"
    assert fast.model is not net
    assert fast.uncertain_margin > 0
    slow = flags(net, x, y, text, exact_search_model(net))
    found = flags(net, x, y, text, fast)
    assert 3 < slow.sum() < 22
    assert not (slow & ~found).any()


def test_bfloat16_is_given_up_where_the_softmax_feels_it(digits_model, monkeypatch):
    """A net forty times as sure: bfloat16 moves its logits by about one."""
    net, x, y = digits_model

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return 40 * self.net(x)

    monkeypatch.setattr(module, "has_bf16", lambda _where: True)
    sure = Sure().eval()
    fast, notes = rewritten_search_model(sure, x)
    assert fast.about == "float32, BatchNorm folded"
    assert [note.partition(":")[0] for note in notes] == ["bfloat16 was not used"]
    slow, found = (
        flags(sure, x, y, "pgd20", search_model)
        for search_model in (exact_search_model(sure), fast)
    )
    assert slow.any()
    assert not (slow & ~found).any()
    assert (
        rewritten_search_model(sure, x, random=True)[0].about == "float32"
    )  # no answers to compare


class Noisy(nn.Module):
    """Two answers differ by its noise, which is no rounding."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))


def test_a_randomised_model_is_not_searched_twice(digits_model):
    """What is close to call stays so, however often one looks."""
    net, x, y = digits_model
    noisy, n = Noisy(net), len(y)
    fast, _ = rewritten_search_model(noisy, x)
    column, threat = AttackVerdicts.empty(n), Threat("Linf", 1e-3)
    with unchanged_model(noisy):
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(noisy, random=True),
            search_model=replace(fast, uncertain_margin=5.0),
            noise=Noise(0, torch.arange(n)),
        )
        stages = ATTACKS.build(Spec.parse("pgd:steps=3")).stages(threat, 10)
        for _ in run_stages(stages, column, np.ones(n, bool), context, exact_search_model(noisy)):
            pass
    held = ~column.broken
    assert held.sum() > 12
    assert (column.arrays["backwards"][held] <= 4).all()  # one walk, not two


@dataclass(frozen=True, kw_only=True)
class Foreign(ExternalAttack):
    """A code that runs by itself, on the model as it is."""

    def craft(self, model, task):
        model(task.x)
        return task.x


def test_a_foreign_code_is_run_once_whatever_the_search_model(digits_model):
    net, x, y = digits_model
    n, threat = len(y), Threat("Linf", 0.1)
    context = EvalContext(
        data=Tensors(x, y),
        threat=threat,
        verifier=Verifier(net),
        search_model=replace(exact_search_model(net), uncertain_margin=1e3),
        noise=Noise(0, torch.arange(n)),
    )
    column = AttackVerdicts.empty(n)
    stages = Foreign().stages(threat, 10)
    for _ in run_stages(stages, column, np.ones(n, bool), context, exact_search_model(net)):
        pass
    assert (column.arrays["forwards"] == 2).all()  # its own pass and the verdict


def test_images_from_a_split_can_be_compared_on(digits_model):
    net, x, y = digits_model
    data = Split((x * 255).to(torch.uint8), y, tuple("0123456789"))
    fast, _ = rewritten_search_model(net, data.images(slice(1)))
    torch.testing.assert_close(fast.model(x), net(x), rtol=0, atol=1e-3)


def test_a_backward_hook_that_bfloat16_breaks_is_a_note(monkeypatch):
    """The hook runs in the backward pass only, so comparing answers does not meet it."""
    monkeypatch.setattr(module, "has_bf16", lambda _where: True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5)).eval()

    def hook(_module, grads, _outputs):
        median = grads[0].abs().flatten(1).quantile(0.5, dim=1)
        return (grads[0] * (grads[0].abs() <= median[:, None]),)

    net[2].register_full_backward_hook(hook)
    fast, notes = rewritten_search_model(net, torch.rand(8, 1, 4, 4))
    assert fast.about == "float32"
    assert any(note.startswith("bfloat16 was not used: ") for note in notes)
