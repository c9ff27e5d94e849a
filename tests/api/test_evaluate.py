"""``evaluate``: the verdicts of the command line, whatever the images and the model come as."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robustbench_cli import Finding, Threat, UserError, evaluate, load_run
from robustbench_cli.api.lent_model import model_digest
from robustbench_cli.api.result import read_result
from robustbench_cli.attacks import ATTACKS, Iterated
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.cli import main
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.runs import folders, records

EPS = Threat("Linf", 0.12)
SMALL = ["--epochs", "2", "--set", "train.limit=300", "--set", "train.probe=0"]


def same_verdicts(one, other):
    """Compare two results, or a result with the arrays of an ``examples.npz``, bit for bit.

    Only distances may differ by rounding: some processors compute with other kernels for another
    size of the batch.
    """
    mine = {f"{label}/{key}": a for label, found in one.items() for key, a in found.items()}
    assert mine.keys() == {key for key in other if "/" in key}
    for key, values in mine.items():
        near = np.isclose(values, other[key], rtol=1e-5) | (values == other[key])
        assert (near if key.endswith("/norm") else values == other[key]).all(), key
        assert values.dtype == other[key].dtype, key


def flat(result):
    return {f"{label}/{key}": a for label, f in result.verdicts.items() for key, a in f.items()}


def test_verdicts_are_the_command_lines_example_by_example(tmp_path):
    out = ["--out", str(tmp_path), "--quiet"]
    assert main(["train", "pgd-at:steps=2", "--name", "mine", *SMALL, *out]) == 0
    attacks = ["pgd5", "pgd:steps=4,restarts=2", "cw5", "fmn:steps=10", "square:queries=30"]
    options = [word for each in attacks for word in ("--attack", each)]
    assert main(["eval", *options, "--n", "60", "--seed", "3", *out]) == 0
    judged, run = folders.every(tmp_path)[-1], load_run(tmp_path / "mine")
    x, y = run.test_images(60)
    result = evaluate(run.model, x, y, attacks=attacks, threat=run.threat, seed=3, batch_size=17)
    with np.load(tmp_path / judged.id / "examples.npz") as arrays:
        same_verdicts(result.verdicts, dict(arrays))
        assert np.array_equal(result.labels, arrays["label"])
    assert result.record.dataset["test_sha256"] != judged.dataset["test_sha256"]  # 60 of 500
    assert result.clean_accuracy == judged.clean_accuracy
    assert result.worst_case_accuracy == judged.worst_case_accuracy
    assert result.robust_accuracy == {k: v.robust_accuracy for k, v in judged.attacks.items()}
    assert (result.record.search, list(result.notes)) == (judged.search, judged.notes)
    assert 0 < result.broken["pgd5"].sum() < result.clean_correct.sum()
    for label in attacks:
        robust = result.clean_correct & ~result.broken[label]
        assert robust.mean() == pytest.approx(result.robust_accuracy[label])


def test_a_whole_test_set_has_the_command_lines_fingerprint(net, tmp_path):
    out = ["--out", str(tmp_path), "--quiet"]
    assert main(["train", "standard", "--epochs", "1", "--name", "mine", *SMALL[2:], *out]) == 0
    assert main(["eval", "--attack", "fgsm", *out]) == 0
    x, y = load_run("mine", results=tmp_path).test_images()
    result = evaluate(net, x, y, attacks="fgsm", threat=EPS)
    assert (
        result.record.dataset["test_sha256"] == folders.every(tmp_path)[-1].dataset["test_sha256"]
    )


@pytest.fixture
def forms(images, labels):
    """The same images, as callers may have them."""
    as_bytes = (images * 255).round().to(torch.uint8)
    array, listed = as_bytes.numpy(), labels.tolist()
    half, more = TensorDataset(images, labels), TensorDataset(as_bytes, labels)
    return {
        "uint8": (as_bytes, labels),
        "uint8 array": (array, labels.numpy()),
        "channels last": (array.transpose(0, 2, 3, 1), listed),
        "float64 array": (array.astype(np.float64) / 255, listed),
        "big-endian array": ((array / np.float32(255)).astype(">f4"), np.array(listed, ">i2")),
        "read backwards": (array[::-1][::-1], labels.to(torch.uint8)),
        "channels_last tensor": (images.to(memory_format=torch.channels_last), tuple(listed)),
        "needs a gradient": (images.clone().requires_grad_(), labels),
        "DataLoader": (DataLoader(half, batch_size=7), None),
        "DataLoader of uint8": (DataLoader(more, batch_size=24), None),
        "list of batches": (iter([(array[:5], listed[:5]), (array[5:], listed[5:])]), None),
    }


def test_all_forms_of_images_get_the_same_verdicts(forms, net, images, labels):
    before, asked = images.clone(), {"attacks": ["pgd5", "cw5"], "threat": EPS, "checks": False}
    expected = evaluate(net, images, labels, **asked)
    for form, (x, y) in forms.items():
        found = evaluate(net, x, y, **asked)
        same_verdicts(found.verdicts, flat(expected))
        assert found.record.dataset == expected.record.dataset, form
    assert torch.equal(images, before)


def test_pixels_between_the_levels_are_attacked_as_they_are(net, images, labels):
    x = (images * 0.9 + 0.03).contiguous()
    result = evaluate(net, x, labels, attacks="pgd5", threat=EPS)
    with torch.no_grad():
        right = (net.eval()(x).argmax(1) == labels).numpy()
    assert np.array_equal(result.clean_correct, right)
    levels = (x * 255).round().to(torch.uint8)
    assert (
        evaluate(net, levels, labels, attacks="pgd5", threat=EPS).record.dataset["test_sha256"]
        != (result.record.dataset["test_sha256"])
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_inside_no_grad_and_inference_mode(mode, net, images, labels):
    expected = evaluate(net, images, labels, attacks="pgd5", threat=EPS)
    with mode():
        inside = images.clone()
        found = evaluate(net, inside, labels, attacks="pgd5", threat=EPS)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    same_verdicts(found.verdicts, flat(expected))


def test_attacks_may_be_dataclasses_and_suites(net, images, labels):
    chosen = [PGD(steps=3, restarts=2), "first-look"]
    result = evaluate(net, images, labels, attacks=chosen, threat=EPS)
    assert "pgd:steps=3,restarts=2" in result.robust_accuracy
    assert len(result.robust_accuracy) > 1
    named = evaluate(net, images, labels, attacks="pgd:steps=3,restarts=2", threat=EPS)
    same = result.verdicts["pgd:steps=3,restarts=2"], named.verdicts["pgd:steps=3,restarts=2"]
    assert all(np.array_equal(same[0][key], same[1][key]) for key in same[1])


def test_an_attack_of_ones_own_need_not_be_registered(net, images, labels):
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Mine(Iterated):
        """PGD on the logit margin."""

        def loss(self, out, state, task, step_index):
            return -out.logits.gather(1, task.y[:, None]).squeeze(1)

    assert "Mine" not in ATTACKS.names()
    result = evaluate(net, images, labels, attacks=[Mine(steps=5)], threat=EPS)
    assert result.broken["Mine:steps=5"].sum() > 0


class Random(nn.Module):
    """Noise on the logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        logits = self.net(x)
        return logits + torch.randn_like(logits)


