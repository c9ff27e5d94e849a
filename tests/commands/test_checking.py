"""Whole evaluations of models that mislead: what is found, and how far each number is trusted."""

import itertools
import json

import pytest
import torch
from torch import nn

from robustbench_cli import Threat, evaluate
from robustbench_cli.audit import CHECKS, BatteryCheck, _budget
from robustbench_cli.cli import main
from robustbench_cli.evaluation import search_choice

EPS = Threat("Linf", 0.12)
PLAIN = """
import torch
from pathlib import Path
from torch import nn

WHOLE_CONTROL = True


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.load(Path(__file__).with_name("net.pt"), weights_only=False)

    def forward(self, x):
        return self.net(x)
"""


class Around(nn.Module):
    def __init__(self, net, forward):
        super().__init__()
        self.net, self.change = net, forward

    def forward(self, x):
        return self.change(self.net, x)


@pytest.fixture
def net(digits_model):
    return digits_model[0]


def judged(model, digits_model, attacks, **options):
    _, x, y = digits_model
    return evaluate(model, x, y, attacks=attacks, threat=EPS, **options)


def checks_of(result):
    return {each.check for each in result.findings if each.severity != "info"}


def test_a_plain_net_is_sound(net, digits_model):
    result = judged(net, digits_model, ["fgsm", "pgd20", "square100"])
    assert result.trust == {"fgsm": "sound", "pgd20": "sound", "square100": "sound"}
    assert (result.clean_trust, result.worst_case_trust) == ("sound", "sound")
    checked = result.record.checked
    every = {name: CHECKS.entry(name).cls for name in CHECKS.names()}
    assert checked.names == [n for n, cls in every.items() if not issubclass(cls, BatteryCheck)]
    assert 0 < checked.forwards < 5000
    assert result.record.control is None  # Square is a control already


def test_logits_too_large_for_the_attack_s_own_loss(net, digits_model):
    model = Around(net, lambda net, x: 1e4 * net(x))
    result = judged(model, digits_model, ["pgd20", "apgd-ce", "mim", "cw20", "apgd-dlr"])
    assert result.trust["pgd20"] == result.trust["apgd-ce"] == result.trust["mim"] == "upper bound"
    assert result.robust_accuracy["pgd20"] > result.robust_accuracy["apgd-dlr"]


def test_gradients_that_are_no_numbers(net, digits_model):
    model = Around(net, lambda net, x: net(x.sqrt() ** 2))
    result = judged(model, digits_model, "pgd20")
    assert result.trust == {"pgd20": "upper bound"}
    (finding,) = (each for each in result.findings if each.check == "zero-gradient")
    assert "NaN" in finding.message


def test_neighbours_in_the_batch(net, digits_model, monkeypatch):
    monkeypatch.setattr(search_choice, "TRIAL_PAYS", 0)
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), net)
    result = judged(model, digits_model, "pgd20", batch_size=7)
    assert result.trust == {"pgd20": "withheld"}
    assert result.clean_trust == "withheld"
    assert result.record.search == "float32"  # no other model was tried
    assert "neighbours" in checks_of(result)


def test_a_cache_of_answers(net, digits_model):
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.known = net, []

        def forward(self, x):
            answers = []
            for image, logits in zip(x, self.net(x), strict=True):
                near = (a for i, a in self.known if float((i - image.detach()).abs().max()) < 0.3)
                found = next(near, None)
                if found is None:
                    self.known.append((image.detach(), logits.detach()))
                answers.append(logits if found is None else found + 0 * logits)
            return torch.stack(answers)

    result = judged(Caching(), digits_model, "pgd5")
    assert result.trust == {"pgd5": "withheld"}
    assert "memory" in checks_of(result)
    # Fresh copies are attacked, so what stands in the record is true of the net behind the cache.
    plain = judged(net, digits_model, "pgd5")
    assert result.record.attacks["pgd5"].correct == plain.record.attacks["pgd5"].correct


