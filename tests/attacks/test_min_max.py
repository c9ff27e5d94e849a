"""Min-max over domains: against the formulas written straight down, and at its limits."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.joint import Groups, Joint, JointVerdicts, JointVerifier
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.stages import run_stages
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.transforms.identity import Identity

THREAT = Threat("Linf", 0.1)


class Data:
    """Images and labels in memory."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def images(self, rows):
        return self.x[rows]

    def expect(self, rows):
        pass


def net(seed):
    """A small smooth net in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Softplus(), nn.Linear(16, 4)).double()


def built(**params):
    return ATTACKS.build(Spec("min-max", {"start": "clean", **params}))


def fool(models, batch, *, threat=THREAT, early_stop=True, **params):
    """Images by row, and the answers."""
    data, joint = Groups(Data(*batch), 1, len(models)), Joint(models, [Identity()])
    answers, images = JointVerdicts.of(*data.y.shape), {}
    with unchanged_model(joint):
        context = EvalContext(
            data=data,
            threat=threat,
            verifier=JointVerifier(joint),
            search_model=SearchModel(model=joint),
            noise=Noise(0, torch.arange(len(data.y))),
            slots=4,
            early_stop=early_stop,
        )
        stages = built(**params).stages(threat, 4)
        everyone = torch.ones(len(data.y), dtype=torch.bool).numpy()
        for progress in run_stages(stages, answers, everyone, context, context.search_model):
            images |= dict(zip(progress.found.rows.tolist(), progress.found.x, strict=True))
    return torch.stack([images[row] for row in range(len(data.y))]), answers.arrays


def projected(v):
    """Onto the simplex, by bisection on what is taken off every entry."""
    low, high = v.min(1, keepdim=True).values - 1, v.max(1, keepdim=True).values
    for _ in range(100):
        middle = (low + high) / 2
        fits = (v - middle).clamp(min=0).sum(1, keepdim=True) > 1
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return (v - high).clamp(min=0)


def written_out(models, x, y, *, steps, gamma, beta, alpha):
    """Section 3 of the paper, line by line: the image descends, then the weights climb."""
    x_adv, w = x.clone(), torch.full((len(x), len(models)), 1 / len(models)).double()

    def losses(at):
        columns = []
        for model in models:
            z = model(at)
            true = z.gather(1, y[:, None])
            other = z.masked_fill(nn.functional.one_hot(y, 4).bool(), -1e9).amax(1, keepdim=True)
            columns.append((true - other + 50).clamp(min=0))
        return torch.cat(columns, 1)

    for _ in range(steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad((w * losses(x_adv)).sum(), x_adv)
        moved = x_adv - (grad / alpha if alpha else 0.25 * THREAT.eps * grad.sign())
        x_adv = (x + (moved - x).clamp(-THREAT.eps, THREAT.eps)).clamp(0, 1).detach()
        w = projected(w + (losses(x_adv).detach() - gamma * (w - 1 / len(models))) / beta)
    return x_adv, w


@pytest.mark.parametrize("alpha", [None, 4.0])
def test_image_and_weights_go_the_way_the_formulas_say(batch, alpha):
    models, knobs = [net(0), net(1), net(2)], {"steps": 12, "gamma": 2.0, "beta": 5.0}
    options = {"alpha": alpha} if alpha else {}
    found, arrays = fool(models, batch, early_stop=False, last_iterate=True, **knobs, **options)
    x_adv, w = written_out(models, *batch, **knobs, alpha=alpha)
    torch.testing.assert_close(found, x_adv, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.from_numpy(arrays["weights"]).double(), w, rtol=0, atol=1e-6)
    assert (w.amax(1) > 0.4).any()  # the weights did move


def test_one_domain_is_pgd(batch):
    model, noise = net(0), Noise(0, torch.arange(6))
    pgd = ATTACKS.build(Spec("pgd", {"steps": 50, "start": "clean", "climbs": "cw"}))
    found, arrays = fool([model], batch)
    plain = attack_batch(model, *batch, pgd, THREAT, noise)
    torch.testing.assert_close(found, plain.x, rtol=0, atol=0)
    assert (arrays["weights"] == 1).all()
    by_name = attack_batch(model, *batch, built(), THREAT, noise)  # as ``eval --attack min-max``
    torch.testing.assert_close(by_name.x, plain.x, rtol=0, atol=0)


def test_equal_models_keep_weights_alike_and_an_order_of_models_is_no_matter(batch):
    found, arrays = fool([net(0), net(0)], batch, early_stop=False)
    assert arrays["weights"] == pytest.approx(0.5, abs=1e-6)
    alone, _ = fool([net(0)], batch, early_stop=False)
    torch.testing.assert_close(found, alone, rtol=0, atol=0)
    models, order = [net(0), net(1), net(2)], [2, 0, 1]
    _, here = fool(models, batch, early_stop=False, steps=8)
    _, there = fool([models[i] for i in order], batch, early_stop=False, steps=8)
    assert there["weights"] == pytest.approx(here["weights"][:, order], abs=1e-6)


def test_a_huge_gamma_is_the_average_and_fixed_weights_choose(batch):
    models = [net(0), net(1)]
    average, arrays = fool(models, batch, weights="avg")
    assert (arrays["weights"] == 0.5).all()
    kept, _ = fool(models, batch, gamma=1e9, beta=1e12)
    torch.testing.assert_close(kept, average, rtol=0, atol=1e-9)
    same, _ = fool(models, batch, weights="0.5/0.5")
    torch.testing.assert_close(same, average, rtol=0, atol=0)
    only, arrays = fool(models, batch, weights="0/1", early_stop=False, last_iterate=True)
    second, _ = fool(models[1:], batch, early_stop=False, last_iterate=True)
    torch.testing.assert_close(only, second, rtol=0, atol=0)
    assert (arrays["weights"] == [0, 1]).all()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.6), ("L1", 3.0)])
def test_images_are_inside_and_fool_every_domain_where_they_fool_all(batch, norm, eps):
    models, (x, y) = [net(0), net(1), net(2)], batch
    threat = Threat(norm, eps)
    found, arrays = fool(models, batch, threat=threat)
    assert threat.inside(found, x).all()
    wrong = torch.stack([model(found).argmax(1) != y for model in models], 1)
    assert torch.equal(wrong.all(1), torch.from_numpy(arrays["by"]) >= 0)
    assert wrong.all(1).float().mean() <= wrong.float().mean(0).min()
    assert wrong.all(1).sum() > 0


def test_an_easy_and_a_hard_model_weigh_the_hard_one(batch):
    """A net whose logits lie further apart is as easy to fool, but its margin is the larger."""
    easy, hard = net(0), net(0)
    with torch.no_grad():
        hard[3].weight.mul_(20)
        hard[3].bias.mul_(20)
    _, arrays = fool([easy, hard], batch, threat=Threat("Linf", 0.002), early_stop=False)
    right = easy(batch[0]).argmax(1) == batch[1]
    assert (arrays["weights"][right.numpy(), 1] > 0.9).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": "0.5/0.3"}, "weights are shares of one, these sum to 0.8"),
        ({"weights": "-0.5/1.5"}, "weights are shares of one"),
        ({"weights": "worst"}, "expected min-max, avg, or shares .*, got 'worst'"),
        ({"gamma": 0}, "greater than 0"),
    ],
)
def test_mistakes_are_named(params, message):
    with pytest.raises(UserError, match=message):
        built(**params)


def test_there_are_as_many_weights_as_domains(batch):
    with pytest.raises(UserError, match="2 weights are given for 3 domains"):
        fool([net(0), net(1), net(2)], batch, weights="0.5/0.5")
