"""Sweeps, transfer, several processes, randomised models: whole evaluations on real digits."""

import copy
import itertools
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch

from robustbench_cli.attacks import ATTACKS, Iterated
from robustbench_cli.cli import main
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.sweep import points
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.evaluation import rewritten_models, search_choice, verifier
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.models.weights import digest
from robustbench_cli.runs import records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}


def config(*attacks, **more):
    """Settings without checks, which count in no verdict and take half of such short runs."""
    typed = {"attack": chosen_attacks(list(attacks), None, {}), "threat": {"eps": 0.12}, "n": 40}
    return resolve_eval_config(BASE, {**typed, "checks": False, **more}, [])


def with_bf16(monkeypatch, *, narrow):
    """Whether this processor has bfloat16 must not decide what is tested."""
    for module in (rewritten_models, search_choice):
        monkeypatch.setattr(module, "has_bf16", lambda _where: narrow)
    monkeypatch.setattr(search_choice, "runs_bf16", lambda _where: narrow)


def subject(net, name="net"):
    return Subject(model=net, name=name, weights=digest(net))


def evaluated(out, net, chosen, source=None):
    """The record and the verdicts."""
    request = EvalRequest(
        subject=subject(net),
        source=source,
        config=chosen,
        workspace=Workspace(out=out, device="cpu"),
        command=["x"],
    )
    folder = run_evaluation(request, Display())
    with np.load(folder / "examples.npz") as arrays:
        return records.read(folder), {key: arrays[key] for key in arrays.files}


@pytest.fixture
def net(digits_model):
    return digits_model[0]


def test_a_sweep_over_eps_ends_where_single_evaluations_do_and_never_rises(tmp_path, net):
    swept, found = evaluated(tmp_path, net, config("pgd5", sweep="eps=0,0.05,...,0.2"))
    accuracies = [o.robust_accuracy for o in swept.attacks.values()]
    assert [o.eps for o in swept.attacks.values()] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert accuracies[0] == swept.clean_accuracy
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[2] > accuracies[4]
    # What a radius has broken stays broken at no further cost.
    by = [found[f"{label}/by"] >= 0 for label in swept.attacks]
    assert all((less <= more).all() for less, more in itertools.pairwise(by))
    before = found["pgd5@eps=0.1/by"] >= 0
    assert before.any()
    assert not found["pgd5@eps=0.15/forwards"][before].any()
    # A radius alone may miss what the smaller ones have found, never more.
    alone, _ = evaluated(tmp_path, net, config("pgd5", threat={"eps": 0.2}))
    assert accuracies[4] <= alone.attacks["pgd5"].robust_accuracy


def test_a_sweep_over_steps_is_read_off_the_longest_walk_exactly(tmp_path, net):
    chosen = config("pgd", sweep="steps=1,3,8", precision="exact")
    swept, found = evaluated(tmp_path, net, chosen)
    assert [o.seconds > 0 for o in swept.attacks.values()] == [True, False, False]
    for steps in (1, 3, 8):
        one, alone = evaluated(tmp_path, net, config(f"pgd{steps}", precision="exact"))
        label = f"pgd@steps={steps}"
        mine, alone_ = swept.attacks[label], one.attacks[f"pgd{steps}"]
        assert (mine.correct, mine.forwards) == (alone_.correct, alone_.forwards)
        assert mine.backwards == alone_.backwards
        for key in ("by", "step", "prediction"):
            broken = alone[f"pgd{steps}/by"] >= 0
            mine, theirs = found[f"{label}/{key}"], alone[f"pgd{steps}/{key}"]
            assert np.array_equal(mine[broken], theirs[broken]), (steps, key)


STEPPING = [name for name in ATTACKS.names() if ATTACKS.accepts(name, "steps")]
QUICK = {"step": 0.4, "restarts": 2, "searches": 2, "targets": 2, "pairs": 4}
"""Values under which attacks are quick and leave something for later steps, where an attack has
the parameter; more restarts than one only where that is the default."""


