"""``advbench reproduce PAPER``: what is made, what is left out, and ours beside the paper's."""

from unittest.mock import Mock

import pytest

from robustbench_cli import papers
from robustbench_cli.cli import comparing, main
from robustbench_cli.commands import training_estimate
from robustbench_cli.core.errors import UserError
from robustbench_cli.papers import reading
from robustbench_cli.runs import folders

WORDS = """title = "A paper on digits"
authors = "Nobody"
year = 2026

[methods]
plain = "standard"
robust = "pgd-at"
other = "unheard-of"

[attacks]
FGSM = "fgsm"

[[rules]]
epochs = 2
"""
CELLS = """table,method,dataset,architecture,norm,epsilon,attack,attack_params,metric,value,std,note
1,plain,Digits,,Linf,0.1,,,clean_acc,97.0,,
1,plain,Digits,,Linf,0.1,FGSM,,robust_acc,40.0,,
1,robust,Digits,,Linf,0.1,FGSM,,robust_acc,70.0,,
1,other,Digits,,Linf,0.1,FGSM,,robust_acc,71.0,,
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "digits-paper.toml").write_text(WORDS)
    (folder / "digits-paper.csv").write_text(CELLS)
    common = (papers.FOLDER / "common.toml").read_text()
    digits = '\n[datasets.Digits]\nname = "digits"\n'
    (folder / "common.toml").write_text(common + digits)
    load = reading.load_paper
    for module in (reading, comparing):
        monkeypatch.setattr(module, "load_paper", lambda name: load(name, folder))


@pytest.mark.usefixtures("in_warm_processes")
def test_it_trains_attacks_and_compares_and_does_nothing_twice(paper, tmp_path, capsys):
    out = tmp_path / "made"
    words = ["reproduce", "digits-paper", "--out", str(out), "--seeds", "3"]
    assert main([*words, "--workers", "2"]) == 0
    said = capsys.readouterr()
    assert "left out: 1 number: not here yet: unheard-of" in said.err
    assert "standard: 2 numbers" in said.err
    runs = {run.id: run for run in folders.every(out)}
    assert {run.kind for run in runs.values()} == {"train", "eval"}
    assert runs["standard-s3"].seed == 3
    assert "97.0" in said.out
    share = runs["standard-measured-s3"].attacks["fgsm"].robust_accuracy
    assert f"{100 * share:.2f}" in said.out
    made = {id_: run.created for id_, run in runs.items()}
    assert main([*words, "--workers", "2"]) == 0
    assert {run.id: run.created for run in folders.every(out)} == made


def test_a_dry_run_makes_nothing_and_names_the_commands(paper, tmp_path, capsys):
    out = tmp_path / "made"
    assert main(["reproduce", "digits-paper", "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("advbench train standard") == 3  # it takes seconds: three seeds
    assert "advbench eval --attack fgsm" in said
    assert not out.exists()


def test_a_dry_run_downloads_nothing(tmp_path, monkeypatch, capsys):
    asked = []

    def mnist(root, download, **_):
        asked.append(download)
        raise RuntimeError("Dataset not found")

    monkeypatch.setattr("torchvision.datasets.MNIST", mnist)
    words = ["reproduce", "gce", "--data-dir", str(tmp_path / "none"), "--dry-run"]
    assert main([*words, "--out", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out.count("needs mnist, which is not in") == 2
    assert asked == [False, False]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_warm_processes")
def test_a_training_that_cannot_be_tried_fails_by_name_and_the_others_go_on(
    paper, tmp_path, monkeypatch, capsys
):
    known = training_estimate.training_estimate

    def estimate(words, workspace):
        if "pgd-at" in words:
            raise KeyError("gone")
        return known(words, workspace)

    monkeypatch.setattr(training_estimate, "training_estimate", estimate)
    out = tmp_path / "made"
    words = ["reproduce", "digits-paper", "--out", str(out), "--seeds", "0"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "1 of 2 failed; pgd-at: KeyError: 'gone'" in said.err
    assert {run.id for run in folders.every(out)} == {"standard-s0", "standard-measured-s0"}
    assert "97.0" in said.out
    assert main([*words, "--dry-run"]) == 1


def test_what_takes_too_long_is_left_out_with_its_length(paper, tmp_path, capsys):
    out = tmp_path / "made"
    assert main(["reproduce", "digits-paper", "--out", str(out), "--hours", "0"]) == 2
    said = capsys.readouterr().err
    assert "minutes a training, --hours 0" in said
    assert "nothing of digits-paper can be made here within 0 hours" in said


def test_what_cannot_be_trained_is_left_out_however_many_hours_there_are(
    paper, tmp_path, monkeypatch, capsys
):
    lost = Mock(side_effect=UserError("no digits here"))
    monkeypatch.setattr(training_estimate, "training_estimate", lost)
    words = ["reproduce", "digits-paper", "--out", str(tmp_path / "made"), "--hours", "inf"]
    assert main(words) == 2
    assert "left out: standard: 2 numbers: no digits here" in capsys.readouterr().err


@pytest.mark.usefixtures("in_warm_processes")
def test_what_came_of_other_commands_is_named(paper, tmp_path, capsys):
    words = ["reproduce", "digits-paper", "--out", str(tmp_path / "made"), "--seeds", "0"]
    assert main([*words, "--workers", "2"]) == 0
    file = tmp_path / "papers" / "digits-paper.toml"
    file.write_text(WORDS.replace("epochs = 2", "epochs = 1"))
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "note: made/standard-s0, made/pgd-at-s0 came of other commands" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unknown-paper"], "unknown paper"),
        (["gce", "--table", "9"], "no table"),
        (["gce", "--dataset", "cifar10"], "no numbers on"),
        (["gce", "--dataset", "mnist", "--seeds", "x"], "is no seed"),
    ],
)
def test_mistakes_cost_a_line(words, said, tmp_path, capsys):
    assert main(["reproduce", *words, "--out", str(tmp_path / "made")]) == 2
    assert said in capsys.readouterr().err
