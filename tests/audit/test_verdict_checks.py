"""Each check of verdicts finds the contradiction it is for, and nothing in verdicts that agree."""

import numpy as np
import pytest

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, Evidence, JudgedAttack
from robustbench_cli.audit._evidence import AttackedAgain, Control, Replay
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat

N = 100


def rows(*places):
    """Return a mask (N) of these ranges of examples."""
    mask = np.zeros(N, bool)
    for place in places:
        mask[place] = True
    return mask


def judged(name, broken, *, by=None, step=None):
    attack = ATTACKS.build(Spec.parse(name))
    stages = attack.stages(Threat("Linf", 0.1), 10)
    by = np.where(broken, 0, -1) if by is None else by
    return JudgedAttack(
        label=name,
        attack=attack,
        stages=stages,
        eps=0.1,
        swept=False,
        broken=broken,
        share=1.0 - broken,
        by=by,
        step=np.where(broken, 1, -1) if step is None else step,
        tried=np.ones(N, int),
        zero_gradient=np.zeros(N, bool),
    )


def evidence(*attacks, right=None, **more):
    right = rows(slice(0, 95)) if right is None else right
    return Evidence(right=right, classes=10, attacks=attacks, random=False, **more)


def found(name, seen):
    return list(CHECKS.build(Spec(name)).judge(seen))


@pytest.mark.parametrize(("right", "fires"), [(0, 1), (10, 1), (15, 1), (16, 0), (95, 0)])
def test_accuracy_at_chance(right, fires):
    seen = evidence(right=rows(slice(0, right)))
    assert len(found("chance", seen)) == fires


def clean_only(right, n, classes, **more):
    seen = np.arange(n) < right
    return Evidence(right=seen, classes=classes, attacks=[], random=False, **more)


@pytest.mark.parametrize(
    ("right", "n", "classes", "severity"),
    [
        (8, 24, 3, "error"),  # a guess each: 8 are expected
        (2, 20, 10, "error"),  # P(X >= 2) = 0.61 by guessing
        (5, 20, 10, None),  # 0.043
        (0, 3, 10, "info"),  # a model that is right about 55 % gets 0 of 3 nine times in a hundred
        (0, 4, 10, "error"),  # 0.041
        (1, 1, 10, "info"),
        (2, 2, 10, None),
        (4, 4, 2, "info"),  # four lucky guesses: 1/16
        (14, 24, 2, "info"),
        (23, 24, 2, None),
    ],
)
def test_few_images_at_chance_are_judged_by_exact_probabilities(right, n, classes, severity):
    findings = found("chance", clean_only(right, n, classes))
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    assert all(each.clean for each in findings)


@pytest.mark.parametrize(
    ("right", "n", "classes", "severity"),
    [(90, 100, 10, "error"), (3, 24, 10, "error"), (1, 3, 10, "info"), (5, 5, 10, None)],
)
def test_one_answer_to_images_of_several_classes(right, n, classes, severity):
    """Not even 90 % of the images in one class make such a model one that tells them apart."""
    seen = clean_only(right, n, classes, answers=np.full(n, 7))
    findings = found("one-answer", seen)
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    assert all(each.clean and "class 7" in each.message for each in findings)


def test_two_answers_are_not_one():
    answers = np.arange(24) == 0
    assert not found("one-answer", clean_only(3, 24, 10, answers=answers.astype(int)))


@pytest.mark.parametrize(
    ("extra", "severity"), [(0, None), (2, "info"), (3, "info"), (10, "warning")]
)
def test_another_attack_without_gradients_breaks_more(extra, severity):
    """The two stand side by side; neither is a member of the other."""
    white, black = rows(slice(0, 30)), rows(slice(20, 30 + extra))
    findings = found("black-box", evidence(judged("pgd20", white), judged("square100", black)))
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    for each in findings:
        assert (each.images, each.of) == (extra, 65)
        assert each.accuracy == pytest.approx((65 - extra) / N)


def test_a_member_without_gradients_breaks_more():
    stages = ATTACKS.build(Spec("autoattack")).stages(Threat("Linf", 0.1), 10)
    square = [i for i, stage in enumerate(stages) if stage.member == "square"]
    broken = rows(slice(0, 40))
    by = np.where(rows(slice(0, 20)), 0, np.where(broken, square[0], -1))
    (finding,) = found("black-box", evidence(judged("autoattack", broken, by=by)))
    assert (finding.images, finding.severity) == (20, "warning")


@pytest.mark.parametrize("name", ["square100", "pgd20"])
def test_an_attack_on_its_own_contradicts_nobody(name):
    seen = evidence(judged(name, rows(slice(0, 95))))
    for check in ("black-box", "losses", "one-step", "restarts", "convergence"):
        assert not found(check, seen)


