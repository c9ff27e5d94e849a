"""``advbench compare``: two models on the same images, and the images that differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.paired import paired_page
from robustbench_cli.cli.writing import format_of, left_out, put
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.differing_images import DifferingImage, SeenPrediction
    from robustbench_cli.report.paired_rows import PairedRows

_COLUMNS = ("measured", "image", "file", "label", "A says", "B says")


def compare_command(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A row of the report by name, for all its seeds; or a run: an id, a part of one, "
            "or a path.",
            autocompletion=completion.runs,
        ),
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", help="Another one.", autocompletion=completion.runs)
    ],
    attack: Annotated[
        str | None,
        typer.Option(
            help="Images that differ under this only: pgd20, clean, worst (default: all).",
            autocompletion=completion.attacks,
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            help="Images to name for each attack on the screen and in md and latex; 0: all.", min=0
        ),
    ] = 10,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="terminal, md, latex, csv or json (default: terminal, or as --out ends); csv and "
            "json name every image.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, e.g. images.csv, not to the screen.")
    ] = None,
    results: options.ResultsOption = Path("results"),
    debug: options.DebugOption = False,
) -> None:
    """Compare two models on the same images: the paired table, and the images that differ.

    An image differs where one is right and the other wrong; over several seeds, where the shares
    of seeds that are right are at least a half apart. It is named by its position in the test
    split, and by its file where it comes from one, with what either side takes it for. The images
    that advbench attack keeps are compared like evaluations; a training run that was not evaluated
    stands for its attacks. CSV is a line for each image; JSON has both, the comparisons and, in
    each, its images.

    \b
    advbench compare trades pgd-at
    advbench compare trades pgd-at --attack autoattack --out images.csv
    """
    from robustbench_cli.commands.upgrade_records import comparable
    from robustbench_cli.report.example_files import ExampleFiles
    from robustbench_cli.report.paired_rows import paired_rows

    chosen = format_of(format_ or ("json" if json_ else None), out)
    folders = comparable(results, left_out)
    files = ExampleFiles.of_runs(folders)
    found = paired_rows([*folders.values()], (first, second), files)
    put(_page(found, attack, limit), chosen, out)


def _page(found: list["PairedRows"], attack: str | None, limit: int) -> Page:
    from robustbench_cli.report.differing_images import differing_images

    page = paired_page(found)
    images = [differing_images(pair) for pair in found]
    measured = [line.measured for pair in found for line in pair.lines]
    if attack is not None and attack not in measured:
        raise UserError(f"--attack {attack!r}: it is not measured for both{hint(attack, measured)}")
    images = [[each for each in some if attack in (None, each.measured)] for some in images]
    grids = [_grid(pair, some, limit) for pair, some in zip(found, images, strict=True) if some]
    every = [each for some in images for each in some]
    objects = [
        {**each, "images": [_object(i) for i in some if i.measured == each["measured"]]}
        for each, some in zip(
            page.objects,
            [some for pair, some in zip(found, images, strict=True) for _ in pair.lines],
            strict=True,
        )
    ]
    return Page(
        head=page.head,
        grids=[*page.grids, *grids],
        notes=[*page.notes, *_notes(every, limit)],
        lines=list(map(_object, every)),
        objects=objects,
        legend=page.legend,
    )


def _notes(images: list["DifferingImage"], limit: int) -> list[str]:
    if not images:
        return ["no image differs"]
    counts = {each.measured: 0 for each in images}
    for each in images:
        counts[each.measured] += 1
    hidden = {name: count - limit for name, count in counts.items() if limit and count > limit}
    more = ", ".join(f"{count} under {name}" for name, count in hidden.items())
    return [
        "image: its position in the test split; says: the class, of several seeds the most "
        "frequent one, * = right",
        *([f"and {more} (--limit 0, --format csv)"] if more else []),
    ]


def _grid(pair: "PairedRows", images: list["DifferingImage"], limit: int) -> Grid:
    shown: list[DifferingImage] = []
    for line in pair.lines:
        some = [each for each in images if each.measured == line.measured]
        shown += some[:limit] if limit else some
    named = any(each.name for each in shown)
    columns = [name for name in _COLUMNS if named or name != "file"]
    rows = [dict(zip(_COLUMNS, _texts(each), strict=True)) for each in shown]
    return Grid(
        title="images that differ",
        columns=columns,
        rows=[[TableEntry(row[name]) for name in columns] for row in rows],
        facts=frozenset({"measured", "image", "file"}),
        left=frozenset({"measured", "file"}),
    )


def _texts(image: "DifferingImage") -> list[str]:
    return [
        one_line(image.measured),
        str(image.index),
        one_line(image.name),
        str(image.label),
        _said(image.first, image),
        _said(image.second, image),
    ]


def _said(side: "SeenPrediction", image: "DifferingImage") -> str:
    other = image.second if side is image.first else image.first
    share = "" if side.right in (0, 1) else f" ({side.right:.0%} right)"
    return f"{side.predicted}{' *' * (side.right > other.right)}{share}"


def _object(image: "DifferingImage") -> dict[str, Any]:
    return {
        "measured": image.measured,
        "index": image.index,
        "name": image.name or None,
        "label": image.label,
        "first_prediction": image.first.predicted,
        "second_prediction": image.second.predicted,
        "first_right": image.first.right,
        "second_right": image.second.right,
    }
