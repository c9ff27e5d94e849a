"""How far a number can be trusted, over findings, seeds and versions, and how it is marked."""

from dataclasses import replace

import pytest

from robustbench_cli.report.number_trust import (
    NumberTrust,
    attack_trust,
    before_checks,
    certificate_trust,
    clean_trust,
    joined_trust,
    worst_trust,
)
from robustbench_cli.report.trust_legend import JudgedNumber, trust_legend
from robustbench_cli.runs.trust import Checked, Finding

PGD20, FGSM = {"name": "pgd", "steps": 20}, {"name": "fgsm"}
CHECKED = Checked(names=["secant"], images=32, forwards=64, backwards=32, seconds=0.1)


def finding(check, severity="warning", message="why", **more):
    return Finding(check=check, severity=severity, message=message, **more)


@pytest.fixture
def run(trained, evaluated):
    """An evaluation that was checked: pgd20 leaves 97 of 100, fgsm 98."""
    attacks = {"pgd20": (PGD20, 97, {"trust": "upper bound"}), "fgsm": (FGSM, 98)}
    return evaluated(trained(), attacks, clean=99, checked=CHECKED, clean_trust="sound")


def test_the_lowest_accuracy_that_was_found_is_told(run):
    found = [
        finding("control", accuracy=0.13, attacks=["pgd20"]),
        finding("corners", accuracy=0.5, attacks=["pgd20"]),
        finding("other", accuracy=0.01, attacks=["fgsm"]),
        finding("gain", "info", accuracy=0.02),
    ]
    trust = attack_trust(replace(run, findings=found), "pgd20")
    assert trust.found == 0.13
    assert [each.check for each in trust.findings] == ["control", "corners"]
    assert trust.written("97.00", "13.00") == "≤97.00 (13.00 found)"


def test_what_is_no_lower_was_not_found(run):
    found = replace(run, findings=[finding("control", accuracy=0.97)])
    assert attack_trust(found, "pgd20").found is None
    assert attack_trust(found, "pgd20").written("97.00") == "≤97.00"


def test_the_worst_case_has_the_lowest_of_all(run):
    found = [finding("a", attacks=["pgd20"], accuracy=0.4), finding("b", accuracy=0.3)]
    judged = replace(run, findings=found, worst_case_trust="upper bound")
    assert worst_trust(judged).found == 0.3


def test_clean_and_certified_numbers_fall_with_the_predictions(run):
    assert certificate_trust(run) is None
    broken = finding("batch", "error", clean=True)
    judged = replace(run, findings=[broken, finding("secant")], clean_trust="withheld")
    assert clean_trust(judged).findings == (broken,)
    assert certificate_trust(judged) == clean_trust(judged)
    assert clean_trust(judged).written("99.00") == "withheld"


def test_checks_left_out_are_told_from_a_version_that_had_none(run):
    old = replace(run, checked=None, clean_trust="unchecked")
    waived = replace(old, config={**old.config, "checks": False})
    assert [clean_trust(each).written("99.00") for each in (old, waived)] == ["99.00", "99.00°"]
    assert [before_checks(each) for each in (run, old, waived)] == [False, True, False]


@pytest.mark.parametrize(
    ("trusts", "worst"),
    [
        (["sound", "sound"], "sound"),
        (["sound", "unchecked"], "unchecked"),
        (["unchecked", "upper bound"], "upper bound"),
        (["withheld", "upper bound", "sound"], "withheld"),
    ],
)
def test_seeds_are_joined_to_the_worst_of_their_states(trusts, worst):
    each = [NumberTrust(trust=trust) for trust in trusts]
    assert joined_trust(each, [0.5] * len(each)).trust == worst


def test_a_seed_of_which_nothing_lower_is_known_counts_with_its_own_accuracy():
    bound = NumberTrust(trust="upper bound", found=0.1, findings=(finding("control"),))
    joined = joined_trust([bound, NumberTrust(trust="sound")], [0.9, 0.3])
    assert joined.found == pytest.approx(0.2)
    assert joined.findings == bound.findings


def judged(row, column, trust, *findings, found=None):
    trust = NumberTrust(trust=trust, found=found, findings=findings)
    return JudgedNumber(row=row, column=column, trust=trust)


def test_the_legend_groups_what_is_said_of_several_numbers():
    secant, batch = finding("secant"), finding("batch", "error", "the batch matters")
    numbers = [
        judged("net", "clean", "sound", finding("x")),
        judged("net", "pgd20", "upper bound", secant, found=0.1),
        judged("net", "fgsm", "upper bound", secant),
        judged("other", "pgd20", "upper bound", secant),
        judged("other", "fgsm", "upper bound", secant),
        judged("third", "pgd20", "withheld", secant, batch, batch),
    ]
    assert trust_legend(numbers, unseen=2) == [
        "≤ = an upper bound: something hides the truth, which is lower; "
        "(N found) = left after what another attack broke as well",
        "withheld = the number means nothing and is not shown",
        "2 evaluation(s) are from before advbench checked its numbers",
        "net, other (pgd20, fgsm): secant: why",
        "third (pgd20): batch: the batch matters",
    ]


def test_findings_of_several_seeds_are_told_once():
    each = [finding("secant", message=text) for text in ("one", "one", "two")]
    (*_, line) = trust_legend([judged("net", "pgd20", "upper bound", *each)])
    assert line == "net (pgd20): secant: one (and 1 more)"


def test_sound_numbers_need_no_legend():
    assert trust_legend([judged("net", "pgd20", "sound", finding("x", "info"))]) == []


def test_nothing_in_a_finding_commands_a_terminal():
    evil = finding("secant", message="\x1b[2J\nnext")
    (*_, line) = trust_legend([judged("net", "pgd20", "upper bound", evil)])
    assert "\x1b" not in line
    assert "\n" not in line
