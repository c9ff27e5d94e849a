"""Each check of a model finds the model that deserves it, and nothing in a plain one."""

import inspect
import itertools
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.autograd import grad as grad_of

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, ModelCheck
from robustbench_cli.audit._probe import REPEATED
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.config.catalogue import parameters
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.models.bpda import bpda
from robustbench_cli.models.rejecting import ModelWithRejectClass
from tests.audit.conftest import LINF, Around, probe_of

EVERY = [CHECKS.build(Spec(name)) for name in CHECKS.names()]
OF_MODELS = [check for check in EVERY if isinstance(check, ModelCheck)]


def cleaned(net, x):
    """Images are moved uphill before they are classified."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(net(leaf).logsumexp(1).sum(), leaf)
    return net(x + 0.01 * grad)


def cleaned_by_backward(net, x):
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        net(leaf).logsumexp(1).sum().backward()
    return net(x + 0.01 * leaf.grad)


def cleaned_by_another_name(net, x):
    """As a model file may have imported it, long before anyone looks."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (grad,) = grad_of(net(leaf).logsumexp(1).sum(), leaf)
    return net(x + 0.01 * grad)


def cleaned_functionally(net, x):
    grad = torch.func.grad(lambda z: net(z).logsumexp(1).sum())(x.detach())
    return net(x + 0.01 * grad)


class Scrambled(torch.autograd.Function):
    """The identity, with the gradient's entries in the opposite order."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.flatten(1).flip(1).view_as(grad)


def cached():
    """Answers are kept by the rounded image."""
    known = {}

    def forward(net, x):
        answers = []
        for image in x:
            key = tuple((image * 3).round().flatten().tolist())
            answers.append(known.setdefault(key, net(image[None])[0].detach()))
        return torch.stack(answers) + 0 * net(x)

    return forward


def counted():
    calls = itertools.count()
    return lambda net, x: net(x) * (1 if next(calls) < 3 else -1)


def steps(net, x):
    return net((x * 4).round() / 4) + 0 * x.sum()


def sawtooth(net, x):
    return net(x + 0.02 * (x * 300).sin())


def side_path(net, x):
    return net(x).detach() + 1e-3 * (x.flatten(1)[:, :5] - x.flatten(1)[:, 5:10])


def centred(net, x):
    return net(x - x.mean(0, keepdim=True))


def flickering(net, x):
    """The sign of the logits depends on a digit of the image's sum that nobody sees."""
    return net(x) * ((x.flatten(1).sum(1) * 1e5).floor() % 2 * 2 - 1)[:, None]


def rounded_in_place(net, x):
    with torch.no_grad():
        x.copy_((x * 9).round() / 9)
    return net(x)


PLANTED = {
    "overwrites": [rounded_in_place],
    "path": [sawtooth],
    "randomness": [lambda net, x: net(x + 0.05 * torch.randn_like(x))],
    "dynamic": [cleaned, cleaned_by_backward, cleaned_by_another_name, cleaned_functionally],
    "outputs": [lambda net, x: net(x).softmax(1), lambda net, x: 100 * net(x).softmax(1)],
    "neighbours": [centred, lambda net, x: net(x) * (1 + x.amax())],
    "zero-gradient": [
        steps,
        lambda net, x: 1e4 * net(x),
        lambda net, x: net(((x > 0.3) * x).sqrt() ** 2),
    ],
    "jumps": [flickering],
    "blind-pixels": [lambda net, x: net(9 * torch.cat([x[..., :2].detach(), x[..., 2:]], 3))],
    "gradient-mode": [lambda net, x: net(x) * (2 if torch.is_grad_enabled() else 1)],
    "secant": [sawtooth, side_path, lambda net, x: net(Scrambled.apply(x))],
    "saturation": [lambda net, x: 1e4 * net(x), lambda net, x: 1e-6 * net(x)],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, some in PLANTED.items() for i in range(len(some))]
)
def test_a_model_that_misleads_is_found(name, number, net, images, found):
    model = Around(net, PLANTED[name][number])
    labels = model(images[0]).argmax(1)
    (finding, *_) = found(CHECKS.build(Spec(name)), model, labels)
    assert finding.check == name
    assert finding.of <= 32
    assert finding.images > 0