def quick(name):
    """The attack's name with such values, ready for a number of steps."""
    cls = ATTACKS.entry(name).cls
    default = {f.name: f.default for f in fields(cls)}
    usable = {k: v for k, v in QUICK.items() if k in default and default[k] != 1}
    return f"{name}:{''.join(f'{key}={value},' for key, value in usable.items())}steps="


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for number, name in enumerate(STEPPING)
        for kind in ("exact", ("bf16", "random")[number % 2])
        if kind == "exact" or issubclass(ATTACKS.entry(name).cls, Iterated)
    ],
)
def test_a_sweep_over_steps_is_what_each_length_alone_is(kind, name, tmp_path, net, monkeypatch):
    """Bit for bit, for every registered attack; read off a longer walk only where that is so.

    Every attack in float32, and with bf16 or on a randomised model, which take turns.
    """
    with_bf16(monkeypatch, narrow=True)
    monkeypatch.setattr(
        verifier, "VOTING_DRAWS", 20
    )  # draws enough to see whether luck is the same
    more = {"n": 4 if kind == "random" else 20, "precision": "auto" if kind == "bf16" else "exact"}
    norm = ATTACKS.entry(name).cls.norms[0]
    more["threat"] = {"norm": norm, "eps": {"Linf": 0.12, "L2": 0.8, "patch": 3}[norm]}
    net = Noisy(net, 0.2) if kind == "random" else net
    walk = quick(name)
    torch.manual_seed(1)
    swept, found = evaluated(tmp_path, net, config(f"{walk}6", sweep="steps=1,3", **more))
    # From many steps to few, as a sweep goes: a randomised model's luck is then the same.
    torch.manual_seed(1)
    single, alone = evaluated(tmp_path, net, config(f"{walk}3", f"{walk}1", **more))
    for n in (3, 1):
        mine, one = f"{walk}6@steps={n}", f"{walk}{n}"
        assert swept.attacks[mine].robust_accuracy == single.attacks[one].robust_accuracy
        for key in ("by", "step", "prediction", "share", "forwards", "backwards"):
            assert np.array_equal(found[f"{mine}/{key}"], alone[f"{one}/{key}"]), (n, key)
        broken = alone[f"{one}/by"] >= 0
        assert np.array_equal(found[f"{mine}/norm"][broken], alone[f"{one}/norm"][broken])
    copied = swept.attacks[f"{walk}6@steps=1"].seconds == 0
    attack = ATTACKS.build(Spec.parse(f"{walk}3"))
    nested = isinstance(attack, Iterated) and attack.nested
    assert copied == (nested and kind == "exact")


def test_a_step_that_follows_from_the_number_of_steps_does_so_in_a_sweep(tmp_path, net):
    swept, _ = evaluated(tmp_path, net, config("mim", sweep="steps=3,8"))
    for steps in (3, 8):
        one, _ = evaluated(tmp_path, net, config(f"mim{steps}"))
        mine, alone = swept.attacks[f"mim@steps={steps}"], one.attacks[f"mim{steps}"]
        assert (mine.correct, mine.forwards) == (alone.correct, alone.forwards), steps


def test_a_sweep_with_steps_too_few_leaves_no_folder(tmp_path, net):
    chosen = config("pgd40:step=1/30", sweep="steps=10,40")
    with pytest.raises(UserError, match=r"steps=10: attack 'pgd40.*cannot reach the border"):
        evaluated(tmp_path, net, chosen)
    assert not list(tmp_path.glob("*/run.json"))


def test_restarts_are_not_read_off_a_longer_walk():
    chosen = config("pgd:restarts=2", sweep="steps=2,4")
    attacks = {"pgd:restarts=2": ATTACKS.build(Spec("pgd", {"restarts": 2}))}
    assert [point.within for point in points(attacks, chosen)] == [None, None]


def test_one_run_of_a_minimal_attack_answers_every_radius(tmp_path, net):
    chosen = config("fab-t:steps=5,targets=2", sweep="eps=0.05,0.1,0.3")
    swept, found = evaluated(tmp_path, net, chosen)
    norm = found["fab-t:steps=5,targets=2@eps=0.1/norm"]
    right = found["clean/share"] > 0
    for label, outcome in swept.attacks.items():
        assert outcome.correct == int((right & (norm > outcome.eps)).sum()), label
    assert len({o.correct for o in swept.attacks.values()}) > 1
    median = swept.attacks["fab-t:steps=5,targets=2@eps=0.1"].median_norm
    assert median == pytest.approx(float(np.median(norm[right])))


