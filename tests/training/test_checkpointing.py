"""What a run keeps when it goes well, when it collapses, and when its loss is not finite."""

from pathlib import Path

import pytest

from robustbench_cli.commands import components, parent_runs, train_config
from robustbench_cli.commands import evaluate as eval_command
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.given_model import ModelOptions
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.runs import records
from robustbench_cli.training import checkpoint

SMALL = ["train.probe=60", "train.batch_size=32", "model.width=8"]


class Listening(Display):
    """Remembers what was said."""

    def __init__(self):
        self.said = []
        self.rows = []

    def note(self, text):
        self.said.append(text)

    def epoch(self, row):
        self.rows.append(row)


def train(out, defense, *settings, name="run", init=None, display=None):
    parents = parent_runs.ParentNames(init=init).parents(out)
    typed = {
        "defense": components.defense_tables(defense),
        **({"parents": parents} if parents else {}),
    }
    chosen = train_config.resolve_train_config(typed, [*SMALL, *settings])
    workspace = Workspace(out=out, device="cpu")
    return train_command.run_training(
        chosen, workspace, display or Display(), command=["x"], run_id=name
    )


def evaluate(out, which=None, display=None, run="run"):
    workspace = Workspace(out=out, device="cpu")
    subject, base = find_model(Choice(run=run, checkpoint=which), workspace)
    typed = {"attack": chosen_attacks(["fgsm"], None, {}), "n": 50}
    request = EvalRequest(
        subject=subject,
        config=resolve_eval_config(base, typed, []),
        workspace=workspace,
        command=["x"],
    )
    return records.read(eval_command.run_evaluation(request, display or Display()))


@pytest.fixture(scope="module")
def robust(tmp_path_factory):
    """A folder with a run that withstands PGD on the 60 images it was trained on."""
    out = tmp_path_factory.mktemp("results")
    train(
        out, "pgd-at:steps=3", "train.epochs=25", "train.lr=0.005", "train.limit=60", name="robust"
    )
    return out


COLLAPSE = [
    "train.epochs=4",
    "train.limit=600",
    "train.lr=0.005",
    "schedule.name=linear",
    # The first epoch changes nothing, the second trains against next to no attack.
    "schedule.times=[0, 0.25, 0.26, 1]",
    "schedule.factors=[0, 0, 1, 1]",
]


def collapsing(out, name, *settings, display=None):
    return train(
        out,
        "fgsm-at:step=0.1,clean_weight=0",
        *COLLAPSE,
        *settings,
        name=name,
        init="robust",
        display=display,
    )


def test_a_collapse_is_told_on_the_screen_and_in_the_record(robust):
    display = Listening()
    run = records.read(collapsing(robust, "warned", display=display))
    (told,) = run.notes
    assert told.startswith("catastrophic overfitting by epoch 2: since epoch 1 ")
    assert display.said == [f"warning: {told}"]
    before, now = run.history[:2]
    assert before["train_robust"] - now["train_robust"] > 0.2
    assert before["batch_adv"] < now["batch_adv"]
    assert len(run.history) == run.checkpoint.epoch == 4  # a warning ends nothing
    assert run.status == "ok"


def test_a_collapse_may_end_the_run_and_leaves_the_epoch_before(robust):
    display = Listening()
    folder = collapsing(robust, "stopped", "train.on_collapse=stop", display=display)
    run = records.read(folder)
    assert run.status == "ok"
    assert [row["epoch"] for row in display.rows] == [1, 2]
    assert [row["epoch"] for row in run.history] == [1, 2]  # what happened stays on record
    assert run.notes[0].endswith("; training was stopped, nothing of that epoch is kept")
    assert run.checkpoint.epoch == 1
    whole = records.read(collapsing(robust, "one", "train.epochs=1", "schedule.factors=[0,0,0,0]"))
    assert run.history[0]["train_robust"] == whole.history[0]["train_robust"]
    weights, note = checkpoint.load_tensors(folder / "model.safetensors")
    assert note == {"epoch": 1}
    init, _ = checkpoint.load_tensors(robust / "robust" / "model.safetensors")
    assert (weights["head.weight"] == init["head.weight"]).all()  # at a rate of zero
    assert not (folder / "state.safetensors").exists()


