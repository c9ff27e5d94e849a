"""Learning from other runs, and beside another net, as a user types it."""

import json

import pytest
import torch
from torch import nn

from robustbench_cli.cli import main
from robustbench_cli.commands import components, parent_runs, train_config
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.runs import folders, records
from robustbench_cli.training import checkpoint
from robustbench_cli.training.checkpointing import AIDS, MODEL

pytestmark = pytest.mark.usefixtures("measured_at_the_end")

SMALL = ["train.limit=150", "train.probe=0", "train.batch_size=50", "train.lr=0.005"]
SMALL += ["model.width=4"]
LARGER = ["train.limit=300", "train.probe=60", "model.width=8"]


def words(pairs):
    return [word for pair in pairs for word in ("--set", pair)]


def named(*names):
    return [word for name in names for word in ("--teacher", name)]


def train(out, defense, *more, name="run", epochs=2):
    """The exit status of a run."""
    # In float32 wherever the test runs: thresholds on what is learned leave bfloat16 no room.
    where = ["--out", str(out), "--name", name, "--epochs", str(epochs), "--quiet"]
    where += ["--precision", "float32"]
    return main(["train", defense, *where, *words(SMALL), *more])


def record(out, name):
    return records.read(folders.find_run(name, out, "train"))


@pytest.fixture(scope="module")
def out(tmp_path_factory, measured_at_the_end):
    """A folder of runs, with two that may teach: ``robust`` and ``natural``."""
    results = tmp_path_factory.mktemp("results")
    for name, defense in (("robust", "pgd-at:steps=3"), ("natural", "standard")):
        assert train(results, defense, *words(LARGER), name=name, epochs=8) == 0
    return results


@pytest.fixture
def refused(out, capsys):
    """What a command that leaves nothing behind says in one line."""

    def run(*args):
        before = sorted(out.iterdir())
        assert train(out, *args) == 2
        assert sorted(out.iterdir()) == before
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("\n") == 1
        return said.err.removeprefix("advbench: ").strip()

    return run


@pytest.mark.parametrize(
    ("defense", "teachers", "epochs"),
    [
        ("rslad:steps=2", ["robust"], 7),
        ("ard:steps=2,temperature=5", ["robust"], 7),
        ("iad:steps=2", ["robust"], 7),
        ("akd2:steps=2", ["robust", "natural"], 7),
        ("iad-ii:steps=2", ["robust", "natural"], 7),
        ("bgat:steps=2", ["natural"], 7),
        ("lbgat:steps=2", [], 10),  # two nets from scratch
        ("lbgat-alp:steps=2", [], 10),
        ("lbgat6:steps=2", [], 10),
    ],
)
def test_they_learn_what_they_are_for(defense, teachers, epochs, out):
    """Standard training of this length withstands PGD-10 on a fifth of the images."""
    name = defense.partition(":")[0]
    assert train(out, defense, *named(*teachers), *words(LARGER), name=name, epochs=epochs) == 0
    run = record(out, name)
    assert run.history[-1]["train_clean"] > 0.8
    assert run.history[-1]["train_robust"] > 0.3
    roles = [run.config["parents"][role] for role in ("teacher", "teacher1")[: len(teachers)]]
    sums = [record(out, teacher).checkpoint.sha256 for teacher in teachers]
    assert [role["weights"] for role in roles] == sums


def test_what_was_trained_is_evaluated_without_its_teachers(out, capsys):
    for name, defense, teachers in (("a", "rslad", ["robust"]), ("b", "lbgat", [])):
        assert train(out, f"{defense}:steps=1", *named(*teachers), name=name, epochs=1) == 0
        capsys.readouterr()
        args = [
            "eval",
            "--run",
            name,
            "--out",
            str(out),
            "--attack",
            "fgsm",
            "--n",
            "20",
            "--quiet",
        ]
        assert main(args) == 0
        assert "fgsm" in capsys.readouterr().out


