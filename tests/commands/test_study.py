"""Many trainings and evaluations from one file."""

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from robustbench_cli.cli import main, program
from robustbench_cli.cli.study import accepted_options
from robustbench_cli.commands import components, job_runner, study_file, study_jobs, train_config
from robustbench_cli.config import presets
from robustbench_cli.config.schema import spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import Recipe
from robustbench_cli.runs import records

SMALL = """\
# Two runs, one of which builds on the other.
seeds = [4]
eval = "--attack fgsm"

[data.digits]
train = "--epochs 1 --batch-size 256 --set train.probe=0"
eval = "--n 20"

[runs]
standard = "standard"
tuned = "pgd-at:steps=1 --init {standard} --batch-size 128"
"""
STEPS = """\
more = "pgd-at:steps=1 --set train.limit=200 --extra-data npz:{results}/{images}/samples.npz"

[steps]
images = "synth sample {known} --n 300"
known = "synth fit gaussian --limit 200"
both = "joint --run {standard} --run {tuned} --eps 0.1 --n 20 --steps 2"
average = "joint --run {standard} --run {tuned} --eps 0.1 --n 20 --steps 2 --weights avg"
"""


def listed(path, dataset="digits", only=(), **common):
    terms = study_jobs.SharedOptions(common={"--out": "o", **common}, takes=accepted_options)
    return study_jobs.study_jobs(study_file.load_study(str(path)), dataset, terms, only)


@pytest.fixture
def in_this_process(monkeypatch):
    """Commands of a study run in this process, which has loaded torch already.

    That each has a process of its own is tested where a study is run, stopped and told of.
    """

    def called(words, *_):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
            status = main([*words])
        return said.getvalue().strip().splitlines()[-1] if status else ""

    monkeypatch.setattr(job_runner, "_call", called)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_jobs_name_what_they_build_on(small):
    first, second = listed(small)
    assert (first.id, first.after) == ("standard-s4", frozenset())
    assert (second.id, second.after) == ("tuned-s4", {"standard-s4"})
    train, evaluate = second.commands
    assert " ".join(train.words) == (
        "train --epochs 1 --set train.probe=0 pgd-at:steps=1 --init standard-s4 --batch-size 128 "
        "--dataset digits --seed 4 --name tuned-s4 --out o --quiet"
    )
    assert " ".join(train.again) == "train --resume tuned-s4 --out o --quiet"
    assert " ".join(evaluate.words) == (
        "eval --attack fgsm --n 20 --run tuned-s4 --name tuned-s4-eval --out o --quiet"
    )


def test_one_run_brings_along_what_it_needs(small):
    assert [job.id for job in listed(small, only=["tuned"])] == ["standard-s4", "tuned-s4"]
    assert len(listed(small, only=["standard"])) == 1


def test_steps_are_told_what_they_take_and_come_before_what_needs_them(small):
    small.write_text(SMALL + STEPS)
    found = listed(small, only=["more"], **{"--device": "cpu", "--data-dir": "d"})
    words = [" ".join(job.commands[0].words) for job in found]
    assert words == [
        "synth fit gaussian --limit 200 --dataset digits --name known-s4 --out o --data-dir d "
        "--quiet",
        "synth sample known-s4 --n 300 --seed 4 --name images-s4 --out o --quiet",
        "train --epochs 1 --batch-size 256 --set train.probe=0 pgd-at:steps=1 --set "
        "train.limit=200 --extra-data npz:o/images-s4/samples.npz --dataset digits --seed 4 "
        "--name more-s4 --out o --device cpu --data-dir d --quiet",
    ]
    assert [len(job.commands) for job in found] == [1, 1, 2]


def test_other_seeds_than_the_study_s_own(small):
    found = study_file.with_seeds(study_file.load_study(str(small)), ["7", " 5", "7"])
    terms = study_jobs.SharedOptions(common={"--out": "o"}, takes=accepted_options)
    ids = [job.id for job in study_jobs.study_jobs(found, "digits", terms, only=["standard"])]
    assert ids == ["standard-s7", "standard-s5"]
    with pytest.raises(UserError, match="'-1' is no seed"):
        study_file.with_seeds(found, ["-1"])


@pytest.mark.parametrize("name", presets.preset_names(study_file.STUDIES))
def test_every_command_of_a_shipped_study_is_one(name):
    """Options parse, defenses build, and what one run builds on comes before it."""
    known = study_file.load_study(name)
    for dataset in known.data:
        done = set()
        for job in listed(name, dataset):
            assert job.after <= done
            done.add(job.id)
            parsed = [options(each.words) for each in job.commands]
            if len(parsed) == 1:
                continue
            asked = parsed[0]
            named = asked["defense"]
            typed = {
                **({"defense": components.defense_tables(named)} if named else {}),
                **({"preset": asked["preset"]} if asked["preset"] else {}),
                "dataset": components.component_table("dataset", asked["dataset"]),
                "train": {k: asked[k] for k in ("epochs", "batch_size", "lr") if asked[k]},
            }
            config = train_config.resolve_train_config(typed, asked["set_"] or [])
            assert DATASETS.build(spec_of(config.dataset))
            recipe = Recipe.build(specs_of(config.defense))
            assert recipe.objective.teachers == len(asked["teacher"] or ())