def test_a_model_that_changes_after_many_calls_is_found_at_the_end(net, digits_model):
    class Patient(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = net, itertools.count()

        def forward(self, x):
            logits = self.net(x)
            return logits if next(self.calls) < 60 else logits.roll(1, 1)

    result = judged(Patient(), digits_model, ["pgd20", "cw20"])
    assert "withheld" in result.trust.values()
    assert checks_of(result) & {"replay", "memory"}


@pytest.mark.parametrize(
    "change",
    [
        lambda net, x: net(x + 0.02 * (x * 300).sin()),
        lambda net, x: net(x).detach() + 1e-3 * (x.flatten(1)[:, :10] - x.flatten(1)[:, 10:20]),
    ],
    ids=["sawtooth", "side path"],
)
def test_gradients_that_exist_and_are_useless(change, net, digits_model):
    result = judged(Around(net, change), digits_model, "pgd20")
    assert result.trust == {"pgd20": "upper bound"}
    assert "secant" in checks_of(result)


class Cached(nn.Module):
    """The answer to the first image seen within two radii."""

    def __init__(self, net):
        super().__init__()
        self.net, self.known = net, []

    def forward(self, x):
        logits = self.net(x)
        answers = logits.detach().clone()
        for row, image in enumerate(x.detach()):
            near = (a for i, a in self.known if float((i - image).abs().max()) < 0.241)
            if (found := next(near, None)) is None:
                self.known.append((image.clone(), answers[row].clone()))
            else:
                answers[row] = found
        return logits + (answers - logits).detach()


@pytest.fixture
def dear(monkeypatch):
    """Passes are dear, as those of a large net: there is no half second of arithmetic."""
    monkeypatch.setattr(_budget, "SECONDS", 0.0)


def share_of(checked, passes):
    return (checked.forwards + checked.backwards) / passes


def test_checks_of_a_large_net_are_a_small_part_of_the_passes(dear, net, digits_model):
    _, x, y = digits_model
    many = x.repeat(20, 1, 1, 1), y.repeat(20)
    record = evaluate(net, *many, attacks="pgd20", threat=EPS).record
    attack = record.attacks["pgd20"]
    passes = attack.forwards + attack.backwards + len(many[0])
    assert record.attacks["pgd20"].trust == "sound"
    assert share_of(record.checked, passes) <= 0.03
    few = judged(net, digits_model, "pgd20").record
    assert few.checked.images == 2 * _budget.FEWEST
    assert share_of(few.checked, 40 * len(x)) < 0.1


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (Cached, "withheld"),
        (lambda net: Around(net, lambda net, x: net((x * 5).round() / 5)), "upper bound"),
        (
            lambda net: Around(
                net,
                lambda net, x: (
                    net(x).detach() + 1e-3 * (x.flatten(1)[:, :10] - x.flatten(1)[:, 10:20])
                ),
            ),
            "upper bound",
        ),
    ],
    ids=["cached answers", "quantiser", "detached path"],
)
def test_a_large_net_that_misleads_is_found_on_few_images(dear, make, state, net, digits_model):
    result = judged(make(net), digits_model, "pgd20")
    assert result.trust == {"pgd20": state}
    assert all(each.of > _budget.FEWEST for each in result.findings if each.severity != "info")


def test_what_a_look_at_few_images_suspects_is_looked_at_again(dear, net, digits_model):
    """One image of the first two jumps, and no other: that is no reason to mark a number."""
    _, x, _ = digits_model
    first = x[0].clone()

    def jumping(net, images):
        apart = (images - first).detach().abs().amax((1, 2, 3))
        return net(images) + ((apart > 0) & (apart < 1e-3))[:, None] * torch.arange(10.0)

    result = judged(Around(net, jumping), digits_model, "pgd20")
    assert "jumps" not in checks_of(result)


def test_attacks_side_by_side_are_compared_example_by_example(net, digits_model):
    """Square breaks what gradients missed; neither attack belongs to the other."""
    model = Around(net, lambda net, x: net((x * 6).round() / 6) + 0 * x.sum())
    result = judged(model, digits_model, ["pgd20", "square300"])
    (finding,) = (each for each in result.findings if each.check == "black-box")
    extra = result.broken["square300"] & ~result.broken["pgd20"]
    assert finding.images == extra.sum()


def test_a_model_at_chance(net, digits_model):
    _, x, y = digits_model
    model = Around(net, lambda net, x: net(x).roll(1, 1))
    result = evaluate(model, x.repeat(2, 1, 1, 1), y.repeat(2), attacks="fgsm", threat=EPS)
    (finding,) = (each for each in result.findings if each.check == "chance")
    assert "normalisation" in finding.message
    assert result.trust == {"fgsm": "withheld"}
    assert result.clean_trust == "withheld"


def test_one_answer_to_two_dozen_images(net, digits_model):
    _, x, y = digits_model
    model = Around(net, lambda net, x: net(x) * 1e-3 + 9 * torch.eye(10)[3])
    result = evaluate(model, x[:24], y[:24], attacks="fgsm", threat=EPS)
    assert {"one-answer", "chance"} <= checks_of(result)
    assert (result.trust, result.clean_trust) == ({"fgsm": "withheld"}, "withheld")


