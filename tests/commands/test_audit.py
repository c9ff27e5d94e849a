"""Whole audits on real digits: what they leave in the record, and how they go on."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.audit import stronger
from robustbench_cli.audit.self_test import SelfTest
from robustbench_cli.commands import audit_battery
from robustbench_cli.commands.audit import run_audit
from robustbench_cli.commands.audit_claim import grade_claim
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError
from robustbench_cli.models.weights import digest
from robustbench_cli.report.audit_card import threat_card
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs import folders, records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}


def request(out, net, attack="pgd5", n=16, eps=0.1):
    typed = {"attack": chosen_attacks([attack], None, {}), "threat": {"eps": eps}, "n": n}
    return EvalRequest(
        subject=Subject(model=net, name="net", weights=digest(net)),
        config=resolve_eval_config(BASE, typed, []),
        workspace=Workspace(out=out, device="cpu"),
        command=["audit"],
    )


class Stop(Display):
    """Ctrl-C when an attack of this name starts."""

    def __init__(self, label):
        self.label = label

    def judging(self, label, n, what="robust accuracy"):
        if label.startswith(self.label):
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def quick_audits():
    """Leave out what takes most of the time: attacks of other tests, and a long training.

    Square stands for AutoAttack and the adaptive attack, and the self-test is of a few attacks;
    the plain net of the transfer check is trained for a moment.
    """
    tested = SelfTest._attacks
    kept = ("pgd5", "pgd20", "fgsm", "apgd-ce")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stronger, "STRONGER", {"square300": (False, True)})
        patch.setattr(audit_battery, "PLAIN_EPOCHS", 3)
        patch.setattr(
            SelfTest,
            "_attacks",
            lambda *args: {k: attack for k, attack in tested(*args).items() if k in kept},
        )
        yield


@pytest.fixture(scope="module")
def audited(tmp_path_factory, digits_model):
    out = tmp_path_factory.mktemp("audits")
    return records.read(run_audit(request(out, digits_model[0]), Display(), claim=0.5))


def test_an_audit_leaves_a_record_that_is_read_and_listed(audited):
    assert (audited.kind, audited.status) == ("audit", "ok")
    assert list(audited.attacks) == ["pgd5"]
    assert audited.audit.claim.attack == "pgd5"
    assert {"radius", "unbounded", "transfer"} <= {each.check for each in audited.audit.attacks}


def test_each_radius_is_attacked_anew_and_an_honest_net_falls(audited):
    grid = [each for each in audited.audit.attacks if each.check == "radius"]
    assert [each.eps for each in grid] == sorted(each.eps for each in grid)
    assert {each.tried for each in grid} == {round(audited.clean_accuracy * audited.n)}
    assert grid[-1].left == 0
    same = next(each for each in grid if each.same_radius)
    assert same.left == audited.attacks["pgd5"].robust_accuracy


def test_an_audit_that_was_interrupted_goes_on_and_ends_alike(audited, tmp_path, digits_model):
    with pytest.raises(KeyboardInterrupt):
        run_audit(request(tmp_path, digits_model[0]), Stop("transfer"), claim=0.5)
    (stopped,) = folders.every(tmp_path)
    assert stopped.status == "interrupted"
    run = records.read(run_audit(request(tmp_path, digits_model[0]), Display(), claim=0.5))
    assert run.id == stopped.id

    def plain(each):
        return replace(each, seconds=0)

    assert [*map(plain, run.audit.attacks)] == [*map(plain, audited.audit.attacks)]
    assert run.audit.measures == audited.audit.measures
    assert run.audit.claim == audited.audit.claim
    assert run.audit.curves == audited.audit.curves


def test_the_curve_of_the_claimed_attack_has_a_point_at_each_step(audited):
    curve = audited.audit.curves[0]
    assert curve.label.startswith("pgd5")
    assert curve.steps == list(range(6))
    assert curve.margins == sorted(curve.margins)
    assert curve.broken == sorted(curve.broken)


class Hidden(nn.Module):
    """A net behind a staircase: its answers change with the image, its gradient is zero."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x * 20).round() / 20 + 0 * x)


def test_a_masked_net_is_found_out_by_attacks_that_use_no_gradient(tmp_path, digits_model):
    out = tmp_path
    run = records.read(
        # So far away that images of a plain net break it, whatever weights a machine arrives at.
        run_audit(request(out, Hidden(digits_model[0]), n=24, eps=0.2), Display(), claim=0.95)
    )
    assert run.attacks["pgd5"].trust == "upper bound"
    assert run.audit.claim.grade == "overstated"
    assert run.audit.claim.left < run.attacks["pgd5"].robust_accuracy
    assert run.audit.claim.found_by in run.audit.claim.sentence
    found = {each.check for each in run.findings if each.severity == "warning"}
    assert {"zero-gradient", "unbounded", "binarization"} <= found
    with np.load(tmp_path / run.id / "audit.npz") as kept:
        assert (kept["label"] != kept["prediction"]).all()
        assert np.abs(kept["x_adv"] - kept["x"]).max() <= 0.2 + 1e-6