def options(words):
    """What a command makes of its words; they are refused if they are none."""
    command, words = program(), [*words]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command.make_context(command.name, words).params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[runs]", "[rnus]"), "rnus: Unexpected"),
        (("seeds = [4]", "seeds = 4"), "seeds"),
        (("{standard}", "{standrad}"), "no run 'standrad'; did you mean 'standard'"),
        (("seeds = [4]", "seeds = [4"), "not valid TOML"),
        (('"standard"', '"standard --init {tuned}"'), "need each other: standard, tuned"),
        (("[runs]", '[steps]\ntuned = "list"\n[runs]'), "'tuned' among its runs and"),
        (("[runs]", '[steps]\nimages = "synht fit"\n[runs]'), "no command; did you mean 'synth'"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(change, message, small):
    small.write_text(SMALL.replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        listed(small)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_one_line(small):
    with pytest.raises(UserError, match="unknown study 'at-famly'; did you mean 'at-family'"):
        study_file.load_study("at-famly")
    with pytest.raises(UserError, match="no data set 'mnist'"):
        listed(small, "mnist")
    with pytest.raises(UserError, match="no run 'tund'; did you mean 'tuned'"):
        listed(small, only=["tund"])


@pytest.mark.usefixtures("in_warm_processes")
def test_one_command_trains_evaluates_and_reports_and_does_nothing_twice(small, tmp_path, capsys):
    words = ["study", str(small), "--out", str(tmp_path / "r"), "--workers", "1"]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("advbench ") == 4
    assert main(words) == 0
    said = capsys.readouterr()
    assert "2/2 digits/tuned-s4" in said.err
    assert "fgsm" in said.out
    page = tmp_path / "r" / "study.html"
    assert said.err.endswith(f"page: {page}\n")
    assert "tuned-s4-eval" in page.read_text()
    page.unlink()
    words.append("--no-page")
    files = sorted((tmp_path / "r/digits").glob("*/run.json"))
    assert [path.parent.name for path in files] == [
        *("standard-s4", "standard-s4-eval", "tuned-s4", "tuned-s4-eval")
    ]
    tuned = json.loads(files[2].read_text())
    standard = json.loads(files[0].read_text())
    assert tuned["config"]["parents"]["init"]["weights"] == standard["checkpoint"]["sha256"]
    before = [path.stat().st_mtime_ns for path in files]
    assert main(words) == 0
    assert "note" not in capsys.readouterr().err
    small.write_text(SMALL.replace("--attack fgsm", "--attack fgsm --attack pgd20"))
    assert main([*words, "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "note: digits/standard-s4-eval, digits/tuned-s4-eval came of other commands" in said
    assert [path.stat().st_mtime_ns for path in files] == before
    assert not page.exists()


@pytest.mark.usefixtures("in_this_process")
def test_the_table_has_the_columns_that_the_file_names(small, tmp_path, capsys):
    """Among them images from other models; where one is missing, as in a part, all are shown."""
    alone = "".join(line for line in SMALL.splitlines(True) if not line.startswith("tuned"))
    moved = "eval --run {standard} --source {standard} --attack fgsm --n 20"
    words = ["study", str(small), "--out", str(tmp_path / "r"), "--workers", "1", "--no-page"]
    for columns, note in {
        "clean,fgsm from standard": "",
        "fgm": "note: all columns are shown: ",
    }.items():
        small.write_text(f'columns = "{columns}"\n{alone}[steps]\nmoved = "{moved}"\n')
        assert main(words) == 0
        said = capsys.readouterr()
        assert ("note" in said.err) == bool(note)
        assert note in said.err
        head = said.out.splitlines()[0]
        assert "fgsm from standard" in head
        assert head.count("fgsm") == (2 if note else 1)


@pytest.mark.usefixtures("in_warm_processes")
def test_what_fails_is_told_and_stops_only_what_builds_on_it(small, tmp_path, capsys):
    small.write_text(SMALL.replace('= "standard"', '= "standard --lr 1e30"') + 'fine = "fgsm-at"\n')
    words = ["study", str(small), "--out", str(tmp_path / "r"), "--workers", "2"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "digits/standard-s4 FAILED" in said
    assert "3/3" not in said  # the run that builds on it was not begun
    assert "2 of 3 failed; digits/standard-s4: advbench: the training loss is not finite" in said
    assert (tmp_path / "r" / "digits" / "fine-s4-eval" / "run.json").is_file()
    assert not (tmp_path / "r" / "digits" / "tuned-s4").exists()


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_page_that_cannot_be_written_is_no_failed_study(
    small, tmp_path, capsys, monkeypatch, trained, evaluated, kept, quiet
):
    """Everything is done already, and jinja2 is not installed."""
    parent = trained("standard", 4, id="standard-s4", data="digits")
    kept(tmp_path / "r" / "digits", parent)
    judged = evaluated(parent, {"fgsm": ({"name": "fgsm"}, 60)}, id="standard-s4-eval")
    kept(tmp_path / "r" / "digits", judged)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    words = ["study", str(small), "--out", str(tmp_path / "r"), "--only", "standard", *quiet]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "fgsm" in said.out
    wanted = "no page: pages of HTML need jinja2: pip install jinja2\n"
    assert (wanted in said.err) == (not quiet)
    assert not (tmp_path / "r" / "study.html").exists()


@pytest.mark.usefixtures("in_this_process")
def test_measures_of_a_study_have_tables_of_their_own(small, tmp_path, capsys):
    pytest.importorskip("captum")
    asked = "explain gradient occlusion:window=2 --run {standard} --n 5 --pictures 2"
    steps = f'[steps]\nexplained = "{asked}"\n'
    small.write_text(SMALL + steps)
    out = ["--out", str(tmp_path / "out"), "--no-page", "--quiet"]
    assert main(["study", str(small), "--only", "explained", *out]) == 0
    table = capsys.readouterr().out
    assert "explain: digits, n 5" in table
    assert "energy in mask" in table
    (folder,) = (tmp_path / "out").rglob("explained-s4")
    run = records.read(folder)
    assert (run.status, run.parent, run.n) == ("ok", "standard-s4", 5)
    assert (folder / "explanations.png").is_file()