def test_a_collapse_does_not_reach_the_weights_after_the_last_epoch(robust):
    folder = collapsing(robust, "both", "train.on_collapse=stop", "train.select=oracle")
    run = records.read(folder)
    assert (run.checkpoint.epoch, run.last.epoch) == (1, 1)
    kept = [checkpoint.load_tensors(folder / each.file)[0] for each in (run.checkpoint, run.last)]
    assert (kept[0]["head.weight"] == kept[1]["head.weight"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.probe=0"], "on_collapse='stop' looks at training images: train.probe=256"),
        (["train.select=epoch", "train.select_epoch=2"], "before the epoch that is to be kept"),
        (["train.collapse=0"], "train.collapse: .*greater than 0"),
    ],
)
def test_what_the_guard_cannot_do_is_said_before_training(settings, message):
    with pytest.raises(UserError, match=message):
        train_config.resolve_train_config(
            {"defense": components.defense_tables("fast-at")},
            ["train.on_collapse=stop", *settings],
        )


BEST = ["train.select=best", "train.validation=60", "train.epochs=4", "train.limit=200"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A run that keeps its best epoch, which is not its last: there the rate is absurd."""
    out = tmp_path_factory.mktemp("results")
    last = ["schedule.name=piecewise", "schedule.milestones=[0.75]", "schedule.gamma=300"]
    train(out, "pgd-at:steps=2", *BEST, *last, "train.lr=0.01")
    return out


def test_the_last_epoch_s_weights_stand_beside_the_best(chosen):
    run = records.read(chosen / "run")
    assert run.checkpoint.rule == "best"
    assert run.checkpoint.epoch < 4
    assert (run.last.rule, run.last.epoch) == ("last", 4)
    for kept in (run.checkpoint, run.last):
        assert records.sha256(chosen / "run" / kept.file) == kept.sha256
        assert checkpoint.load_tensors(chosen / "run" / kept.file)[1] == {"epoch": kept.epoch}


def test_either_can_be_evaluated_and_the_record_says_which(chosen):
    run = records.read(chosen / "run")
    usual, best, last = (evaluate(chosen, which) for which in (None, "best", "last"))
    assert usual.evaluated == best.evaluated == run.checkpoint
    assert last.evaluated == run.last
    assert (best.weights, last.weights) == (run.checkpoint.sha256, run.last.sha256)
    assert best.clean_accuracy == usual.clean_accuracy > last.clean_accuracy
    assert best.parent == last.parent == "run"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(run="run", checkpoint="lst"), "--checkpoint lst: run 'run' keeps best and last"),
        (Choice(run="run", checkpoint="oracle"), "keeps best and last"),
        (
            Choice(given=ModelOptions(model="digits-cnn"), checkpoint="last"),
            "--checkpoint goes with --run",
        ),
    ],
)
def test_weights_that_are_not_there_are_named(chosen, choice, message):
    with pytest.raises(UserError, match=message):
        find_model(choice, Workspace(out=chosen))


def test_a_loss_that_is_not_finite_leaves_the_last_good_epoch_for_evaluation(tmp_path):
    explodes = ["schedule.name=piecewise", "schedule.milestones=[0.5]", "schedule.gamma=1e30"]
    with pytest.raises(RunError, match="not finite in epoch 3"):
        train(tmp_path, "standard", "train.epochs=4", "train.limit=200", *explodes)
    run = records.read(tmp_path / "run")
    assert run.status == "failed"
    assert len(run.history) == run.checkpoint.epoch == 2
    display = Listening()
    judged = evaluate(tmp_path, display=display)
    assert judged.clean_accuracy > 0.2
    assert judged.weights == run.checkpoint.sha256
    said = "run run has not finished (failed): these are its weights after epoch 2"
    assert judged.notes == [said]
    assert said in display.said


def test_a_run_that_failed_in_its_first_epoch_has_nothing_to_evaluate(tmp_path):
    with pytest.raises(RunError, match="not finite in epoch 1"):
        train(tmp_path, "standard", "train.epochs=2", "train.limit=200", "train.lr=1e30")
    with pytest.raises(UserError, match=r"has kept no weights yet \(status: failed\)"):
        evaluate(tmp_path)


def test_what_a_defense_has_to_say_is_said_once_before_training(tmp_path):
    display = Listening()
    short = ["train.epochs=1", "train.limit=64"]
    folder = train(tmp_path, "trades:steps=1+he:eval_scale=1", *short, display=display)
    (told,) = records.read(folder).notes
    assert told.startswith("he is trained at scale 15 and evaluated at 1: ")
    assert display.said == [f"warning: {told}"]
    quiet = train(Path(tmp_path), "trades:steps=1+he", *short, name="quiet", display=display)
    assert records.read(quiet).notes == []
