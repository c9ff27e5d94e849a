"""``advbench invert`` from a trained run to its table, and its mistakes."""

import json

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.inversion import classifier
from robustbench_cli.runs import folders
from robustbench_cli.training import inverter

SMALL = ("train.limit=700", "train.probe=0", "model.width=8")
TRAIN = ["--epochs", "4", *(word for each in SMALL for word in ("--set", each))]
ATTACK = [
    *("--attacker", "100", "--n", "20", "--width", "32", "--lr", "0.005"),
    *("--epochs", "6", "--batch-size", "16", "--quiet"),
]
ROWS = [
    *("the images themselves", "mean image", "class mean", "prediction"),
    *("prediction+gradient", "prediction+gradient, shuffled"),
]


@pytest.fixture(autouse=True, scope="module")
def short_classifiers():
    """Classifiers of the auditor's own are trained for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_UPDATES", 30)
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("invert") / "results"
    assert main(["train", "standard", "--name", "net", "--out", str(out), "--quiet", *TRAIN]) == 0
    command = ["invert", "--run", "net", "--expose", "gradient", "--name", "audit", *ATTACK]
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_the_record_holds_splits_settings_and_every_row(results):
    run = next(run for run in folders.every(results) if run.kind == "invert")
    assert (run.n, run.parent, run.subject) == (20, "net", "standard")
    assert run.config["splits"] == {
        "victim": "train 0-699",
        "attacker": "train 700-799",
        "evaluation": "test 0-19",
    }
    assert [*run.config["invert"]["expose"]] == ["gradient"]
    assert run.config["invert"]["fusion"] == "both"
    assert [*dict.fromkeys(m.of for m in run.measures)] == ROWS
    names = ["MSE", "PSNR", "SSIM", "embedding", "victim recognises", "independent recognises"]
    for row in ROWS:
        assert [m.name for m in run.measures if m.of == row] == names
    assert not [*(results / "audit").glob("unfinished*")]


def test_the_file_holds_the_images(results):
    with np.load(results / "audit" / "reconstructions.npz") as found:
        assert {*found} == {"index", "label", *ROWS}
        for row in ROWS:
            assert found[row].shape == (20, 1, 8, 8)
            assert found[row].dtype == np.uint8
        assert (found["mean image"] == found["mean image"][0]).all()
        run = next(run for run in folders.every(results) if run.kind == "invert")
        errors = {m.of: m.value for m in run.measures if m.name == "MSE"}
        real = found["the images themselves"] / 255
        for row in ROWS:
            assert ((found[row] / 255 - real) ** 2).mean() == pytest.approx(errors[row], abs=1e-3)


def test_an_interrupted_audit_goes_on_to_the_numbers_of_the_same_command(
    results, tmp_path, capsys, monkeypatch
):
    command = ["invert", "--run", str(results / "net"), "--expose", "gradient", *ATTACK]
    command += ["--out", str(tmp_path), "--json"]
    monkeypatch.setattr(inverter, "_SAVED_EVERY", -1.0)
    plain = inverter.mean_squared_error

    def stop(net, data, batch):
        calls.append(net)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(net, data, batch)

    calls = []
    monkeypatch.setattr(inverter, "mean_squared_error", stop)
    assert main(command) == 130
    (folder,) = tmp_path.glob("invert-*")
    assert [*folder.glob("unfinished*")]
    capsys.readouterr()
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)["measures"]
    assert [*tmp_path.glob("invert-*")] == [folder]
    assert sum(net is calls[4] for net in calls) == 6 - 3  # epochs that were done are not repeated
    run = next(run for run in folders.every(results) if run.kind == "invert")
    assert [(m["of"], m["name"], m["value"]) for m in again] == [
        (m.of, m.name, m.value) for m in run.measures
    ]


def test_a_surrogate_needs_no_explanation_of_the_victim(results, tmp_path, capsys):
    command = ["invert", "--run", str(results / "net"), "--expose", "gradient", "--surrogate"]
    assert main([*command, *ATTACK, "--out", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "prediction+gradient (surrogate)" in table
    assert "prediction+gradient (surrogate), shuffled" in table


def test_the_report_has_a_table_of_it(results, capsys):
    assert main(["report", "--kind", "invert", "--results", str(results), "-f", "md"]) == 0
    table = capsys.readouterr().out
    assert "| model | of | MSE | PSNR | SSIM |" in table
    assert "| standard | prediction+gradient |" in table
    assert main(["report", "--kind", "explain", "--results", str(results)]) == 2
    assert "no finished run of advbench explain" in capsys.readouterr().err
    assert main(["report", "--kind", "invrt", "--results", str(results)]) == 2
    assert "did you mean 'invert'" in capsys.readouterr().err


def test_the_picture_can_be_drawn_again(results, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "rows.png"
    assert (
        main(["plot", "reconstructions:images=3", "--results", str(results), "--out", str(file)])
        == 0
    )
    assert file.stat().st_size > 1000
    assert (results / "audit" / "reconstructions.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--expose", "gradiant"], "did you mean 'gradient'"),
        (["--expose", "gradient", "--expose", "gradient"], "given twice"),
        (["--fusion", "unit"], "did you mean 'unet'"),
        (["--lr", "0"], "--lr 0: give a number above 0"),
        (["--seed=-1"], "--seed -1"),
        (["--surrogate"], "--surrogate needs an explanation"),
        (["--n", "100000"], "--n 100000"),
        (["--attacker", "5000"], "--attacker 5000"),
        (["--classifier", "smal-cnn"], "did you mean 'small-cnn'"),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(results, tmp_path, capsys, words, said):
    command = ["invert", "--run", str(results / "net"), "--out", str(tmp_path / "new"), *words]
    assert main(command) == 2
    found = capsys.readouterr().err
    assert said in found
    assert len(found.splitlines()) == 1
    assert not [*(tmp_path / "new").glob("*/run.json")]


def test_an_attack_that_is_cut_short_is_marked(results, tmp_path, capsys):
    command = ["invert", "--run", str(results / "net"), *ATTACK, "--out", str(tmp_path)]
    longer = {"100": "200", "32": "64", "0.005": "0.001", "6": "12"}
    command = [longer.get(word, word) for word in command]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "* standard, prediction, MSE: the attack still improved after 12 epochs" in table


def test_an_attack_that_learns_nothing_is_tried_slower_and_says_so(results, tmp_path, capsys):
    command = ["invert", "--run", str(results / "net"), *ATTACK, "--out", str(tmp_path)]
    command[command.index("0.005")] = "30"  # so large that every ReLU dies
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "learned nothing" in table
    run = next(iter(folders.every(tmp_path)))
    errors = {m.of: m for m in run.measures if m.name == "MSE"}
    assert errors["prediction"].note