@pytest.mark.parametrize("steepness", [30, 1e6])
def test_another_net_for_images_that_no_file_holds_is_found(steepness, net, images):
    """The switch has a steep slope, which no gradient shows, or none."""

    def switched(net, x):
        off = (255 * x - (255 * x).round()).abs().flatten(1).mean(1, keepdim=True).detach()
        share = torch.sigmoid(steepness * (off - 0.15))
        return net(x) * (1 - share) + 0.5 * net(x.flip(-1)) * share

    x = (255 * images[0]).round() / 255
    model = Around(net, switched)
    (finding,) = CHECKS.build(Spec("path")).look(probe_of(model, x, model(x).argmax(1)))
    assert finding.value < 0.9


@pytest.mark.parametrize("name", ["secant", "path"])
def test_a_rejection_without_a_gradient_is_no_class_to_compare(name, net, images):
    """Of a detector that lets no gradient through another check tells."""

    def rejecting(net, x):
        z = net(x)
        return torch.cat([z, z.amax(1, keepdim=True).detach() + 1], 1)

    x, _ = images
    model = ModelWithRejectClass(Around(net, rejecting), 5, 5).eval()
    probe = probe_of(model, x, net(x).argmax(1))
    assert not list(CHECKS.build(Spec(name)).look(probe))


def test_gradients_are_compared_where_attacks_ended(net, images):
    """They turn around at images that are farther from the clean ones than random starts are."""
    x, _ = images

    def turned(net, z):
        apart = torch.cdist(z.detach().flatten(1), x.flatten(1), p=1).min(1).values / 16
        moved = 1.0 * z
        if moved.requires_grad:
            sign = torch.where(apart > 0.075, -1, 1).view(-1, 1, 1, 1)
            moved.register_hook(lambda grad: sign * grad)
        return net(moved)

    model = Around(net, turned)
    before = probe_of(model, x, model(x).argmax(1))
    corners = (x + 0.1 * torch.randn_like(x).sign()).clamp(0, 1)
    secant = CHECKS.build(Spec("secant"))
    assert not list(secant.look(before))
    (finding,) = secant.look(replace(before, ends=corners))
    assert "where attacks ended" in finding.message


def test_kinks_of_a_net_that_hardly_moves_are_not_taken_for_another_net(net, images):
    def kinked(net, x):
        return net(x.mean() + 0 * x).detach() + 0.2 * (x - 0.5).abs().flatten(1)[:, :5]

    x, _ = images
    model = Around(net, kinked)
    model.bias = 3 * torch.eye(5)[0]
    probe = probe_of(Around(model, lambda m, x: m(x) + m.bias), x, torch.zeros(32, dtype=int))
    assert not list(CHECKS.build(Spec("path")).look(probe))


@pytest.mark.parametrize("make", [cached, counted])
def test_a_model_with_a_memory_is_found(make, net, images, found):
    """The copy shares what a closure keeps, so the model is built anew."""
    x, y = images
    fresh = lambda: Around(net, make()).eval()  # noqa: E731
    probe = replace_copy(fresh(), x, y, fresh)
    (finding,) = CHECKS.build(Spec("memory")).look(probe)
    assert finding.severity == "error"
    assert finding.clean


def replace_copy(model, x, y, fresh):
    return replace(probe_of(model, x, y), copy=fresh, random=False)


