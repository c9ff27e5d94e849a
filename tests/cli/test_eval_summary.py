"""What an evaluation prints when it is done."""

import pytest

from robustbench_cli.cli.eval_summary import print_evaluation
from robustbench_cli.runs.outcomes import Outcome, Proof, Rejection, Within
from robustbench_cli.runs.trust import Checked, Finding

PGD20 = {"name": "pgd", "steps": 20}


@pytest.fixture
def shown(tmp_path, trained, evaluated, kept, capsys):
    """The lines that are printed of an evaluation, but for the last, which is its folder."""

    def run(attacks, **changes):
        parent = trained("[bold]x")
        record = evaluated(parent, attacks, **{"id": "e", "checked": None, **changes})
        kept(tmp_path, record)
        print_evaluation(tmp_path / record.id)
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == str(tmp_path / record.id)
        return lines

    return run


def test_accuracies_and_all_attacks_together(shown):
    assert shown({"pgd20": (PGD20, 40), "fgsm": ({"name": "fgsm"}, 60)}, worst=38) == [
        "[bold]x on mnist, Linf eps 0.3",
        "attack       accuracy  right   of  seconds",
        "clean          90.00%     90  100",
        "pgd20          40.00%     40  100      1.0",
        "fgsm           60.00%     60  100      1.0",
        "all of them    38.00%     38  100",
    ]


def test_what_each_member_of_an_ensemble_broke(shown):
    broken = {"broken_by": {"apgd-ce": 41, "apgd-t": 9, "square": 0}}
    lines = shown({"autoattack": ({"name": "autoattack"}, 40, broken), "pgd20": (PGD20, 45)})
    assert lines[1:4] == [
        "attack       accuracy  right   of  seconds  broken by",
        "clean          90.00%     90  100",
        "autoattack     40.00%     40  100      1.0  apgd-ce 41, apgd-t 9, square 0",
    ]


def test_of_many_members_only_those_that_broke_something_are_named(shown):
    broken = {"broken_by": {"md": 3, "pgd on a view": 40, **dict.fromkeys("abcdef", 0)}}
    lines = shown({"adaptive": ({"name": "adaptive"}, 40, broken.items())})
    assert any("md 3, pgd on a view 40, 6 others 0" in line for line in lines)


def test_notes_are_under_the_table(shown):
    assert shown({"pgd20": (PGD20, 40)}, notes=["[red]zero gradients"])[-1] == (
        "note: [red]zero gradients"
    )


def test_what_the_search_ran_in_is_under_the_table(shown):
    lines = shown({"pgd20": (PGD20, 40)}, search="bfloat16, BatchNorm folded", notes=["careful"])
    assert lines[-2:] == [
        "searched in bfloat16, BatchNorm folded, judged in float32",
        "note: careful",
    ]


def test_distances_and_spreads_have_columns(shown):
    far = {"minimal": True, "median_norm": 0.12345}
    random = {"robust_accuracy": 0.4525, "majority_accuracy": 0.5, "spread": (0.431, 0.474)}
    lines = shown({"deepfool": ({"name": "deepfool"}, 30, far), "pgd20": (PGD20, 50, random)})
    assert lines[1:5] == [
        "attack       accuracy  right   of  distance          5-95 %  seconds",
        "clean          90.00%     90  100",
        "deepfool       30.00%     30  100    0.1235                      1.0",
        "pgd20          45.25%   45.2  100            43.10 to 47.40      1.0",
    ]


def test_a_sweep_has_no_radius_of_its_own_and_no_sum(shown):
    points = {f"pgd20@eps={e}": (PGD20, 50, {"eps": e}) for e in (0.1, 0.2)}
    lines = shown(points, sweep={"eps": [0.1, 0.2]})
    assert lines[0] == "[bold]x on mnist, Linf"
    assert lines[-1].startswith("pgd20@eps=0.2")


def test_the_source_of_the_images_is_told(shown, trained):
    lines = shown({"pgd20": (PGD20, 50)}, source=trained(id="far-away"))
    assert lines[0] == "[bold]x on mnist, Linf eps 0.3, images crafted on far-away"


CHECKED = Checked(names=["a", "b"], images=32, forwards=320, backwards=96, seconds=0.25)
SECANT = Finding(
    check="secant", severity="warning", message="gradients lie", attacks=["pgd20"], accuracy=0.13
)
BATCH = Finding(
    check="batch", severity="error", message="the batch matters", attacks=["fgsm"], clean=True
)


