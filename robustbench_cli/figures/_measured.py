"""Figures whose numbers are measured on models.

Numbers are measured run by run and kept in a JSON file beside the picture.
"""

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
from robustbench_cli.core.registry import Number, Seed
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.figures import FIGURES, Figure, Material, Painter, legend_names
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:  # torch comes with these
    from matplotlib.figure import Figure as Page

    from robustbench_cli.core.threat import Threat
    from robustbench_cli.data import Dataset
    from robustbench_cli.models import Classifier

ResultTable = Mapping[str, Any]
Done = Callable[[int, int], None]
"""Called with the amount of a model's work that is done, and the whole amount."""


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A model, and the settings that it is measured with."""

    model: "Classifier"
    dataset: "Dataset"
    data_dir: Path
    device: Any
    threat: "Threat"
    done: Done


@dataclass(frozen=True, kw_only=True)
class MeasuredFigure(Figure):
    """Base of figures that compare models on the same data and under the same threat."""

    eps: Number | None = None
    """Radius; none: the one that the runs were trained for."""
    seed: Seed = 0
    """Seed of all random draws."""

    @abstractmethod
    def measure(self, subject: MeasuredModel) -> ResultTable:
        """Return the numbers of one run, as values that JSON can hold."""

    @abstractmethod
    def paint(
        self, about: ResultTable, found: Sequence[ResultTable], names: Sequence[str]
    ) -> "Page":
        """Return a page with the numbers of all runs, in their order.

        Args:
            about: dataset, norm and eps.
            found: the numbers of each run.
            names: the legend's name of each run.
        """

    def prepare(self, material: Material) -> Painter:
        runs = material.trained()
        about = self._common_setting(list(runs.values()))
        head = {"figure": FIGURES.describe(self), **about, "advbench": __version__}
        kept = _read_numbers(material.numbers, head)
        found = []
        for folder, run in runs.items():
            weights = run.checkpoint.sha256 if run.checkpoint else ""
            if weights not in kept:
                subject = self._load(folder, run, about, material)
                names = {"run": run.id, "subject": run.subject, "weights": weights}
                kept[weights] = {**names, **self.measure(subject)}
                # Written after each run, so that an interrupt loses one run only.
                _write_numbers(material.numbers, {**head, "runs": list(kept.values())})
            found.append(kept[weights])
        return partial(self.paint, about, found, legend_names(list(runs.values())))

    def _common_setting(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return the data set and threat that all runs share.

        Raises:
            UserError: they were made with different ones.
        """
        first, *others = runs
        threat = first.settings.threat
        norm, eps = threat.norm, threat.eps if self.eps is None else self.eps
        for run in others:
            if run.settings.test_sha256 != first.settings.test_sha256:
                raise UserError(f"runs {first.id!r} and {run.id!r} are on different data")
            other = run.settings.threat
            if other.norm != norm or (self.eps is None and other.eps != eps):
                raise UserError(
                    f"runs {first.id!r} ({norm} {format_eps(threat.eps)}) and {run.id!r} "
                    f"({other.norm} {format_eps(other.eps)}) were trained for different threats"
                    + ("; give one: eps=RADIUS" if other.norm == norm else "")
                )
        data = {"dataset": records.data_name(first), "test_sha256": first.settings.test_sha256}
        return {**data, "norm": norm, "eps": eps}

    def _load(
        self, folder: Path, run: Run, about: ResultTable, material: Material
    ) -> MeasuredModel:
        """Load the model of a run onto the device."""
        from robustbench_cli.commands import devices
        from robustbench_cli.commands.load_model import restore
        from robustbench_cli.config.schema import spec_of, validated
        from robustbench_cli.core.threat import Threat
        from robustbench_cli.data import DATASETS
        from robustbench_cli.models.layout import laid_out

        where = devices.resolve_device(material.device)
        threat = validated(Threat, {"norm": about["norm"], "eps": about["eps"]})
        model = laid_out(restore(run, folder), where)
        return MeasuredModel(
            model=model,
            dataset=DATASETS.build(spec_of(run.settings.dataset)),
            data_dir=material.data_dir,
            device=where,
            threat=threat,
            done=partial(material.feedback.progress, run.id),
        )


def title(about: ResultTable) -> str:
    """Return data set and threat in words, for the title of a figure."""
    return f"{one_line(about['dataset'])}, {about['norm']} {format_eps(about['eps'])}"


def _read_numbers(file: Path, head: ResultTable) -> dict[str, ResultTable]:
    """Return the numbers that an earlier command with the same settings measured, by hash of the
    weights.

    Raises:
        UserError: the file holds something else, which must not be overwritten.
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


def _write_numbers(file: Path, numbers: ResultTable) -> None:
    """Write the numbers of all runs to the JSON file."""
    atomic_files.write_bytes_atomically(file, json.dumps(numbers, indent=1).encode() + b"\n")
