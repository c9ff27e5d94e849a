"""What the page of ``report --format html`` shows beside its table, collected from the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cli.cli.page_html import PageExtras, PageFigure
from robustbench_cli.cli.tables import row_names
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.runs.records import Run, data_name

if TYPE_CHECKING:
    from robustbench_cli.cli.formats import Page
    from robustbench_cli.cli.tables import TableSheet
    from robustbench_cli.report.gallery import Gallery
    from robustbench_cli.report.how_made import HowMade

FIGURES_SHOWN: Mapping[str, str] = {
    "tradeoff": "Clean against robust accuracy",
    "eps": "Robust accuracy over the radius",
    "steps": "Robust accuracy over the steps of the attack",
    "history": "Accuracy over the epochs of training",
}
"""The figures of a page, in order: those that draw what is recorded, and measure nothing."""
MOST_IMAGES = 48
"""The most images of a page, over all runs."""
MOST_NOTES = 4
"""The most notes below a figure."""
FEWEST_IMAGES = 6
"""So many images a run has on the page, if as many fell, however many runs there are."""


def study_extras(sheet: "TableSheet", folders: Mapping[Path, Run], results: Path) -> PageExtras:
    """Return the extras of the page about the rows of a table.

    Args:
        sheet: the table.
        folders: all records by folder.
        results: the folder that they are below.
    """
    runs = {run.id: run for run in folders.values()}
    evaluated = [runs[id_] for row in sheet.rows for id_ in row.runs if id_ in runs]
    trained = list(dict.fromkeys(run.parent for run in evaluated if run.parent in runs))
    places = {run.id: str(folder) for folder, run in folders.items()}
    # Models that no training run here made are named by their evaluations, sweeps included.
    foreign = {run.weights for run in evaluated if run.parent not in runs}
    own = [run.id for run in of_kind([*runs.values()], "eval") if run.weights in foreign]
    galleries, gallery_notes = _galleries(evaluated, folders)
    published, published_notes = _published(sheet, [*folders.values()])
    return PageExtras(
        title=one_line(results.resolve().name),
        made=_made(sheet, runs),
        figures=_figures(
            [places[id_] for id_ in trained if id_], [places[id_] for id_ in own], results
        ),
        galleries=galleries,
        gallery_notes=gallery_notes,
        published=published,
        published_notes=published_notes,
    )


def _made(sheet: "TableSheet", runs: Mapping[str, Run]) -> dict[tuple[int, int], "HowMade"]:
    from robustbench_cli.report.how_made import how_made

    names = row_names(sheet.rows)
    return {
        (place, at): found
        for place, row in enumerate(sheet.rows)
        for at, column in enumerate(sheet.columns)
        if (found := how_made(row, names[place], column, runs))
    }


def _figures(trained: Sequence[str], own: Sequence[str], results: Path) -> list[PageFigure]:
    """Return the figures about some models, each drawn or with the reason why not.

    Args:
        trained: the folders of the training runs.
        own: those of the evaluations of models that no training run here made.
    """
    from robustbench_cli.core.registry import Spec
    from robustbench_cli.figures import FIGURES, Feedback, Material, _style

    drawn, missing = [], []
    for kind, title in FIGURES_SHOWN.items():
        figure = FIGURES.build(Spec.parse(kind))
        notes: list[str] = []
        named = [*trained, *([] if figure.of_training else own)]
        material = Material(
            names=tuple(named),
            results=results,
            numbers=results / f"{kind}.json",
            feedback=Feedback(note=notes.append),
        )
        try:
            if not named:
                raise UserError("no training run here made these models")
            svg = _style.svg_source(figure.prepare(material), kind)
            drawn.append(PageFigure(title=title, svg=svg, notes=_fewer(notes)))
        except UserError as error:
            missing.append(f"{title} is not drawn: {error}")
    return [*drawn, PageFigure(title="", svg="", notes=missing)] if missing else drawn


def _fewer(notes: Sequence[str]) -> list[str]:
    """Return the first notes, and how many more there are."""
    more = len(notes) - MOST_NOTES
    return [*notes[:MOST_NOTES], *([f"and {more} more"] if more > 0 else [])]


def _galleries(
    evaluated: Sequence[Run], folders: Mapping[Path, Run]
) -> tuple[list["Gallery"], list[str]]:
    """Return the images that fell of the models of some evaluations, and what is to be said."""
    from robustbench_cli.report.gallery import gallery
    from robustbench_cli.report.number_trust import attack_trust
    from robustbench_cli.report.trust_legend import finding_text

    models = {(run.weights, data_name(run)) for run in evaluated}
    attacked = {run.id for run in of_kind([*folders.values()], "attack") if run.status == "ok"}
    kept = {
        folder: run
        for folder, run in folders.items()
        if run.id in attacked and (run.weights, data_name(run)) in models
    }
    notes, found = [], []
    for folder, run in kept.items():
        if run.targeted:
            notes.append(f"{run.id}: no images, {', '.join(run.targeted)} is after one class only")
            continue
        (label,) = run.attacks
        trust = attack_trust(run, label)
        if trust.withheld:
            why = [finding_text(each) for each in trust.findings if each.severity == "error"]
            notes.append(f"{run.id}: no images, its answers mean nothing: {'; '.join(why)}")
            continue
        try:
            each = max(FEWEST_IMAGES, MOST_IMAGES // len(kept))
            found.append(gallery(run, folder, each))
        except UserError as error:
            notes.append(f"{run.id}: {error}")
    if not kept:
        of = next((f" --run {run.parent}" for run in evaluated if run.parent), "")
        notes.append(
            "No images were kept: eval keeps verdicts only. This keeps images: "
            f"advbench attack pgd20{of}"
        )
    return found, notes


def _published(sheet: "TableSheet", runs: Sequence[Run]) -> tuple[list["Page"], list[str]]:
    """Return published numbers with those of the table beside them, a page for each paper."""
    from robustbench_cli.cli.comparing import measured_page

    used = {id_ for row in sheet.rows for id_ in row.runs}
    others = {run.id for run in of_kind(runs, "eval")} - used
    wanted = [run for run in runs if run.id not in others]
    pages = measured_page(wanted)
    nothing = (
        "No published number is of a method, a data set and an attack that were measured here: "
        "advbench paper list names the tables, advbench report --paper NAME what they take."
    )
    return pages, [] if pages else [nothing]