def test_the_natural_net_is_kept_and_knows_the_labels(out):
    more = words([*LARGER, "defense.lbgat.natural=digits-cnn:width=6"])
    assert train(out, "lbgat:steps=1", *more, name="two", epochs=6) == 0
    folder = folders.find_run("two", out, "train")
    tensors, note = checkpoint.load_tensors(folder / AIDS)
    assert note["epoch"] == 6
    digits = DATASETS.build(Spec("digits"))
    test = digits.load("test", folder)
    net = MODELS.build(Spec("digits-cnn", {"width": 6})).build(Shape(1, 8, 8, 10, (0.0,), (1.0,)))
    nn.ModuleDict({"LBGAT": net}).load_state_dict(tensors)
    with torch.no_grad():
        right = net.eval()(test.images(slice(200))).argmax(1) == test.y[:200]
    assert right.float().mean() > 0.8


@pytest.mark.parametrize("stop", [(1,), (1, 2)])
@pytest.mark.parametrize(
    ("defense", "teachers"),
    [("lbgat6:steps=1,natural=digits-cnn:width=6", []), ("iad-ii:steps=1", ["robust", "natural"])],
)
def test_an_interrupted_run_ends_with_the_same_nets(
    defense, teachers, stop, stopping, out, tmp_path
):
    parents = parent_runs.ParentNames(teachers=tuple(str(out / name) for name in teachers))
    typed = {"defense": components.defense_tables(defense), "parents": parents.parents(tmp_path)}
    config = train_config.resolve_train_config(typed, [*SMALL, "train.epochs=2"])
    workspace = Workspace(out=tmp_path, device="cpu")

    def begin(name, display):
        return train_command.run_training(config, workspace, display, command=["x"], run_id=name)

    whole = begin("whole", Display())
    with pytest.raises(KeyboardInterrupt):
        begin("cut", stopping(*stop))
    cut = train_command.resume_training("cut", workspace, Display())
    assert (cut / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    assert (cut / AIDS).is_file() == (whole / AIDS).is_file() == (not teachers)
    if not teachers:
        (left, _), (right, _) = (checkpoint.load_tensors(folder / AIDS) for folder in (cut, whole))
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_a_lacking_teacher_is_one_line(refused):
    for defense in ("rslad", "ard", "iad", "bgat"):
        assert refused(defense).startswith("this defense learns from 1 teacher(s), 0 given; name")
    for defense in ("akd2", "iad-ii"):
        told = refused(defense, *named("robust"))
        assert told.startswith("this defense learns from 2 teacher(s), 1 given")


def test_a_teacher_too_many_is_one_line(refused):
    two = named("robust", "natural")
    assert refused("rslad", *two).startswith("this defense learns from 1 teacher(s), 2 given")
    for defense in ("lbgat", "pgd-at"):
        told = refused(defense, *named("robust"))
        assert told.startswith("this defense learns from 0 teacher(s), 1 given")


def test_a_teacher_for_other_images_is_one_line(refused, tmp_path, drawn):
    drawn(tmp_path / "colour.npz", classes=10, channels=3)
    colour = ["--dataset", f"npz:{tmp_path / 'colour.npz'}", "--model", "digits-cnn"]
    told = refused("rslad", *named("robust"), *colour)
    assert "(1, 8, 8, 10), this run has (3, 8, 8, 10)" in told
    assert told.startswith("--teacher robust is for images and classes")


def test_a_natural_net_that_is_none_is_one_line(refused):
    told = refused("lbgat:natural=resnet-81")
    assert told.startswith("unknown model 'resnet-81'; did you mean")


def test_going_on_with_a_teacher_that_changed_is_one_line(tmp_path, stopping, capsys):
    assert train(tmp_path, "standard", name="teacher", epochs=1) == 0
    parents = parent_runs.ParentNames(teachers=("teacher",)).parents(tmp_path)
    typed = {"defense": components.defense_tables("ard:steps=1"), "parents": parents}
    config = train_config.resolve_train_config(typed, [*SMALL, "train.epochs=2"])
    workspace = Workspace(out=tmp_path, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_command.run_training(config, workspace, stopping(1), command=["x"], run_id="cut")
    path = tmp_path / "teacher" / "run.json"
    changed = json.loads(path.read_text())
    changed["checkpoint"]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed))
    capsys.readouterr()
    assert main(["train", "--resume", "cut", "--out", str(tmp_path), "--quiet"]) == 2
    assert "its weights are not the ones this run began with" in capsys.readouterr().err