def test_findings_say_what_may_mislead(net, images, labels):
    result = evaluate(Random(net), images[:6], labels[:6], attacks="pgd2", threat=EPS)
    assert "randomised" in result.findings[0].message
    assert result.trust == {"pgd2": "upper bound"}
    assert any("randomised" in line for line in repr(result).splitlines())

    class Probable(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).softmax(1)

    result = evaluate(Probable(), images, labels, attacks="fgsm", threat=EPS)
    assert any("probabilities" in each.message for each in result.findings)
    assert result.trust == {"fgsm": "upper bound"}


def test_progress_is_shown_only_on_request(net, images, labels, capsys):
    evaluate(net, images, labels, attacks="pgd2", threat=EPS)
    assert capsys.readouterr() == ("", "")
    evaluate(net, images, labels, attacks="pgd2", threat=EPS, progress=True)
    shown = capsys.readouterr()
    assert "pgd2: " in shown.err
    assert not shown.out


def test_a_record_is_what_report_and_list_read(net, images, labels, tmp_path, capsys):
    options = {"threat": EPS, "out": tmp_path / "new", "dataset": "my data", "name": "first"}
    result = evaluate(net, images, labels, attacks=["pgd2"], model_name="my net", **options)
    assert result.folder == tmp_path / "new" / "first"
    run = records.read(result.folder)
    assert run.dataset["name"] == "my data"
    assert (run.dataset["test"], len(run.dataset["test_sha256"]), run.n) == (24, 64, 24)
    assert run.config["threat"] == {"norm": "Linf", "eps": 0.12}
    assert {path.name for path in result.folder.iterdir()} >= {"run.json", "examples.npz"}
    assert main(["report", "--results", str(tmp_path / "new"), "--format", "csv"]) == 0
    table = capsys.readouterr().out
    assert "my net" in table
    assert "my data" in table
    assert str(result.robust_accuracy["pgd2"]) in table
    assert main(["list", "runs", "--results", str(tmp_path / "new")]) == 0
    assert "my data" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists"):
        evaluate(net, images, labels, attacks=["pgd3"], **options)