def test_a_memory_inside_the_model_is_found_by_a_copy_in_memory(net, images, found):
    class Recent(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = net, []

        def forward(self, x):
            self.seen.append(float(x.detach().mean()))
            return self.net(x + 0.01 * len(self.seen))

    x, y = images
    probe = replace(probe_of(Recent(), x, y), random=False)
    (finding,) = CHECKS.build(Spec("memory")).look(probe)
    assert finding.check == "memory"


@pytest.mark.parametrize("check", OF_MODELS, ids=lambda check: CHECKS.name_of(check))
def test_a_plain_net_is_not_marked(check, net, found, digits_model):
    assert found(check, net.eval()) == []
    model, (x, y) = digits_model[0], digits_model[1:]
    model = model.eval()
    probe = probe_of(model, x[:32], y[:32], attacks=("pgd20", "cw20", "apgd-dlr", "autoattack"))
    assert list(check.look(probe)) == []


def test_log_probabilities_are_only_mentioned(net, found):
    (finding,) = found(
        CHECKS.build(Spec("outputs")), Around(net, lambda net, x: net(x).log_softmax(1))
    )
    assert finding.severity == "info"


def test_batchnorm_of_the_batch_s_statistics_is_found(net, images, found):
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    (finding,) = found(CHECKS.build(Spec("neighbours")), nn.Sequential(norm, net))
    assert finding.severity == "error"
    assert finding.clean
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    with pytest.raises(UserError, match="cannot classify an image alone"):
        found(CHECKS.build(Spec("neighbours")), nn.Sequential(nn.Flatten(), norm, net))


def test_a_module_that_stays_in_training_mode_is_named(net, found):
    class Stubborn(nn.Dropout):
        def train(self, mode=True):
            return super().train(True)

    (finding,) = found(CHECKS.build(Spec("evaluation-mode")), nn.Sequential(Stubborn(0.0), net))
    assert finding.severity == "error"
    assert "(0)" in finding.message


def test_a_gradient_that_is_not_a_number_is_found_in_every_attack(net, images, found):
    x, _ = images
    model = Around(net, lambda net, x: net(((x > 0.5) * x).sqrt() ** 2))
    (finding,) = found(CHECKS.build(Spec("zero-gradient")), model, model(x).argmax(1))
    assert "NaN" in finding.message
    assert finding.attacks == []


def test_saturated_logits_mark_the_attacks_whose_own_loss_vanishes(net, images, found):
    model = Around(net, lambda net, x: 1e4 * net(x))
    attacks = ("pgd20", "cw20", "apgd-dlr", "autoattack", "square100", "mim")
    findings = found(CHECKS.build(Spec("zero-gradient")), model, attacks=attacks)
    assert {label for each in findings for label in each.attacks} == {"pgd20", "mim"}


def test_no_registered_attack_is_taken_for_one_without_a_gradient(digits_model):
    """The first pass of feaatt only reads a target image's features, and has no gradient."""
    model, x, y = digits_model[0].eval(), *digits_model[1:]
    probe = probe_of(model, x[:8], y[:8], attacks=tuple(ATTACKS.names()))
    assert "feaatt" in probe.stages
    assert list(CHECKS.build(Spec("zero-gradient")).look(probe)) == []


def test_only_images_that_are_attacked_count_for_the_gradient(net, images, found):
    x, _ = images
    bright = x.mean((1, 2, 3)) > 0.5

    def flat(net, x):
        keep = (x.mean((1, 2, 3)) > 0.5)[:, None, None, None]
        return net(torch.where(keep, 0.0, x)) + 0 * x.sum()

    check, model = CHECKS.build(Spec("zero-gradient")), Around(net, flat)
    right = model(x).argmax(1)
    (finding,) = found(check, model, right, threat=Threat("Linf", 1e-4))
    assert (finding.images, finding.of) == (int(bright.sum()), 32)
    wrong = torch.where(bright, (right + 1) % 5, right)
    assert found(check, model, wrong, threat=Threat("Linf", 1e-4)) == []


def test_a_declared_surrogate_is_no_secant_finding(net, images, found):
    model = nn.Sequential(bpda(lambda x: (x * 4).round() / 4), net)
    labels = model(images[0]).argmax(1)
    assert found(CHECKS.build(Spec("secant")), model, labels) == []


@pytest.mark.parametrize(
    ("expects", "said"),
    [
        (lambda net, x: net((x - 0.5) / 0.5 * 3), None),
        (lambda net, x: net(x / 255), "scaled to [0, 255]"),
        (lambda net, x: net((x * 0.3081) + 0.1307), "mean and std of MNIST"),
    ],
)
def test_inputs_on_another_scale_are_found(expects, said, digits_model):
    model, x, y = digits_model
    check = CHECKS.build(Spec("input-scale"))
    found = list(check.look(probe_of(Around(model.eval(), expects), x[:32], y[:32])))
    if said and found:
        assert said in found[0].message
    assert all(each.severity == "error" for each in found)


def test_looking_changes_nothing(net, found):
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for check in OF_MODELS:
        found(check, net)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.autograd._engine_run_backward.__module__.startswith("torch")


def test_tiny_differences_between_passes_are_no_randomness(net, images):
    def jitter(scale):
        return Around(net, lambda net, x: net(x) * (1 + scale * torch.rand(1)))

    x, _ = images
    # A common factor does not count: only the direction of the logits does.
    assert not randomised(jitter(0.1), x)
    assert not randomised(Around(net, lambda net, x: net(x) + 1e-7 * torch.randn(len(x), 5)), x)
    assert randomised(Around(net, lambda net, x: net(x) + 1e-2 * torch.randn(len(x), 5)), x)


@pytest.mark.parametrize("check", EVERY, ids=lambda check: CHECKS.name_of(check))
def test_every_check_says_what_it_is(check):
    """Its source, what it says, and where each threshold comes from."""
    cls = type(check)
    assert inspect.getdoc(cls)
    assert inspect.getdoc(inspect.getmodule(cls))
    assert cls.says
    assert cls.severity in ("info", "warning", "error")
    assert cls.passes >= 0
    assert all(each.meaning for each in parameters(cls)), "a threshold without its reason"
    assert len(parameters(cls)) == len(fields(cls))


def test_chance_is_told_from_memory(net, images):
    """Both answer differently from pass to pass; only one of them depends on what it was shown."""
    x, y = images
    memory = CHECKS.build(Spec("memory"))
    noisy = Around(net, lambda net, x: net(x + 0.05 * torch.randn_like(x)))
    assert probe_of(noisy, x, y).random
    assert list(memory.look(probe_of(noisy, x, y))) == []

    def drifting():
        mean = torch.zeros_like(x[0])

        def forward(net, x):
            mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
            return net(x - mean)

        return Around(net, forward).eval()

    probe = replace(probe_of(drifting(), x, y), copy=drifting)
    assert probe.random
    (finding,) = memory.look(probe)
    assert finding.severity == "error"


def test_a_plain_net_costs_what_the_checks_say(digits_model):
    """Each answer is asked for once, whichever check needs it, and every pass is counted."""
    model, x, y = digits_model[0].eval(), *digits_model[1:]
    shown = []
    handle = model.register_forward_pre_hook(lambda _, images: shown.append(len(images[0])))
    probe = replace(probe_of(model, x, y), random=False)  # its copies keep the hook
    shown.clear()
    assert not [finding for check in OF_MODELS for finding in check.look(probe)]
    handle.remove()
    stages = probe.stages["pgd20"]
    forwards, backwards = probe.cost
    assert forwards == sum(shown)
    allowed = sum(check.cost(stages) for check in OF_MODELS) * len(x) + REPEATED
    assert forwards + backwards <= allowed


def test_no_attack_is_asked_twice_for_its_first_gradient(digits_model):
    """A sweep has the same attack at every radius."""
    model, x, y = digits_model[0].eval(), *digits_model[1:]
    probe = probe_of(model, x, y)
    once = probe.stages["pgd20"]
    check, costs = CHECKS.build(Spec("zero-gradient")), []
    for stages in ({"a": once}, {"a": once, "b": list(once)}):
        some = replace(probe, stages=stages, _copies=[])
        assert list(check.look(some)) == []
        costs.append(some.cost)
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    "change",
    [
        centred,
        lambda net, x: net(x + 0.05 * torch.randn_like(x)),
        lambda net, x: net(x) * (2 if torch.is_grad_enabled() else 1),
    ],
    ids=["coupled", "random", "another answer with a gradient"],
)
def test_answers_that_change_are_not_steady(change, net, images):
    assert probe_of(net.eval(), *images).steady
    assert not replace(probe_of(Around(net, change).eval(), *images), random=False).steady


def test_a_memory_is_not_steady_even_on_two_images(net, images):
    fresh = lambda: Around(net, cached()).eval()  # noqa: E731
    x, y = (each[:2] for each in images)
    assert not replace_copy(fresh(), x, y, fresh).steady


def test_the_start_lies_off_the_border_and_in_the_ball(net):
    x = torch.tensor([0.0, 0.02, 0.98, 1.0]).repeat(8, 1, 4, 1)
    probe = probe_of(net, x, torch.zeros(8, dtype=torch.long))
    assert bool(LINF.inside(probe.start, x).all())
    step = float(probe.pixel_step(0.125)[0])
    assert step == pytest.approx(0.0125)
    assert float(probe.start.min()) >= step
    assert float(probe.start.max()) <= 1 - step + 1e-6
