"""Feature scattering, fixed centers, complements and moved weights, as a user types them."""

import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands import components, train_config
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.load_model import restore
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.runs import folders, records

pytestmark = pytest.mark.usefixtures("measured_at_the_end")

SMALL = ["train.limit=300", "train.probe=100", "train.batch_size=50", "train.lr=0.005"]
SMALL += ["model.width=8"]


def train(out, defense, *changes, epochs=5):
    """The exit status of a run, and its folder if there is one."""
    words = [word for change in (*SMALL, *changes) for word in ("--set", change)]
    where = ["--out", str(out), "--name", "run", "--epochs", str(epochs), "--quiet"]
    status = main(["train", defense, *where, *words])
    return status, folders.find_run("run", out, "train") if status == 0 else None


@pytest.mark.parametrize(
    ("defense", "robust"),
    [
        ("feature-scatter", 0.3),
        ("feature-scatter:matching=legacy", 0.3),
        ("feature-scatter:matching=ipot,perturbation=supervised", 0.3),
        ("mmc:dim=32", None),
        ("mmc-at:dim=32,steps=4,targeted=true,share=0.5", None),
        ("gce", None),
        ("gce-at:steps=4", 0.3),
        ("cot", None),
        ("standard+amp:radius=0.1", None),
        ("standard+sam", None),
        ("standard+rwp:radius=0.1", None),
        ("pgd-at:steps=4+sam", 0.3),
    ],
)
def test_they_learn_what_they_are_for(defense, robust, tmp_path):
    status, folder = train(tmp_path, defense)
    assert status == 0
    history = records.read(folder).history
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["train_clean"] > 0.8
    assert robust is None or history[-1]["train_robust"] > robust


def test_a_run_with_centers_is_read_back_with_them(tmp_path):
    _, folder = train(tmp_path, "mmc:dim=16,scale=3", epochs=1)
    head = restore(records.read(folder), folder).head
    assert head.centers.shape == (10, 16)
    assert head.centers.norm(dim=1).tolist() == pytest.approx([3] * 10)


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        ("mmc+he", "mmc replaces the last layer, and so does he"),
        ("mmc:dim=8", "10 classes need centers of at least 9 dimensions"),
        ("gce+ls", "label-smoothing would change a criterion that is not used"),
        ("pgd-at+awp+sam", "'awp' and 'sam' both move the weights"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(defense, message, tmp_path, capsys):
    assert train(tmp_path, defense)[0] == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


class Stop(Display):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, batches):
        self._batches = batches

    def batch(self, watch):
        self._batches -= 1
        if self._batches < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("defense", "optimizer"), [("cot", "sgd"), ("cot+sam", "adam"), ("standard+rwp", "sgd")]
)
def test_an_interrupted_run_resumes_to_the_same_weights(defense, optimizer, tmp_path):
    """Both of cot's momenta are kept; the random directions are drawn again as they were."""
    typed = {"defense": components.defense_tables(defense), "seed": 0}
    changes = ["train.limit=150", "train.epochs=2", f"optimizer.name={optimizer}"]
    config = train_config.resolve_train_config(typed, [*SMALL, *changes])
    workspace = Workspace(out=tmp_path, device="cpu")

    def begin(name, display):
        return train_command.run_training(config, workspace, display, command=["x"], run_id=name)

    whole = begin("whole", Display())
    with pytest.raises(KeyboardInterrupt):
        begin("cut", Stop(4))
    cut = train_command.resume_training("cut", workspace, Display())
    assert records.sha256(cut / "model.safetensors") == records.sha256(whole / "model.safetensors")
