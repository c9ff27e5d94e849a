"""A study's file: the matrix, the names of folders, and what is refused."""

import shlex
from dataclasses import replace

import pytest

from robustbench_cli.cli import main, program
from robustbench_cli.cli.study import accepted_options
from robustbench_cli.commands import job_runner, study_file, study_jobs
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs.widened_n import WidenedN

MATRIX = """\
# Does a modifier pay?
seeds = [0, 3]
defenses = ["pgd-at", "trades:beta=3+awp"]
attacks = ["pgd20", "pgd:steps=50,restarts=2"]
train = "--epochs 2 --lr 0.1 --smoke"
eval = "--n 50"
data = ["digits", "folder:/home/me/photos,size=32"]
"""


@pytest.fixture
def load(tmp_path):
    def read(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return study_file.load_study(str(path))

    return read


def jobs(study, data):
    terms = study_jobs.SharedOptions(common={"--out": "o/digits"}, takes=accepted_options)
    return study_jobs.study_jobs(study, data, terms)


def test_a_matrix_is_every_defense_with_every_seed_under_every_attack_on_all_data(load):
    study = load(MATRIX)
    assert [*study.data] == ["digits", "folder:/home/me/photos,size=32"]
    found = jobs(study, "digits")
    assert [job.id for job in found] == [
        "pgd-at-s0",
        "trades-beta-3+awp-s0",
        "pgd-at-s3",
        "trades-beta-3+awp-s3",
    ]
    assert found[1].key == "digits/trades-beta-3+awp-s0"
    train, evaluate = (shlex.join(command.words) for command in found[1].commands)
    assert train == (
        "train --epochs 2 --lr 0.1 --smoke trades:beta=3+awp --dataset digits --seed 0 --name "
        "trades-beta-3+awp-s0 --out o/digits --quiet"
    )
    assert evaluate.startswith(
        "eval --attack pgd20 --attack pgd:steps=50,restarts=2 --n 50 --run trades-beta-3+awp-s0"
    )


def test_words_of_a_data_set_go_before_those_of_the_study(load):
    text = MATRIX.replace('data = ["digits", "folder:/home/me/photos,size=32"]', "")
    study = load(text + '[data.digits]\ntrain = "--lr 0.2"\neval = "--n 20 --attack fgsm"\n')
    train, evaluate = (shlex.join(command.words) for command in jobs(study, "digits")[0].commands)
    assert "train --epochs 2 --smoke --lr 0.2 pgd-at" in train
    assert "--n 50" not in evaluate
    assert evaluate.count("--attack") == 3


def test_runs_beside_the_matrix_build_on_its_rows(load):
    study = load(MATRIX + '[runs]\ntuned = "trades --init {pgd-at}"\n')
    (tuned,) = [job for job in jobs(study, "digits") if job.id == "tuned-s3"]
    assert tuned.after == {"pgd-at-s3"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", "digits"),
        ("trades:beta=3+awp", "trades-beta-3+awp"),
        ("hf:/data/cifar10-jpeg", "hf-cifar10-jpeg"),
        ("hf:org/name,label=fine", "hf-name-label-fine"),
        ("folder:../photos/", "folder-photos"),
        ("...", "study"),
    ],
)
def test_the_name_of_a_folder_is_plain(text, name):
    assert study_file.plain_name(text) == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('["pgd-at", "trades:beta=3+awp"]', "[]"), "it trains nothing: add defenses"),
        (('["digits", "folder:/home/me/photos,size=32"]', "[]"), "it has no data set"),
        (('"pgd-at", ', '"pgd-at", "pgd:at", '), "'pgd-at' and 'pgd:at' would share the folder"),
        (('"digits", ', '"folder:/a/photos,size=32", '), "would share the folder"),
        (("seeds", "seedz"), "seedz: Unexpected"),
        (("seeds", 'runs = { "../up" = "trades" }\nseeds'), "'../up' is to name a folder: call it"),
        (('["pgd20", "pgd:steps=50,restarts=2"]', "[]"), None),  # eval says --n only
    ],
)
def test_what_a_matrix_cannot_mean_is_one_line(load, change, message):
    text = MATRIX.replace(*change)
    if message is None:
        text, message = text.replace('eval = "--n 50"\n', ""), "it attacks with nothing"
    with pytest.raises(UserError, match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_data_on_request_is_left_out_unless_it_is_named(load):
    text = MATRIX.replace('data = ["digits", "folder:/home/me/photos,size=32"]', "")
    study = load(text + "[data.digits]\n[data.mnist]\non_request = true\n")
    assert study_file.chosen_data(study, []) == ["digits"]
    assert study_file.chosen_data(study, ["mnist"]) == ["mnist"]
    with pytest.raises(UserError, match="no data set 'mnits'; did you mean 'mnist'"):
        study_file.chosen_data(study, ["mnits"])


def test_new_writes_a_study_that_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "new", "mine.toml"]) == 0
    assert capsys.readouterr().out == "mine.toml\n"
    assert "advbench study mine.toml" in (tmp_path / "mine.toml").read_text()
    assert main(["study", "mine.toml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * 3 * 2
    for line in lines:
        _, name, *words = shlex.split(line)
        program().commands[name].make_context(name, words)
    assert main(["study", "new", "mine.toml"]) == 2
    assert "exists: choose another name" in capsys.readouterr().err
    assert main(["study", "nwe.toml"]) == 2
    assert "no study file 'nwe.toml'" in capsys.readouterr().err


def test_what_the_template_shows_as_comments_is_understood(tmp_path):
    from robustbench_cli.cli.study_template import STUDY_TEMPLATE

    lines = STUDY_TEMPLATE.format(file="mine.toml").splitlines()
    shown = [
        line.removeprefix("# ")
        if line.startswith(("# [", "# train", "# eval", "# on_"))
        or (line.startswith("# ") and " = " in line)
        else line
        for line in lines
    ]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(shown))
    study = study_file.load_study(str(path))
    assert {*study.data} == {"digits", "mnist"}
    assert {*study.steps} == {"transfer"}
    found = {job.id: job for job in jobs(study, "digits")}
    assert found["student-s0"].after == {"pgd-at-s0"}


def test_options_may_come_before_the_file(capsys):
    assert main(["study", "--seeds", "0", "trades-beta", "--dry-run"]) == 0
    first = capsys.readouterr().out
    assert main(["study", "run", "trades-beta", "--seeds", "0", "--dry-run"]) == 0
    assert capsys.readouterr().out == first
    for words in (["--help"], ["new", "-h"], []):
        assert main(["study", *words]) in (0, 2)
        assert "Usage" in capsys.readouterr().out


def test_bench_is_still_understood(capsys):
    assert main(["bench", "trades-beta", "--seeds", "0", "--dry-run"]) == 0
    assert "results/trades-beta/digits" in capsys.readouterr().out


def test_an_option_is_the_same_with_and_without_an_equals_sign(load):
    """Of the data set's words those that replace the study's, and no attack twice."""
    text = MATRIX.replace('data = ["digits", "folder:/home/me/photos,size=32"]', "")
    study = load(text + '[data.digits]\ntrain = "--lr=0.2"\neval = "--n=20 --attack=pgd20"\n')
    train, evaluate = (shlex.join(command.words) for command in jobs(study, "digits")[0].commands)
    assert "train --epochs 2 --smoke --lr 0.2 pgd-at" in train
    assert "--lr 0.1" not in train
    assert evaluate.count("--n ") == 1
    assert "--n 20" in evaluate
    assert evaluate.count("--attack pgd20") == 1
    own = load(MATRIX + "[runs]\ntuned = 'trades --lr=0.3 --set=train.decay=0 --dataset=mnist'\n")
    (tuned,) = [job for job in jobs(own, "digits") if job.id == "tuned-s3"]
    words = tuned.commands[0].words
    assert [words.count(option) for option in ("--lr", "--dataset")] == [1, 1]
    assert words[words.index("--set") + 1] == "train.decay=0"


@pytest.mark.parametrize(("looks", "finished"), [(1, False), (2, True)])
def test_an_evaluation_that_is_due_to_look_at_more_images_is_not_finished(
    looks, finished, tmp_path, kept, trained, evaluated
):
    ends = (0.4, 0.6)
    widened = WidenedN(
        asked=2, sizes=[250, 500], looks=looks, alpha=0.05, clean=ends, attacks={"pgd20": ends}
    )
    run = replace(evaluated(trained("trades"), {"pgd20": ({}, 50)}), widened=widened)
    kept(tmp_path, run)
    command = study_jobs.JobCommand(folder=run.id, words=("eval",), again=("eval",))
    job = study_jobs.Job(id="net", results=tmp_path, commands=(command,), after=frozenset())
    assert run.status == "ok"
    assert job_runner.is_finished(job) == finished


def test_a_command_that_was_written_otherwise_is_not_another_one(tmp_path, kept, trained):
    run = replace(trained("trades", id="trades-s0"), command=["train", "trades", "--lr=0.1"])
    kept(tmp_path, run)

    def made(*words):
        command = study_jobs.JobCommand(folder=run.id, words=("train", "trades", *words))
        return study_jobs.Job(id=run.id, results=tmp_path, commands=(command,), after=frozenset())

    assert job_runner.made_otherwise(made("--lr", "0.1", "--out=there", "--quiet")) == []
    assert job_runner.made_otherwise(made("--lr", "0.2")) == [f"{tmp_path.name}/trades-s0"]
