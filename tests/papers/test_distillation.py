"""Learning from other nets: logits small enough for a sheet of paper, in float64."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier

ATTACKED = [[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]]
"""What the student says to the attacked images; to the clean ones it says half of it."""
CLEAN = [[1.0, 0.5, 0.0], [0.0, 0.5, 1.5]]
TAUGHT = [[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]
"""What the teacher, or the natural net, says."""
OTHER = [[0.5, 0.0, 0.0], [0.0, 1.0, 2.0]]
"""What a second teacher says."""
TRUST = [0.8, 0.3]
Y = [0, 1]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def loss_of(text, inputs, natural=TAUGHT):
    """An objective's mean loss where nets hand their inputs through: those are the logits."""
    objective = Recipe.build(parse(text)).objective
    through = Classifier(nn.Identity(), nn.Identity(), nn.Identity())
    step = Step(
        model=through,
        x=natural if torch.is_tensor(natural) else tensor(natural),
        y=torch.tensor(Y),
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(2)),
        auxiliaries={type(objective).__name__: through},
    )
    return objective.loss(step, Passes(through, inputs)).mean()


def taught(text):
    known = {"adv": ATTACKED, "clean": CLEAN, "taught": TAUGHT, "trust": TRUST}
    known |= {"robust": TAUGHT, "natural": OTHER}
    return loss_of(text, {name: tensor(values) for name, values in known.items()}).item()


def shares(row, temperature=1.0):
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def kl(target, logits, temperature=1.0):
    """KL(target || logits) of two rows."""
    p, q = shares(target, temperature), shares(logits, temperature)
    return sum(p[k] * math.log(p[k] / q[k]) for k in range(3))


def over_rows(term):
    """The mean of a term over the two examples."""
    return sum(map(term, range(2))) / 2


def entropy(logits, i):
    return -math.log(shares(logits[i])[Y[i]])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rslad:variant=paper", 0.2370312),
        ("rslad", 0.0790104),
        ("ard:temperature=1,variant=paper", 0.2672574),
        ("ard:temperature=1", 0.0890858),
        ("ard:variant=paper", 0.2263715),
        ("ard", 0.0754572),
    ],
)
def test_values_worked_out_by_hand(text, value):
    assert taught(text) == pytest.approx(value, abs=1e-7)


def test_a_hot_ard_compares_centred_logits():
    """T^2 KL tends to their squared distance over twice the number of classes."""
    assert taught("ard:temperature=1e4,variant=paper") == pytest.approx(2 / 9, rel=1e-4)


def test_rslad_s_code_adds_a_constant():
    """Its entropy term has log(p + 1e-5): no gradient comes of it."""
    rows = [shares(row) for row in TAUGHT]
    more = sum(p * (math.log(p + 1e-5) - math.log(p)) for row in rows for p in row) / 6
    assert taught("rslad") + more == pytest.approx(0.0790204, abs=1e-7)


def test_rslad_weighs_attacked_and_clean_images():
    expected = over_rows(
        lambda i: 0.25 * kl(TAUGHT[i], ATTACKED[i]) + 0.75 * kl(TAUGHT[i], CLEAN[i])
    )
    assert taught("rslad:weight=1/4,variant=paper") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("classes", "divisor"), [(3, 3), (10, 10), (100, 10)])
def test_rslad_s_code_divides_by_ten_on_cifar_100_too(classes, divisor):
    torch.manual_seed(0)
    draw = {name: torch.randn(2, classes).double() for name in ("adv", "clean", "taught")}
    paper, code = (loss_of(f"rslad:variant={v}", draw) for v in ("paper", "code"))
    assert code.item() == pytest.approx(paper.item() / divisor)