class Noisy(nn.Module):
    """A net that adds noise to its input, afresh at every call."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.15 * torch.randn_like(x))


def test_a_randomised_net_is_audited_to_the_end(tmp_path, digits_model):
    run = records.read(run_audit(request(tmp_path, Noisy(digits_model[0]), n=12), Display()))
    assert run.status == "ok"
    assert "randomness" in {each.check for each in run.findings}
    # What is mostly wrong when clean was broken by no attack.
    assert all(each.broken <= each.tried for each in run.audit.attacks)
    shares = [each.accuracy for each in run.findings if each.accuracy is not None]
    shares += [each.left for each in run.audit.attacks]
    assert all(0 <= share <= 1 for share in shares)


class Rejecting(nn.Module):
    """A net with an eleventh logit, which leads where the first two are close."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = self.net(x)
        return torch.cat([z, z.topk(2, 1).values[:, 1:] + 1], 1)


def test_what_is_rejected_counts_as_no_error_in_the_battery(tmp_path, digits_model):
    asked = request(tmp_path, Rejecting(digits_model[0]), attack="pgd20", n=24)
    asked = replace(asked, config=replace(asked.config, reject={"class": 10}))
    run = records.read(run_audit(asked, Display()))
    assert run.rejection.label == "reject class 10"
    assert run.attacks["pgd20"].rejected > 0
    # All images that the attack broke are errors that are not rejected, and so they are stored.
    assert "feasibility" not in {each.check for each in run.findings}
    assert "reject class 10" in threat_card(run)["goal"]


def test_two_attacks_and_impossible_claims_are_refused(tmp_path, digits_model):
    asked = request(tmp_path, digits_model[0])
    with pytest.raises(UserError, match="0 to 100"):
        run_audit(asked, Display(), claim=1.5)
    both = {"pgd5": {"name": "pgd"}, "fgsm": {"name": "fgsm"}}
    with pytest.raises(UserError, match="one attack"):
        run_audit(replace(asked, config=replace(asked.config, attack=both)), Display())


def graded(audited, claim, standing, **stronger):
    standing = np.arange(200) < standing
    shares = {label: standing & (np.arange(200) >= broken) for label, broken in stronger.items()}
    return graded_by_shares(audited, claim, standing * 1.0, **shares)


def graded_by_shares(audited, claim, own, **others):
    outcome = replace(
        audited.attacks["pgd5"], n=len(own), robust_accuracy=float(own.mean()), trust="sound"
    )
    run = replace(audited, attacks={"pgd5": outcome}, findings=[])
    return grade_claim(run, claim, own, {label: each * 1.0 for label, each in others.items()})


def test_a_claim_within_the_interval_is_reproduced(audited):
    claim = graded(audited, 0.55, standing=112)
    assert claim.grade == "reproduced"
    assert claim.low < 0.55 < claim.high


def test_a_claim_outside_the_interval_is_not(audited):
    high, low = (graded(audited, claim, standing=110) for claim in (0.70, 0.40))
    assert (high.grade, low.grade) == ("not reproduced", "not reproduced")
    assert "15.0 points lower" in high.sentence
    assert "15.0 points higher" in low.sentence


def test_the_same_images_show_smaller_differences_than_two_samples_would(audited):
    """Six of 200 images more are within the interval of either number, but they were broken."""
    claim = graded(audited, 0.55, standing=110, aa=6, weak=1)
    assert (claim.grade, claim.found_by) == ("overstated", "aa")
    assert claim.points == pytest.approx(3)


def test_attacks_that_break_different_images_count_together(audited):
    standing = np.arange(200) < 110
    shares = {"aa": standing & (np.arange(200) >= 6), "other": np.arange(200) < 104}
    claim = graded_by_shares(audited, 0.55, standing * 1.0, **shares)
    assert (claim.found_by, claim.left) == ("aa and other", 98 / 200)


def test_of_a_randomised_model_shares_are_compared_and_draws_explain_small_differences(audited):
    own = np.full(200, 0.6)
    alike = graded_by_shares(audited, 0.6, own, aa=own - 0.1)
    assert (alike.grade, alike.left) == ("reproduced", None)
    less = graded_by_shares(audited, 0.6, own, aa=own - 0.3)
    assert less.grade == "overstated"
    assert less.left == pytest.approx(0.3)


@pytest.mark.parametrize("claimed", [0.0, 0.5, 0.6])
def test_a_few_images_decide_nothing_and_it_is_said_how_many_would(audited, claimed):
    claim = graded_by_shares(audited, claimed, np.zeros(1))
    assert claim.grade == "undecided"
    enough = int(re.search(r"evaluate (\d+) ", claim.sentence)[1])
    low, high = wilson(claimed * enough, enough)
    assert high - low <= 0.2


def test_a_few_images_can_still_contradict(audited):
    assert graded_by_shares(audited, 0.95, np.zeros(5)).grade == "not reproduced"
    assert graded_by_shares(audited, 0.9, np.ones(9), aa=np.arange(9) < 3).grade == "overstated"


def test_one_image_more_is_what_converged_attacks_leave(audited):
    assert graded(audited, 0.55, standing=110, aa=1).grade == "reproduced"


def test_more_left_than_claimed_is_no_overstatement(audited):
    assert graded(audited, 0.50, standing=110, aa=6).grade == "reproduced"


def test_a_number_that_means_nothing_reproduces_nothing(audited):
    error = replace(
        audited.findings[0] if audited.findings else _finding(), severity="error", message="it lies"
    )
    outcome = replace(audited.attacks["pgd5"], trust="withheld")
    run = replace(audited, attacks={"pgd5": outcome}, findings=[error])
    standing = np.ones(16)
    claim = grade_claim(run, outcome.robust_accuracy, standing, {})
    assert claim.grade == "not reproduced"
    assert "it lies" in claim.sentence


def _finding():
    from robustbench_cli.runs.trust import Finding

    return Finding(check="memory", severity="error", message="")
