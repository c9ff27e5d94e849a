"""The tables of ``advbench report`` that stand in place of the main one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from robustbench_cli.cli.formats import Page
from robustbench_cli.cli.matrices import joints, transfers
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.report.example_files import ExampleFiles
    from robustbench_cli.runs.records import Run


class _Titled(Protocol):
    @property
    def about(self) -> Mapping[str, Any]:
        """The setting that all numbers of a table share, the data set included."""


_Table = TypeVar("_Table", bound=_Titled)


def transfer_page(runs: Sequence["Run"], dataset: str | None, intervals: bool) -> Page:
    """Return a table of sources and targets for each attack of ``eval --source``.

    Raises:
        UserError: there is none.
    """
    from robustbench_cli.report.transfer_matrix import transfer_matrices

    none = (
        "no finished evaluation tries another model's images; make one: "
        "advbench eval --attack pgd20 --run RUN --source OTHER"
    )
    return transfers(_on(dataset, transfer_matrices(runs, intervals=intervals), none))


def joint_page(
    runs: Sequence["Run"], dataset: str | None, intervals: bool, files: "ExampleFiles"
) -> Page:
    """Return a table for each set of domains of ``advbench joint``.

    Raises:
        UserError: there is none.
    """
    from robustbench_cli.report.joint_table import tables

    none = "no finished joint attack; make one: advbench joint --run RUN --run OTHER --eps 0.15"
    return joints(_on(dataset, tables(runs, intervals=intervals, files=files), none))


def measured_page_of(kind: str, runs: Sequence["Run"], dataset: str | None) -> Page:
    """Return what runs of one kind measured that is no accuracy under attack.

    Raises:
        UserError: there is none.
    """
    from robustbench_cli.cli.measures import measures_page
    from robustbench_cli.report.measure_table import MEASURED_KINDS, measure_tables

    known = next((each for each in MEASURED_KINDS if each == kind), None)
    if known is None:
        raise UserError(f"--kind {kind!r}{hint(kind, MEASURED_KINDS)}")
    none = f"no finished run of advbench {known}; make one: advbench {known} --help"
    return measures_page(_on(dataset, measure_tables(runs, known), none))


def _on(dataset: str | None, tables: Sequence[_Table], none: str) -> list[_Table]:
    """Those of a data set, or of all; ``UserError`` with the text ``none`` where there is none."""
    names = ("dataset", "own_dataset")
    found = [t for t in tables if dataset is None or dataset in [t.about[key] for key in names]]
    if not found:
        raise UserError(none)
    return found