def test_ard_shares_with_the_criterion():
    expected = over_rows(
        lambda i: 0.7 * 25 * kl(TAUGHT[i], ATTACKED[i], 5) / 3 + 0.3 * entropy(CLEAN, i)
    )
    assert taught("ard:alpha=0.7,temperature=5") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_iad_trusts_in_part(variant):
    def term(i):
        first = TRUST[i] if variant == "paper" else 1
        own = (1 - TRUST[i]) * kl(CLEAN[i], ATTACKED[i])
        return 0.9 * (first * 4 * kl(TAUGHT[i], ATTACKED[i], 2) + own) + 0.1 * entropy(CLEAN, i)

    text = f"iad:alpha=0.9,temperature=2,variant={variant}"
    assert taught(text) == pytest.approx(over_rows(term), abs=1e-12)


def test_akd2_has_two_teachers_and_the_label():
    def term(i):
        robust, natural = kl(TAUGHT[i], ATTACKED[i], 2), kl(OTHER[i], ATTACKED[i], 2)
        return 0.3 * entropy(ATTACKED, i) + 4 * (0.6 * robust + 0.1 * natural)

    text = "akd2:robust=0.6,natural=0.1,temperature=2"
    assert taught(text) == pytest.approx(over_rows(term), abs=1e-12)


def test_iad_ii_trusts_the_robust_teacher_in_part():
    def term(i):
        robust, own = kl(TAUGHT[i], ATTACKED[i]), kl(CLEAN[i], ATTACKED[i])
        guided = TRUST[i] * robust + (1 - TRUST[i]) * own
        rest = 0.25 * entropy(ATTACKED, i) + 0.25 * kl(OTHER[i], ATTACKED[i])
        return rest + 0.5 * guided

    assert taught("iad-ii") == pytest.approx(over_rows(term), abs=1e-12)


def test_bgat_is_the_mean_squared_difference():
    robust = tensor(ATTACKED)
    loss = loss_of("bgat", {"adv": robust, "taught": tensor(TAUGHT)})
    (grad,) = torch.autograd.grad(loss, robust)
    assert loss.item() == pytest.approx((1 + 1 + 1) / 6)
    torch.testing.assert_close(grad, tensor([[1 / 3, 0, 0], [0, -1 / 3, 1 / 3]]).detach())


def guided(text):
    """Loss and gradients for the attacked, clean and natural logits."""
    logits = [tensor(rows) for rows in (ATTACKED, CLEAN, TAUGHT)]
    loss = loss_of(text, {"adv": logits[0], "clean": logits[1]}, natural=logits[2])
    return loss.item(), torch.autograd.grad(loss, logits, materialize_grads=True)


def test_lbgat_teaches_both_nets():
    loss, (robust, clean, natural) = guided("lbgat")
    assert loss == pytest.approx(1.3103092, abs=1e-7)
    pull = torch.tensor([[1 / 3, 0, 0], [0, -1 / 3, 1 / 3]]).double()
    labels = [[-0.622174, 0.211159, 0.077681], [0.031689, 0.067489, -0.099178]]
    torch.testing.assert_close(robust, pull)
    torch.testing.assert_close(natural, torch.tensor(labels).double(), rtol=0, atol=1e-6)
    assert not clean.any()
    # What the distance does to one net it does to the other, the other way round.
    right = torch.eye(3)[Y]
    criterion = (torch.tensor([shares(row) for row in TAUGHT]).double() - right) / 2
    torch.testing.assert_close(natural, criterion - pull)


def test_lbgat_trades_adds_the_kl_between_clean_and_attacked():
    plain, (robust, _, natural) = guided("lbgat")
    none, same = guided("lbgat0")
    assert none == plain
    torch.testing.assert_close(same[0], robust)
    six, (_, clean, still) = guided("lbgat6")
    assert six - plain == pytest.approx(0.6429770, abs=1e-7)
    assert clean.any()
    torch.testing.assert_close(still, natural)


def test_lbgat_alp_adds_the_distance_between_clean_and_attacked():
    plain, _ = guided("lbgat")
    paired, (_, clean, _) = guided("lbgat-alp:alpha=2")
    squares = [sum((z / 2) ** 2 for z in row) / 3 for row in ATTACKED]
    assert paired - plain == pytest.approx(2 * sum(squares) / 2)
    torch.testing.assert_close(clean, tensor(CLEAN).detach() * (-2 * 2 / 6))