def test_a_minimal_attack_measures_distances_where_the_sweep_begins_at_the_clean_images(
    tmp_path, net
):
    swept, found = evaluated(tmp_path, net, config("deepfool", sweep="eps=0,0.05,0.3"))
    without, expected = evaluated(tmp_path, net, config("deepfool", sweep="eps=0.05,0.3"))
    at_0, *others = swept.attacks.values()
    assert at_0.robust_accuracy == swept.clean_accuracy
    assert at_0.median_norm == without.attacks["deepfool@eps=0.05"].median_norm
    assert [o.correct for o in others] == [o.correct for o in without.attacks.values()]
    assert at_0.correct > others[0].correct > others[1].correct
    for label in ("deepfool@eps=0.05", "deepfool@eps=0.3"):
        assert np.array_equal(found[f"{label}/norm"], expected[f"{label}/norm"])


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("width=1,2", "sweep over eps or steps"),
        ("eps=", "expected numbers"),
        ("eps=0.3,...,0.1", "expected numbers"),
        ("eps=8", "did you mean '8/255'"),
        ("steps=0", "expected numbers"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_line(sweep, message):
    with pytest.raises(UserError, match=message):
        config("pgd5", sweep=sweep)


@pytest.mark.parametrize("label", ["clean", " ", ""])
def test_a_suite_s_attack_cannot_take_the_name_of_the_clean_images_or_none(label, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(f'[attack."{label}"]\nname = "fgsm"\n[attack.after]\nname = "pgd"\n')
    with pytest.raises(UserError, match=f"calls an attack '{label}': name it, but not 'clean'"):
        chosen_attacks([], str(suite), {})
    suite.write_text('[attack.unclean]\nname = "fgsm"\n')
    assert [*chosen_attacks([], str(suite), {})] == ["unclean"]


def test_transfer_judges_the_target_on_images_made_for_the_source(tmp_path, net):
    torch.manual_seed(3)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    chosen = {"source": {"id": "other", "weights": digest(other)}}
    attack = "pgd10"
    moved, found = evaluated(
        tmp_path, net, config(attack, **chosen), source=subject(other, "other")
    )
    white, _ = evaluated(tmp_path, net, config(attack))
    self_, _ = evaluated(
        tmp_path,
        net,
        config(attack, source={"id": "net", "weights": digest(net)}),
        source=subject(net),
    )
    robust = [r.attacks[attack].robust_accuracy for r in (moved, white, self_)]
    assert robust[0] > robust[1]  # an untrained surrogate hardly helps
    assert robust[2] <= robust[1] + 0.1  # its own images do
    assert moved.clean_accuracy == white.clean_accuracy
    # The surest image for the source is kept, not the first that fools it.
    right = found["clean/share"] > 0
    assert (found[f"{attack}/norm"][right] > 0.1).all()


def test_a_sweep_over_steps_on_another_model_s_images_is_what_each_length_alone_is(tmp_path, net):
    """The target decides about a walk's last image, so that no walk contains another."""
    torch.manual_seed(3)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    chosen = {"source": {"id": "other", "weights": digest(other)}, "threat": {"eps": 0.3}}
    both = [
        evaluated(tmp_path, net, config(*attacks, **chosen, **more), subject(other, "other"))[0]
        for attacks, more in ((["pgd"], {"sweep": "steps=1,6"}), (["pgd6", "pgd1"], {}))
    ]
    swept, alone = ([o.correct for o in record.attacks.values()] for record in both)
    assert swept == alone
    assert swept[0] < swept[1]


@pytest.mark.parametrize("attack", ["deepfool", "fab-t:steps=5,targets=2"])
def test_the_distance_of_another_model_s_image_is_to_the_nearest_that_the_target_gets_wrong(
    attack, tmp_path, net
):
    other = copy.deepcopy(net)
    other.head.weight += 0.02 * torch.randn_like(other.head.weight)

    def on(made_on):
        chosen = config(attack, source={"id": "source", "weights": digest(made_on)})
        return evaluated(tmp_path, net, chosen, subject(made_on, "source"))

    moved, found = on(other)
    right, norm = found["clean/share"] > 0, found[f"{attack}/norm"]
    fooled = found[f"{attack}/prediction"] != found["label"]
    reached = found[f"{attack}/by"] >= 0
    assert 0 < reached.sum() < right.sum()
    assert np.array_equal(reached, right & fooled)
    assert np.isfinite(norm[reached]).all()
    assert np.isinf(norm[right & ~reached]).all()
    assert moved.attacks[attack].correct == int((right & (norm > 0.12)).sum())
    # What a model finds on itself is what it finds without a source.
    _, itself = on(net)
    _, white = evaluated(tmp_path, net, config(attack))
    assert np.array_equal(itself[f"{attack}/norm"], white[f"{attack}/norm"])


class Noisy(torch.nn.Module):
    """A net whose every pass sees other noise."""

    def __init__(self, net, sigma):
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x):
        return self.net(x + self.sigma * torch.randn_like(x))


def test_a_randomised_model_s_accuracy_is_a_mean_over_draws(tmp_path, net):
    torch.manual_seed(0)
    chosen = config("pgd3", "pgd3:eot=4", n=16, checks=True)
    found, arrays = evaluated(tmp_path, Noisy(net, 0.2), chosen)
    share = arrays["pgd3/share"]
    assert ((share > 0) & (share < 1)).any()
    outcome = found.attacks["pgd3"]
    assert outcome.spread[0] < outcome.robust_accuracy < outcome.spread[1]
    assert outcome.majority_accuracy == np.mean(np.minimum(share, arrays["clean/share"]) > 0.5)
    assert any("randomised" in each.message for each in found.findings)
    assert found.attacks["pgd3:eot=4"].backwards > 3 * outcome.backwards


def test_examples_name_the_member_that_broke_them(tmp_path, net):
    attack = "ensemble:apgd-t-3/square30"
    found, arrays = evaluated(tmp_path, net, config(attack, "pgd5"))
    outcome, by = found.attacks[attack], arrays[f"{attack}/by"]
    assert outcome.stages == ["apgd-t-3"] * 9 + ["square30"]
    named = [outcome.stages[stage] for stage in by[by >= 0]]
    assert {name: named.count(name) for name in ("apgd-t-3", "square30")} == outcome.broken_by
    assert named
    assert not found.attacks["pgd5"].stages  # its own restarts


class Told(Display):
    """The last accuracy that was told of each attack."""

    def __init__(self):
        self.last = {}

    def judging(self, label, n, what="robust accuracy"):
        self._label = label.split(" ")[0]

    def judged(self, done, accuracy):
        self.last[self._label] = accuracy


@pytest.mark.parametrize("random", [False, True])
def test_the_accuracy_told_meanwhile_ends_as_the_one_recorded(random, tmp_path, net):
    net = Noisy(net, 0.2) if random else net
    request = EvalRequest(
        subject=subject(net),
        config=config("deepfool", "pgd5", "ensemble:apgd-t-3/square30", n=6 if random else 40),
        workspace=Workspace(out=tmp_path, device="cpu"),
        command=["x"],
    )
    told = Told()
    found = records.read(run_evaluation(request, told))
    assert told.last.pop("clean") == found.clean_accuracy
    assert told.last == {label: o.robust_accuracy for label, o in found.attacks.items()}
    assert min(told.last.values()) < max(told.last.values())


def test_two_processes_come_to_the_verdicts_of_one(tmp_path, net_file, two_processes, capfd):
    command = ["eval", "--model", f"{net_file}:make", "--dataset", "digits"]
    command += ["--attack", "pgd5", "--attack", "ensemble:apgd-ce-5/square20", "--n", "41"]
    command += ["--eps", "0.1", "--device", "cpu", "--quiet", "--out", str(tmp_path / "r")]
    assert main([*command, "--name", "one"]) == 0
    capfd.readouterr()

    def other():
        code = main([*command, "--name", "two"])
        sys.stdout.flush()
        return code

    assert two_processes(other) == [0, 0]
    assert capfd.readouterr().out.count("ensemble") == 1  # one process speaks
    with (
        np.load(tmp_path / "r/one/examples.npz") as a,
        np.load(tmp_path / "r/two/examples.npz") as b,
    ):
        for key in a.files:
            assert np.allclose(a[key], b[key], rtol=1e-4), key
        assert (a["pgd5/by"] >= 0).any()
    mine, theirs = (records.read(tmp_path / "r" / name) for name in ("one", "two"))
    assert mine.worst_case_accuracy == theirs.worst_case_accuracy


@pytest.mark.parametrize(
    ("precision", "narrow", "search"),
    [
        ("exact", True, "float32"),
        ("auto", False, "float32"),  # too short for a trial
        ("auto", True, "bfloat16, BatchNorm folded"),
    ],
)
def test_the_record_says_what_the_search_ran_in(
    precision, narrow, search, tmp_path, net, monkeypatch
):
    with_bf16(monkeypatch, narrow=narrow)
    found, _ = evaluated(tmp_path, net, config("fgsm", n=8, precision=precision))
    assert found.search == search


def test_what_a_stage_has_broken_goes_through_no_other():
    column = AttackVerdicts.empty(3)
    column.arrays["by"][0] = 0
    column.arrays["stages"][:] = [1, 1, 0]
    assert column.waiting(1, minimal=False).tolist() == [False, True, True]
    assert column.waiting(1, minimal=True).tolist() == [True, True, True]
    assert column.waiting(0, minimal=False).tolist() == [False, False, True]


class Contiguous(torch.nn.Module):
    """Complains of images that lie in memory as a large kernel does not like them."""

    def forward(self, x):
        assert x.is_contiguous()
        return x


def test_an_evaluation_lays_its_model_out_as_training_does(tmp_path):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 176, 3),
        torch.nn.Conv2d(176, 176, 3),  # over a mebibyte
        Contiguous(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 176, 10),
    ).to(memory_format=torch.channels_last)
    record, _ = evaluated(tmp_path, net.eval(), config("fgsm", n=4))
    assert record.status == "ok"