def test_one_step_breaks_more_than_twenty():
    one, many = judged("fgsm", rows(slice(0, 50))), judged("pgd20", rows(slice(0, 40)))
    (finding,) = found("one-step", evidence(one, many))
    assert finding.attacks == ["pgd20"]
    assert (finding.images, finding.of) == (10, 55)
    assert not found("one-step", evidence(one, judged("pgd20", rows(slice(0, 49)))))
    strong = judged("autoattack-reference", rows(slice(0, 60)))
    assert not found("one-step", evidence(strong, many))


@pytest.mark.parametrize(("extra", "severity"), [(4, None), (10, "info"), (20, "warning")])
def test_the_result_depends_on_the_loss(extra, severity):
    seen = evidence(judged("pgd20", rows(slice(0, 30))), judged("cw20", rows(slice(0, 30 + extra))))
    findings = found("losses", seen)
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    assert all(each.attacks == ["pgd20"] for each in findings)


def test_an_attack_that_had_not_converged():
    broken = rows(slice(0, 40))
    step = np.where(rows(slice(0, 12)), 19, np.where(broken, 2, -1))
    (finding,) = found("convergence", evidence(judged("pgd20", broken, step=step)))
    assert (finding.images, finding.severity) == (12, "warning")
    step[:12] = 3
    assert not found("convergence", evidence(judged("pgd20", broken, step=step)))


@pytest.mark.parametrize(
    ("name", "fires"), [("pgd:steps=5,step=0.1", 1), ("pgd:steps=5,step=0.2", 0), ("fgsm", 0)]
)
def test_steps_that_do_not_reach_the_border(name, fires):
    assert len(found("reach", evidence(judged(name, rows())))) == fires


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_reaches_the_border_as_it_comes(name):
    assert not found("reach", evidence(judged(name, rows())))


@pytest.mark.parametrize(("stood", "severity"), [(0, None), (1, "info"), (4, "warning")])
def test_accuracy_that_rises_with_the_radius(stood, severity):
    labels = ["pgd20@eps=0.1", "pgd20@eps=0.2"]
    again = [AttackedAgain(label=labels[1], points=labels, tried=16, stood=stood)]
    findings = found("rising", evidence(again=again))
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    assert all(each.attacks == labels for each in findings)


def test_restarts_that_disagree():
    broken = rows(slice(0, 40))
    by = np.where(rows(slice(0, 12)), 2, np.where(broken, 0, -1))
    (finding,) = found("restarts", evidence(judged("pgd:steps=20,restarts=3", broken, by=by)))
    assert (finding.images, finding.of) == (12, 67)
    by[:12] = 0
    assert not found("restarts", evidence(judged("pgd:steps=20,restarts=3", broken, by=by)))


@pytest.mark.parametrize(
    ("corners", "search", "targeted", "severity"),
    [
        *((0, 0, 0, None), (0, 1, 0, "info"), (0, 2, 0, "info"), (1, 0, 0, "warning")),
        *((0, 3, 0, "warning"), (0, 0, 8, "info"), (0, 0, 9, "warning"), (0, 2, 7, "warning")),
    ],
)
def test_the_control_breaks_what_stood(corners, search, targeted, severity):
    control = Control(
        tried=rows(slice(40, 72)),
        corners=rows(slice(40, 40 + corners)),
        search=rows(slice(60, 60 + search)),
        targeted=rows(slice(45, 45 + targeted)),
    )
    seen = evidence(judged("pgd20", rows(slice(0, 40))), control=control)
    findings = found("control", seen)
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    for each in findings:
        assert each.of == 32
        assert each.accuracy == pytest.approx((55 - corners - search - targeted) / 100)


def test_a_fresh_copy_that_answers_differently():
    none = rows()
    eight, two, one = (rows(slice(0, n)) for n in (8, 2, 1))
    replay = Replay(tried=eight, differs=two, worse=one, nearer=none)
    (finding,) = found("replay", evidence(replay=replay))
    assert (finding.images, finding.of, finding.severity) == (2, 8, "error")
    assert not found(
        "replay", evidence(replay=Replay(tried=none, differs=none, worse=none, nearer=none))
    )


@pytest.mark.parametrize(("fell", "severity"), [(0, None), (1, "info"), (4, "warning")])
def test_images_that_fall_nearer_to_the_clean_one(fell, severity):
    none, tried = rows(), rows(slice(40, 72))
    replay = Replay(tried=tried, differs=none, worse=none, nearer=rows(slice(40, 40 + fell)))
    seen = evidence(judged("pgd20", rows(slice(0, 40))), replay=replay)
    findings = found("nearer", seen)
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    for each in findings:
        assert each.of == 32
        assert each.accuracy == pytest.approx((55 - fell) / 100)
