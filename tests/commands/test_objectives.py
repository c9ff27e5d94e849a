"""Objectives with needs of their own, as a user types them: a pool, a labeller, a memory."""

import numpy as np
import pytest
from PIL import Image

from robustbench_cli.cli import main
from robustbench_cli.commands import components, train_config
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.runs import folders, records
from robustbench_cli.training import checkpoint
from robustbench_cli.training.checkpointing import AIDS

pytestmark = pytest.mark.usefixtures("measured_at_the_end")

SMALL = ["train.limit=150", "train.probe=0", "train.batch_size=50", "train.lr=0.005"]
SMALL += ["model.width=4"]


def train(out, defense, *more, name="run", epochs=3):
    """The exit status of a run, and its record if there is one."""
    changes = [word for pair in SMALL for word in ("--set", pair)]
    where = ["--out", str(out), "--name", name, "--epochs", str(epochs), "--quiet"]
    status = main(["train", defense, *where, *changes, *more])
    return status, records.read(folders.find_run(name, out, "train")) if status == 0 else None


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


def stored(folder, **arrays):
    """The first 40 test digits as a file of arrays, with these beside them."""
    images = DATASETS.build(Spec("digits")).load("test", folder).x[:40].numpy()
    np.savez(folder / "pool.npz", image=images, **arrays)
    return ["--extra-data", f"npz:{folder / 'pool.npz'}"]


@pytest.fixture
def scanned(tmp_path):
    """Those digits with labels that are no digits, without labels, with -1, and as loose files."""
    pools = {}
    for name, arrays in {
        "odd": {"label": np.arange(40) + 10},
        "bare": {},
        "unknown": {"label": np.full(40, -1)},
    }.items():
        (tmp_path / name).mkdir()
        pools[name] = stored(tmp_path / name, **arrays)
    loose = tmp_path / "loose" / "train"
    loose.mkdir(parents=True)
    with np.load(tmp_path / "bare" / "pool.npz") as file:
        for i, image in enumerate(file["image"]):
            Image.fromarray(image[0]).save(loose / f"{i}.png")
    return {**pools, "loose": ["--extra-data", f"folder:{loose.parent}"]}


def test_images_without_labels_are_labelled_by_a_run(scanned, tmp_path):
    """As the same images are whose labels, of classes that no digit has, are not looked at."""
    out = tmp_path / "results"
    train(out, "standard", name="labeller", epochs=1)
    named, weights, images = ["--labeller", "labeller"], {}, {}
    for kind, pool in scanned.items():
        _, run = train(out, "rst:steps=2", *pool, *named, name=kind, epochs=1)
        weights[kind], images[kind] = run.checkpoint.sha256, run.dataset["extra_sha256"]
        assert run.dataset["extra"] == 40
        assert run.dataset["shape"]["classes"] == 10
    assert weights["odd"] == weights["bare"] == weights["unknown"]
    assert images["odd"] == images["bare"] == images["unknown"]
    assert train(out, "fgsm-at", *scanned["bare"], *named, name="supervised", epochs=1)[0] == 0


@pytest.mark.parametrize("defense", ["rst:steps=2", "rst-stab", "vat"])
def test_images_without_labels_train_what_needs_none(defense, scanned, tmp_path):
    weights = {}
    for kind, pool in scanned.items():
        bare = ["--set", "train.extra_labels=none"]
        _, run = train(tmp_path / "results", defense, *pool, *bare, name=kind, epochs=1)
        weights[kind] = run.checkpoint.sha256
        assert run.dataset["extra"] == 40
    assert weights["odd"] == weights["bare"] == weights["unknown"]


@pytest.mark.parametrize("defense", ["rst:steps=2", "pgd-at:steps=2", "vat"])
def test_images_whose_labels_are_needed_and_missing_are_one_line(
    defense, scanned, tmp_path, capsys
):
    out = tmp_path / "results"
    advice = "(label the images with --labeller RUN, or train without labels: --set train.extra_"
    for kind, why in {
        "bare": "40 of its 40 images have no label",
        "unknown": "40 of its 40 images have no label",
        "loose": "40 of its 40 images have no label",
        "odd": "a class '10', which the data set has not: it has 10, from '0' to '9'",
    }.items():
        assert train(out, defense, *scanned[kind])[0] == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{why} {advice}" in said
    assert not out.exists()


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


def free_at(out, name, display):
    typed = {"defense": components.defense_tables("free-at:replays=3"), "seed": 0}
    config = train_config.resolve_train_config(typed, [*SMALL, "train.epochs=3"])
    workspace = Workspace(out=out, device="cpu")
    return train_command.run_training(config, workspace, display, command=["x"], run_id=name)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return free_at(tmp_path_factory.mktemp("whole"), "whole", Display())


@pytest.mark.parametrize("stop", [(2,), (1, 2), (0, 3)])
def test_free_at_goes_on_with_the_perturbation_it_had(stop, stopping, tmp_path, uninterrupted):
    whole, workspace = uninterrupted, Workspace(out=tmp_path, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        free_at(tmp_path, "cut", stopping(*stop))
    cut = train_command.resume_training("cut", workspace, Display())
    assert records.sha256(cut / "model.safetensors") == records.sha256(whole / "model.safetensors")
    (left, _), (right, _) = (checkpoint.load_tensors(folder / AIDS) for folder in (cut, whole))
    delta = right["FreeAT.delta"]
    assert delta.shape == (50, 1, 8, 8)
    assert delta.any()
    assert (left["FreeAT.delta"] == delta).all()
