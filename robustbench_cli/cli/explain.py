"""``advbench explain``: what a model's answers depend on, in pictures and in numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import MODEL_OPTIONS, EvalOptions, eval_request
from robustbench_cli.cli.pictures import draw_where_possible
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustbench_cli.commands.explain_request import ExplainRequest
    from robustbench_cli.commands.object_places import PlaceOptions


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(EvalOptions):
    """The options of a model and its images, and those of explanations."""

    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="First N test examples (default: 6).", callback=options.at_least_one
        ),
    ] = 6
    target: Annotated[
        str,
        typer.Option(help="The class that is explained: predicted, label, or a name or number."),
    ] = "predicted"
    mask_above: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Pixels above this are the object, on images with a black ground."
        ),
    ] = 0.0
    masks: Annotated[
        Path | None,
        typer.Option(help="The objects: .npz with mask (N, H, W), one for each test image."),
    ] = None
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Boxes of the objects, for localisation: .csv with index,x0,y0,x1,y1, or .npz "
            "with index and box."
        ),
    ] = None
    steps: Annotated[
        int, typer.Option(min=1, help="Parts in which insertion and deletion move the pixels.")
    ] = 32
    sanity: Annotated[
        str,
        typer.Option(
            help="Weights that are randomised to see if maps change: all, cascade (layer after "
            "layer from the top), or none."
        ),
    ] = "all"
    pictures: Annotated[
        int, typer.Option(min=0, help="Images that are drawn, from the first; 0: no picture.")
    ] = 6

    @property
    def places(self) -> "PlaceOptions":
        """What was said of where the objects are."""
        from robustbench_cli.commands.object_places import PlaceOptions

        return PlaceOptions(above=self.mask_above, masks=self.masks, boxes=self.boxes)


@options.takes_options(
    *("run", "checkpoint", "model", *MODEL_OPTIONS, "dataset", "n"),
    *("only_classes", "balanced", "shuffle"),
    *("target", "mask_above", "masks", "boxes", "steps", "sanity", "pictures"),
    *("batch_size", "seed"),
    *("device", "data_dir", "out", "name", "set_", "json_", "quiet", "debug"),
)
def explain_command(
    method: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD...",
            help="gradient, smoothgrad, grad-cam, perceptual-ball:gamma=100, ...",
            autocompletion=completion.explanations,
        ),
    ],
    *,
    flags: ExplainOptions,
) -> None:
    """Explain a model's answers by maps of what they depend on, and judge the maps.

    The folder gets explanations.npz, explanations.png and the measures, beside those of the plain
    gradient, of an even map and of a random one. Most methods need captum: pip install captum.

    \b
    advbench explain gradient perceptual-ball         the latest run, six images
    advbench explain grad-cam rise --run trades --n 200
    advbench explain perceptual-ball:gamma=0 --target label --sanity cascade
    advbench explain gradient --model net.py:make --dataset cifar10 --masks objects.npz
    """
    from robustbench_cli.cli.measures import print_measures
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.explain import explain_model

    request = _request(method, flags)
    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        folder = explain_model(request, display)
        _draw(folder, flags.pictures, display.note)
    print_measures(folder, as_json=flags.json_)


def _request(methods: list[str], flags: ExplainOptions) -> "ExplainRequest":
    from robustbench_cli.commands.explain_request import ExplainRequest, Sanity, built_methods

    if flags.sanity not in get_args(Sanity):
        raise UserError(f"--sanity {flags.sanity}{hint(flags.sanity, get_args(Sanity))}")
    built_methods(tuple(methods))  # before a model is loaded
    return ExplainRequest(
        images=eval_request(flags, "explain", attacked=False),
        methods=tuple(methods),
        target=flags.target,
        places=flags.places,
        steps=flags.steps,
        sanity=cast("Sanity", flags.sanity),
        pictured=flags.pictures,
    )


def _draw(folder: Path, pictured: int, note: "Callable[[str], None]") -> None:
    """Draw the first images of a run into its folder."""
    from robustbench_cli.figures._explanation_sheet import draw_explanations
    from robustbench_cli.runs import records

    if pictured:
        draw_where_possible(lambda: draw_explanations(folder, records.read(folder)), note)
