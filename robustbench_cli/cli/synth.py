"""``advbench synth fit`` and ``advbench synth sample``: images to train on beside the real ones."""

import sys
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.strict_command import StrictCommand

synth = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@synth.callback()
def synth_command(ctx: typer.Context) -> None:
    """Make images that stand for a data set: fit a generator, then draw from it."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@synth.command("fit", cls=StrictCommand)
@options.takes_options("data_dir", "out", "name", "quiet", "debug")
def synth_fit_command(
    generator: Annotated[
        str,
        typer.Argument(
            help="gaussian, gaussian:components=20, kde, pixels, ...",
            autocompletion=completion.generators,
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="digits, mnist, cifar10, ..., folder:PATH, or npz:PATH.",
            autocompletion=completion.datasets,
        ),
    ] = "digits",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="First N training examples, like train.limit (default: all)."),
    ] = None,
    *,
    flags: options.RunOptions,
) -> None:
    """Fit a generator on training images; print the folder that holds it.

    The folder gets generator.safetensors: tensors only. Nothing is drawn yet, so there is no seed.
    What a run holds out of its training images (train.validation) is not left out here.

    \b
    advbench synth fit gaussian
    advbench synth fit kde:bandwidth=0.2 --dataset mnist --limit 200
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.synth import GeneratorFitting, fit_generator

    fitting = GeneratorFitting(
        generator=generator,
        dataset=dataset,
        limit=limit,
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        folder = fit_generator(fitting, display)
    typer.echo(folder)


@synth.command("sample", cls=StrictCommand)
@options.takes_options("out", "name", "quiet", "debug")
def synth_sample_command(
    run: Annotated[
        str,
        typer.Argument(
            help="A fitted generator: its run's id, a part of it, or its path.",
            autocompletion=completion.runs,
        ),
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="How many images.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
    *,
    flags: options.RunOptions,
) -> None:
    """Draw labelled images from a fitted generator; print the .npz file that holds them.

    The same seed gives the same first images, however many are drawn.

    \b
    advbench synth sample synth-gaussian --n 5000 --name proxy
    advbench train pgd-at --extra-data npz:results/proxy/samples.npz
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.synth import Sampling, draw_samples

    sampling = Sampling(
        run=run,
        n=n,
        seed=seed,
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        path = draw_samples(sampling, display)
    typer.echo(path)
