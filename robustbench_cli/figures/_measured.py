"""Figures whose numbers take a model: measured run by run, and kept beside the picture."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli import __version__
from robustbench_cli.core import atomic_files
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number, Seed, radius
from robustbench_cli.figures import FIGURES, Figure, Material, Painter, _style, called
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:  # torch comes with these
    from matplotlib.figure import Figure as Page

    from robustbench_cli.core.threat import Threat
    from robustbench_cli.data import Dataset
    from robustbench_cli.models import Classifier

ResultTable = Mapping[str, Any]
Done = Callable[[int, int], None]
"""Is told how much of a model's work is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A model and what it is measured on."""

    model: "Classifier"
    dataset: "Dataset"
    data_dir: Path
    device: Any
    threat: "Threat"
    done: Done


@dataclass(frozen=True, kw_only=True)
class MeasuredFigure(Figure):
    """Runs side by side: on the same data and under the same threat, else nothing compares."""

    eps: Number | None = None
    """Radius; none: the one that the runs were trained for."""
    seed: Seed = 0
    """Every random draw follows from it."""

    @abstractmethod
    def measure(self, subject: MeasuredModel) -> ResultTable:
        """One run's numbers, as JSON holds them."""

    @abstractmethod
    def paint(
        self, about: ResultTable, found: Sequence[ResultTable], names: Sequence[str]
    ) -> "Page":
        """Draw the numbers of all runs, in their order.

        Args:
            about: dataset, norm and eps.
        """

    def prepared(self, material: Material) -> Painter:
        runs = material.trained()
        about = self._about(list(runs.values()))
        head = {"figure": FIGURES.describe(self), **about, "advbench": __version__}
        kept = _kept(material.numbers, head)
        found = []
        for folder, run in runs.items():
            weights = run.checkpoint.sha256 if run.checkpoint else ""
            if weights not in kept:
                subject = self._subject(folder, run, about, material)
                names = {"run": run.id, "subject": run.subject, "weights": weights}
                kept[weights] = {**names, **self.measure(subject)}
                # After each run, so that an interrupt costs one run only.
                _keep(material.numbers, {**head, "runs": list(kept.values())})
            found.append(kept[weights])
        return partial(self.paint, about, found, called(list(runs.values())))

    def _about(self, runs: Sequence[Run]) -> dict[str, Any]:
        """What all runs have in common; raise ``UserError`` where they do not compare."""
        first, *others = runs
        threat = first.config["threat"]
        norm, eps = threat["norm"], threat["eps"] if self.eps is None else self.eps
        for run in others:
            if run.dataset["test_sha256"] != first.dataset["test_sha256"]:
                raise UserError(f"runs {first.id!r} and {run.id!r} are on different data")
            other = run.config["threat"]
            if other["norm"] != norm or (self.eps is None and other["eps"] != eps):
                raise UserError(
                    f"runs {first.id!r} ({norm} {radius(threat['eps'])}) and {run.id!r} "
                    f"({other['norm']} {radius(other['eps'])}) were trained for different threats"
                    + ("; give one: eps=RADIUS" if other["norm"] == norm else "")
                )
        data = {"dataset": records.data_name(first), "test_sha256": first.dataset["test_sha256"]}
        return {**data, "norm": norm, "eps": eps}

    def _subject(
        self, folder: Path, run: Run, about: ResultTable, material: Material
    ) -> MeasuredModel:
        from robustbench_cli.commands import train_config
        from robustbench_cli.commands.load_model import restore
        from robustbench_cli.config.schema import spec_of, validated
        from robustbench_cli.core.threat import Threat
        from robustbench_cli.data import DATASETS
        from robustbench_cli.models.layout import laid_out

        where = train_config.device(material.device)
        threat = validated(Threat, {"norm": about["norm"], "eps": about["eps"]})
        model = laid_out(restore(run, folder), where)
        return MeasuredModel(
            model=model,
            dataset=DATASETS.build(spec_of(run.config["dataset"])),
            data_dir=material.data_dir,
            device=where,
            threat=threat,
            done=partial(material.told.progress, run.id),
        )


def title(about: ResultTable) -> str:
    """Data set and threat."""
    return f"{_style.one_line(about['dataset'])}, {about['norm']} {radius(about['eps'])}"


def _kept(file: Path, head: ResultTable) -> dict[str, ResultTable]:
    """What an earlier command with the same settings measured, by the weights it was of.

    Raises:
        UserError: the file holds something else, which must not be lost.
    """
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_bytes())
        runs = {run["weights"]: run for run in found.pop("runs")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"{str(file)!r} is where the figure's numbers go, but holds something else: choose "
            "another --out"
        ) from None
    return runs if found == records.as_json(head) else {}


def _keep(file: Path, numbers: ResultTable) -> None:
    atomic_files.write_bytes_atomically(file, json.dumps(numbers, indent=1).encode() + b"\n")