def test_nothing_is_kept_without_out(net, images, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = evaluate(net, images, labels, attacks=["pgd2"], threat=EPS)
    assert result.folder is None
    assert not list(tmp_path.iterdir())
    assert result.table().splitlines()[0] == "Classifier on images, Linf eps 0.12"


def test_an_interrupted_evaluation_goes_on_to_the_same_verdicts(
    net, images, labels, tmp_path, monkeypatch
):
    chosen = {"attacks": ["pgd3", "cw5"], "threat": EPS, "batch_size": 5, "out": tmp_path}
    chosen["checks"] = False  # they count in no verdict
    begin, started = Journal.started, []

    def cut(self):
        started.append(1)
        if len(started) == 2:  # the second attack begins
            raise KeyboardInterrupt
        begin(self)

    monkeypatch.setattr(Journal, "started", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, images, labels, **chosen)
    (left,) = folders.every(tmp_path)
    assert (left.status, [*left.attacks]) == ("interrupted", ["pgd3"])
    # It goes on with the same model, images and settings only.
    for other in (
        evaluate(nn.Sequential(net), images, labels, **chosen),
        evaluate(net, images[:20], labels[:20], **chosen),
        evaluate(net, images, labels, **{**chosen, "seed": 1}),
    ):
        assert other.record.id != left.id
    again = evaluate(net, images, labels, **chosen)
    assert again.record.id == left.id
    assert len(again.record.resumed) == 1
    anew = evaluate(net, images, labels, **chosen)
    assert anew.record.id != left.id
    same_verdicts(again.verdicts, flat(anew))


class Scaled(nn.Module):
    """A number that is neither a parameter nor a buffer decides what it answers."""

    def __init__(self, net, scale):
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x):
        return self.net(x) * self.scale


def test_a_digest_sees_the_numbers_and_the_code_of_a_model(net):
    digests = {model_digest(Scaled(net, scale)) for scale in (1.0, 2.0, 1.0)}
    assert len(digests) == 2
    assert model_digest(net) not in digests
    net.train()
    assert model_digest(Scaled(net, 1.0)) in digests
    with torch.no_grad():
        next(net.parameters()).add_(1)
    assert model_digest(Scaled(net, 1.0)) not in digests


def judged(folder, run, **trusts):
    """Write an evaluation's record again, with other trusts and findings."""
    attacks = {
        label: replace(each, trust=trusts.get(label, each.trust))
        for label, each in run.attacks.items()
    }
    rest = {key: value for key, value in trusts.items() if key not in attacks}
    records.write(replace(run, attacks=attacks, **rest), folder)


def test_a_number_that_means_nothing_is_nan_and_the_others_are_there(net, images, labels, tmp_path):
    asked = {"attacks": ["fgsm", "pgd5"], "threat": EPS, "out": tmp_path, "checks": False}
    plain = evaluate(net, images, labels, **asked)
    assert {*plain.trust.values(), plain.clean_trust, plain.worst_case_trust} == {"unchecked"}
    assert plain.record.config["checks"] is False
    finding = Finding(check="batch", severity="error", message="depends", attacks=["fgsm"])
    judged(
        plain.folder,
        plain.record,
        fgsm="withheld",
        pgd5="upper bound",
        worst_case_trust="withheld",
        findings=[finding],
    )
    result = read_result(plain.folder)
    assert result.trust == {"fgsm": "withheld", "pgd5": "upper bound"}
    assert (result.worst_case_trust, result.findings) == ("withheld", (finding,))
    assert np.isnan([result.robust_accuracy["fgsm"], result.worst_case_accuracy]).all()
    assert result.robust_accuracy["pgd5"] == plain.robust_accuracy["pgd5"]
    assert result.clean_accuracy == plain.clean_accuracy
    judged(plain.folder, plain.record, clean_trust="withheld")
    assert np.isnan(read_result(plain.folder).clean_accuracy)
    lines = result.table().splitlines()
    assert next(line for line in lines if line.startswith("fgsm")).split()[:2] == [
        "fgsm",
        "withheld",
    ]
    assert "error: batch: depends (fgsm)" in lines
