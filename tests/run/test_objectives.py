"""Objectives with needs of their own, as a user types them: a pool, a labeller, a memory."""

import pytest

from robustbench_cli import folders, records
from robustbench_cli.cli import main
from robustbench_cli.engine import checkpoint
from robustbench_cli.run import setup
from robustbench_cli.run import train as train_command
from robustbench_cli.run.display import Display
from robustbench_cli.run.keep import AIDS

SMALL = ["train.limit=150", "train.probe=0", "train.batch_size=50", "train.lr=0.005"]
SMALL += ["model.width=4"]


def train(out, defense, *more, name="run", epochs=3):
    """The exit status of a run, and its record if there is one."""
    changes = [word for pair in SMALL for word in ("--set", pair)]
    where = ["--out", str(out), "--name", name, "--epochs", str(epochs), "--quiet"]
    status = main(["train", defense, *where, *changes, *more])
    return status, records.read(folders.named(name, out, "train")) if status == 0 else None


@pytest.mark.parametrize(
    ("defense", "epochs", "robust"),
    [
        ("free-at:replays=4", 3, 0.3),
        ("clp:sigma=0.2,weight=0.1", 6, None),
        ("lsq:sigma=0.2,weight=0.1", 6, None),
        ("vat", 6, 0.3),
        ("rst:steps=3", 6, 0.3),
        ("rst-stab", 6, 0.3),
        ("bilateral", 6, 0.3),
    ],
)
def test_they_learn_what_they_are_for(defense, epochs, robust, tmp_path):
    """Standard training of this length withstands PGD-10 on a fifth of the images."""
    larger = ["train.limit=300", "train.probe=50", "model.width=8"]
    changes = [word for pair in larger for word in ("--set", pair)]
    status, run = train(tmp_path, defense, *changes, epochs=epochs)
    assert status == 0
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["train_clean"] > 0.8
    assert robust is None or run.history[-1]["train_robust"] > robust


@pytest.mark.parametrize("defense", ["rst:steps=2", "rst-stab"])
def test_self_training_learns_from_a_pool_that_a_run_labelled(defense, tmp_path):
    _, labeller = train(tmp_path, "standard", name="labeller")
    pool = ["--extra-data", "digits", "--labeller", "labeller"]
    _, labelled = train(tmp_path, defense, *pool, name="labelled")
    assert labelled.config["parents"]["labeller"]["weights"] == labeller.checkpoint.sha256
    assert labelled.dataset["extra"] == 1297
    bare = ["--extra-data", "digits", "--set", "train.extra_labels=none"]
    _, unlabelled = train(tmp_path, defense, *bare, name="unlabelled")
    assert unlabelled.checkpoint.sha256 != labelled.checkpoint.sha256
    for run in (labelled, unlabelled):
        assert run.history[-1]["batch_clean"] > run.history[0]["batch_clean"]


def test_vat_takes_the_pool_for_its_unlabelled_images(tmp_path):
    pool = ["--extra-data", "digits"]
    _, own = train(tmp_path, "vat", *pool, name="own")
    _, none = train(tmp_path, "vat", *pool, "--set", "train.extra_labels=none", name="none")
    _, alone = train(tmp_path, "vat", name="alone")
    assert own.checkpoint.sha256 == none.checkpoint.sha256 != alone.checkpoint.sha256
    assert own.history[-1]["loss"] < own.history[0]["loss"]


def test_what_needs_labels_refuses_a_pool_without(tmp_path, capsys):
    bare = ["--extra-data", "digits", "--set", "train.extra_labels=none"]
    for defense in ("clp", "bilateral", "free-at"):
        assert train(tmp_path, defense, *bare)[0] == 2
        assert "needs a label for every example" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [(2,), (1, 2), (0, 3)])
def test_free_at_goes_on_with_the_perturbation_it_had(stop, stopping, tmp_path):
    typed = {"defense": setup.parts("free-at:replays=3"), "seed": 0}
    config = setup.train_config(typed, [*SMALL, "train.epochs=3"])
    place = setup.Place(out=tmp_path, device="cpu")

    def begin(name, display):
        return train_command.train(config, place, display, command=["x"], run_id=name)

    whole = begin("whole", Display())
    with pytest.raises(KeyboardInterrupt):
        begin("cut", stopping(*stop))
    cut = train_command.resume("cut", place, Display())
    assert records.sha256(cut / "model.safetensors") == records.sha256(whole / "model.safetensors")
    (left, _), (right, _) = (checkpoint.load(folder / AIDS) for folder in (cut, whole))
    delta = right["FreeAT.delta"]
    assert delta.shape == (50, 1, 8, 8)
    assert delta.any()
    assert (left["FreeAT.delta"] == delta).all()