def test_a_mis_set_model_has_no_clean_accuracy_and_is_attacked_as_ever(digits_model, monkeypatch):
    """Its images are in another range, but its answers depend on nothing else."""

    monkeypatch.setattr(search_choice, "TRIAL_PAYS", 0)
    _, x, y = digits_model
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    net = nn.Sequential(net, nn.Linear(288, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(255 * x), y).backward()
        optimizer.step()
    result = judged(net.eval(), digits_model, "fgsm")
    assert "input-scale" in checks_of(result)
    assert (result.trust, result.clean_trust) == ({"fgsm": "withheld"}, "withheld")
    assert ":" in result.record.search  # other models were tried, as for any model


def test_the_control_is_no_part_of_any_number(net, digits_model):
    model = Around(net, lambda net, x: net((x * 6).round() / 6) + 0 * x.sum())
    with_checks = judged(model, digits_model, "pgd20")
    without = judged(model, digits_model, "pgd20", checks=False)
    control = with_checks.record.control
    assert control.n > control.correct
    assert set(control.broken_by) == set(control.stages)
    assert with_checks.record.attacks["pgd20"].correct == without.record.attacks["pgd20"].correct
    assert without.trust == {"pgd20": "unchecked"}
    assert without.record.checked is without.record.control is None


def test_checks_do_not_depend_on_the_batch_size(net, digits_model):
    model = Around(net, lambda net, x: net(x + 0.02 * (x * 300).sin()))
    one, other = (judged(model, digits_model, "pgd5", batch_size=size) for size in (5, 64))
    assert [f.check for f in one.findings] == [f.check for f in other.findings]
    assert one.record.control.broken_by == other.record.control.broken_by


def test_a_file_is_run_again_for_a_fresh_copy(tmp_path, net):
    """A copy in memory would share the cache, which is a global of the file."""
    torch.save(net, tmp_path / "net.pt")
    (tmp_path / "caching.py").write_text(
        PLAIN
        + """
KNOWN = {}


class Caching(Around):
    def forward(self, x):
        logits = super().forward(x)
        keys = [tuple((image * 4).round().flatten().tolist()) for image in x.detach()]
        kept = [KNOWN.setdefault(key, one.detach()) for key, one in zip(keys, logits, strict=True)]
        return torch.stack(kept) + 0 * logits
"""
    )
    model = f"{tmp_path / 'caching.py'}:Caching"
    out = ["--out", str(tmp_path / "r"), "--name", "e", "--quiet"]
    args = ["--dataset", "digits", "--attack", "pgd5", "--n", "40", "--eps", "0.12"]
    assert main(["eval", "--model", model, *args, *out]) == 0
    record = json.loads((tmp_path / "r/e/run.json").read_text())
    assert record["attacks"]["pgd5"]["trust"] == "withheld"
    assert "memory" in {each["check"] for each in record["findings"]}


def test_an_attack_that_fails_when_it_may_do_more(tmp_path, net):
    """A model that knows the images puts those back that were moved far, and no others."""
    torch.save(net, tmp_path / "net.pt")
    (tmp_path / "plain.py").write_text(
        PLAIN
        + """
from sklearn.datasets import load_digits

KNOWN = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]


class Retreating(Around):
    def forward(self, x):
        nearest = KNOWN[torch.cdist(x.detach().flatten(1), KNOWN.flatten(1)).argmin(1)]
        far = (x - nearest).detach().abs().amax((1, 2, 3), keepdim=True) > 0.15
        return self.net(torch.where(far, nearest + 0 * x, x))
"""
    )
    out = ["--out", str(tmp_path / "r"), "--quiet", "--dataset", "digits", "--n", "60"]
    found = {}
    for name in ("Around", "Retreating"):
        model = ["--model", f"{tmp_path / 'plain.py'}:{name}", "--name", name]
        sweep = ["--sweep", "eps=0.12,0.3", "--attack", "pgd:steps=10,step=1,start=clean"]
        assert main(["eval", *model, *sweep, *out]) == 0
        record = json.loads((tmp_path / f"r/{name}/run.json").read_text())
        found[name] = [f for f in record["findings"] if f["check"] == "rising"]
    assert not found["Around"]
    (finding,) = found["Retreating"]
    assert len(finding["attacks"]) == 2
    assert finding["severity"] == "warning"
