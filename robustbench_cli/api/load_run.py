"""A training run's model and record, from its folder."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainedRun:
    """A finished training run: its model, its record, and the threat it was trained against."""

    model: nn.Module
    """In evaluation mode, on the CPU: images float32 (B, C, H, W) in [0, 1] to logits (B, K)."""
    record: Run
    threat: Threat
    """The norm and the radius of the training, in units of pixels in [0, 1], without its mask."""
    folder: Path

    def test_images(self, n: int = 0, *, data_dir: str | Path = "data") -> tuple[Tensor, Tensor]:
        """Return the first images of the data set's test split, as ``advbench eval`` takes them.

        Args:
            n: how many; 0: all.
            data_dir: the folder that ``--data-dir`` names.

        Returns:
            Images float32 (N, C, H, W) in [0, 1], and labels int64 (N).

        Raises:
            UserError: the data is absent or damaged, or has fewer images.
        """
        dataset = DATASETS.build(spec_of(self.record.settings.dataset))
        test = dataset.load("test", Path(data_dir))
        if not 0 <= n <= len(test):
            raise UserError(f"n={n}: the test split has {len(test)} examples")
        first = test.only(slice(n or len(test))).to("cpu")
        return first.images(slice(None)), first.y.clone()

    def __repr__(self) -> str:
        return f"TrainedRun({self.record.id}: {self.record.subject}, {self.threat})"


def load_run(
    run: str | Path | None = None,
    *,
    results: str | Path = "results",
    checkpoint: str | None = None,
) -> TrainedRun:
    """Load the model that a training run kept.

    Args:
        run: its folder, its id, or an unambiguous part of its id; None: the latest finished run.
        results: the folder of results in which an id is looked up.
        checkpoint: "last", or the rule by which the run kept other weights; None: its own rule.

    Raises:
        UserError: there is no such run or several, it is no training run, or its weights are
            missing or damaged.

    Example:
        >>> model = load_run("results/trades-digits-s0").model
    """
    workspace = Workspace(out=Path(results), device="cpu")
    folder = folders.find_run(None if run is None else str(run), workspace.out, "train")
    subject, config = find_model(Choice(run=str(folder), checkpoint=checkpoint), workspace)
    return TrainedRun(
        model=subject.model.eval(),
        record=records.read(folder),
        threat=Threat(config["threat"]["norm"], config["threat"]["eps"]),
        folder=folder,
    )
