"""Attacks with a target, and AutoAttack with few classes, in an evaluation and its record."""

import numpy as np
import pytest
import torch

from robustbench_cli import Threat, UserError, attack, evaluate
from robustbench_cli.cli import main
from robustbench_cli.report.columns import columns
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.report.target_share import TargetShare
from robustbench_cli.runs import folders

EPS = Threat("Linf", 0.15)


def of_classes(net, x, y, classes):
    """The net and the images cut down to the first classes."""

    class Cut(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z)[:, :classes]

    few = y < classes
    return Cut(), x[few], y[few]


def test_what_is_counted_is_the_target_among_images_of_other_classes(net, images, labels):
    found = evaluate(net, images, labels, attacks=["pgd10:target=3", "pgd10"], threat=EPS)
    outcome, verdicts = found.record.targeted["pgd10:target=3"], found.verdicts["pgd10:target=3"]
    aims = verdicts["target"]
    tried = found.clean_correct & (labels.numpy() != 3)
    assert np.array_equal(aims, np.where(tried, 3, -1))
    reached = tried & (verdicts["prediction"] == 3)
    assert 0 < reached.sum() < tried.sum()
    assert (outcome.n, outcome.reached) == (tried.sum(), reached.sum())
    assert outcome.n + outcome.of_the_target + outcome.wrong == len(labels)
    assert found.targets_reached == {"pgd10:target=3": reached.sum() / tried.sum()}
    assert np.array_equal(verdicts["share"] == 0, reached)


def test_no_robust_accuracy_is_touched(net, images, labels):
    alone = evaluate(net, images, labels, attacks="pgd5", threat=EPS)
    beside = evaluate(net, images, labels, attacks=["pgd40:target=random", "pgd5"], threat=EPS)
    assert beside.robust_accuracy == alone.robust_accuracy
    assert beside.worst_case_accuracy == alone.worst_case_accuracy
    assert [*beside.record.attacks] == ["pgd5"]
    only = evaluate(net, images, labels, attacks="square50:target=next", threat=EPS)
    assert only.robust_accuracy == {}
    assert only.worst_case_accuracy == only.clean_accuracy


def test_a_table_shows_the_share_in_a_column_of_its_own(net, images, labels, tmp_path):
    attacks = ["pgd10:target=next", "pgd10"]
    evaluate(net, images, labels, attacks=attacks, threat=EPS, out=tmp_path)
    runs = folders.every(tmp_path)
    assert "pgd10:target=next reached" in {each.name for each in columns(runs, {}).values()}
    (row,) = rows(runs)
    cell, worst = row.cells["pgd10:target=next reached"], row.cells["worst"]
    assert isinstance(cell, TargetShare)
    assert not cell.competes
    (run,) = runs
    outcome = run.targeted["pgd10:target=next"]
    assert cell.text == f"{100 * outcome.success_rate:.2f} of {outcome.n}"
    assert worst.values == row.cells["pgd10"].values


def test_screen_and_report_say_that_it_is_no_robust_accuracy(net, images, labels, tmp_path, capsys):
    attacks = ["pgd10:target=next", "pgd10"]
    result = evaluate(net, images, labels, attacks=attacks, threat=EPS, out=tmp_path)
    table = result.table()
    assert "targets reached" in table
    assert "it is no robust accuracy" in table
    assert main(["report", "--results", str(tmp_path), "--format", "md"]) == 0
    assert "it is no robust accuracy" in capsys.readouterr().out
    only = ["--attack", "pgd10:target=*", "--format", "csv"]
    assert main(["report", "--results", str(tmp_path), *only]) == 0
    head = capsys.readouterr().out.splitlines()[0].split(",")
    assert "pgd10:target=next reached" in head
    assert "pgd10" not in head


def test_targets_that_are_reached_where_all_else_failed_are_told(net, images, labels):
    weak, strong = "fgsm:step=0.3", "pgd40:target=next"
    found = evaluate(net, images, labels, attacks=[weak, strong], threat=Threat("Linf", 0.3))
    fell = (found.verdicts[strong]["target"] >= 0) & (found.verdicts[strong]["share"] == 0)
    extra = int((fell & ~found.broken[weak]).sum())
    assert extra > 0
    (said,) = [each for each in found.findings if each.check == "targets-reached"]
    assert (said.images, said.severity, said.attacks) == (extra, "info", [weak])
    assert said.value == pytest.approx(100 * (found.worst_case_accuracy - extra / len(labels)))


def test_a_batch_in_memory_takes_targets(net, images, labels):
    found = attack("pgd20:target=3", net, images, labels, threat=Threat("Linf", 0.3))
    assert found.broken.any()
    assert torch.equal(found.broken, (net.eval()(found.x).argmax(1) == 3) & (labels != 3))
    assert torch.equal(found.x[labels == 3], images[labels == 3])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pgd20:target=10", "from 0 to 9"),
        ("deepfool:target=1", "takes no target"),
        ("pgd20:climbs=kl,target=1", "takes no target"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(name, said, net, images, labels):
    with pytest.raises(UserError, match=said):
        evaluate(net, images, labels, attacks=name, threat=EPS)


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "--attack", "pgd5:target=1", "--sweep", "eps=0.1,0.2"],
        ["eval", "--attack", "pgd5:target=1", "--fail-under", "40"],
        ["eval", "--attack", "pgd5:target=1", "--fail-under", "worst=40"],
        ["audit", "--attack", "pgd5:target=1"],
        ["detect", "eval", "--attack", "pgd5:target=1"],
    ],
)
def test_commands_about_robust_accuracy_refuse_targets(command, trained, capsys):
    assert main([*command, "--out", str(trained), "--n", "8", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("advbench: ")
    assert len(err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of results with one run of a minute's training cut to a second."""
    out = tmp_path_factory.mktemp("results")
    small = ["--epochs", "1", "--set", "train.limit=64", "--set", "train.probe=0", "--quiet"]
    assert main(["train", "standard", "--out", str(out), "--name", "mine", *small]) == 0
    return out


@pytest.mark.parametrize(
    ("classes", "members"),
    [
        (2, ["apgd-ce", "apgd-margin", "fab-t", "square"]),
        (3, ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
    ],
)
def test_autoattack_with_few_classes_runs_what_is_defined_and_says_so(
    classes, members, net, images, labels, tmp_path
):
    few, x, y = of_classes(net, images, labels, classes)
    attacks = ["autoattack", "pgd5"]
    threat = Threat("Linf", 0.35)
    result = evaluate(few, x, y, attacks=attacks, threat=threat, out=tmp_path)
    outcome = result.record.attacks["autoattack"]
    assert [*dict.fromkeys(outcome.stages)] == members
    assert outcome.variant == f"{classes} classes: {' + '.join(members)}"
    assert (result.broken["pgd5"] <= result.broken["autoattack"]).all()
    assert result.broken["autoattack"].any()
    title = f"autoattack ({outcome.variant})"
    assert title in result.table()
    assert title in {each.name for each in columns(folders.every(tmp_path), {}).values()}


def test_with_enough_classes_it_is_the_standard_one(net, images, labels):
    few, x, y = of_classes(net, images, labels, 4)
    result = evaluate(few, x, y, attacks="autoattack", threat=Threat("Linf", 0.5))
    outcome = result.record.attacks["autoattack"]
    assert outcome.variant == ""
    assert [*dict.fromkeys(outcome.stages)] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert outcome.stages.count("apgd-t") == outcome.stages.count("fab-t") == 3