def test_numbers_that_are_not_sound_are_marked_and_explained(shown):
    broken = {"trust": "withheld", "broken_by": {"x": 12}, "minimal": True, "median_norm": 0.5}
    attacks = {
        "pgd20": (PGD20, 97, {"trust": "upper bound"}),
        "fgsm": ({"name": "fgsm"}, 63, broken),
        "cw20": ({"name": "cw", "steps": 20}, 98, {"trust": "sound"}),
    }
    control = Outcome(
        params={"name": "ensemble"},
        n=97,
        correct=13,
        robust_accuracy=0.13,
        forwards=900,
        backwards=0,
        seconds=1.5,
        broken_by={"corners": 4, "square": 80},
    )
    lines = shown(
        attacks,
        clean=99,
        checked=CHECKED,
        findings=[SECANT, BATCH],
        clean_trust="withheld",
        worst_case_trust="upper bound",
        control=control,
    )
    assert [line.split()[:4] for line in lines[2:7]] == [
        ["clean", "withheld", "100"],
        ["pgd20", "≤97.00%", "(13.00%", "found)"],
        ["fgsm", "withheld", "100"],
        ["cw20", "98.00%", "98", "100"],
        ["all", "of", "them", "≤63.00%"],
    ]
    assert lines[7:] == [
        "≤ = an upper bound: something hides the truth, which is lower; (N found) = left "
        "after what another attack broke as well",
        "withheld = the number means nothing and is not shown",
        "error: batch: the batch matters (fgsm and clean)",
        "warning: secant: gradients lie (pgd20)",
        "control (not counted): broke 84 of 97 images that stood (corners 4, square 80); "
        "900 forward passes, 1.5 s",
        "checks: 2 on 32 images, 320 forward and 96 backward passes, 0.2 s",
    ]
    assert not any("x 12" in line or "0.5000" in line for line in lines)


def test_checks_that_were_left_out_are_missed_at_every_number(shown, evaluated, trained):
    config = {**evaluated(trained(), {"pgd20": (PGD20, 40)}).config, "checks": False}
    bare = {"clean_trust": "unchecked", "worst_case_trust": "unchecked"}
    lines = shown({"pgd20": (PGD20, 40, {"trust": "unchecked"})}, config=config, **bare)
    assert [line.split()[1] for line in lines[2:4]] == ["90.00%°", "40.00%°"]
    assert lines[4:] == [
        "° = not checked (--no-checks), or not in full under such a threat",
        "checks: none (--no-checks)",
    ]


def test_what_is_right_among_the_accepted_is_withheld_with_the_clean_accuracy(shown):
    rejection = Rejection(kind="class", index=10, clean_rejected=0.061, accepted_accuracy=0.937)
    attacks = {"pgd20": (PGD20, 40, {"trust": "withheld", "rejected": 0.043})}
    sound = "\n".join(shown({"pgd20": (PGD20, 40, {"rejected": 0.043})}, rejection=rejection))
    assert all(number in sound for number in ("6.10%", "93.70%", "4.30%"))
    void = {"clean_trust": "withheld", "findings": [BATCH], "id": "void"}
    said = "\n".join(shown(attacks, rejection=rejection, **void))
    assert not any(number in said for number in ("6.10%", "93.70%", "4.30%"))
    assert "what is right among the accepted is withheld" in said


def test_a_certificate_that_proves_nothing_is_no_0_percent(shown):
    within = [
        Within(norm="Linf", eps=eps, radius=eps, correct=0, accuracy=0.0) for eps in (0.0, 0.1)
    ]
    proof = Proof(
        params={"name": "ibp"},
        norm="Linf",
        n=100,
        correct=90,
        accuracy=0.9,
        abstained=0.0,
        uncertified=1.0,
        mean_radius=0.0,
        within=within,
        forwards=100,
        seconds=2.0,
        says_nothing=True,
    )
    lines = shown({}, certificates={"ibp": proof}, worst=90)
    assert [line.split() for line in lines[3:6]] == [
        ["ibp", "90.00%", "90", "100", "2.0"],
        ["certified@Linf=0", "says", "nothing", "100"],
        ["certified@Linf=0.1", "says", "nothing", "100"],
    ]
    assert not any(" 0.00%" in line for line in lines)
    assert "ibp: says nothing about this model: no image is proven to Linf 0.1" in lines
    assert any(line.startswith("says nothing = the certificate proves nothing") for line in lines)
