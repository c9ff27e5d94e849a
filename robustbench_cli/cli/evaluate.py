"""``advbench eval``."""

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions, request
from robustbench_cli.distributed.env import is_main_process


def eval_command(
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="pgd20, cw100, pgd:steps=50,restarts=5, autoattack, ...; repeat.",
            autocompletion=completion.attacks,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A set of attacks by name (paper), or a .toml file.",
            autocompletion=completion.suites,
        ),
    ] = None,
    certify: Annotated[
        list[str] | None,
        typer.Option(
            help="smoothing, smoothing:sigma=0.5,n=100000, ...: what can be proven; repeat.",
            autocompletion=completion.certificates,
        ),
    ] = None,
    sigma: Annotated[
        str | None, typer.Option(help="Noise of every certificate that takes it, e.g. 0.25.")
    ] = None,
    n0: Annotated[
        int | None,
        typer.Option("--n0", help="Votes that choose the class which is certified, e.g. 100."),
    ] = None,
    run: options.RunOption = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Which of the run's weights: last, or the ones that train.select keeps (default)."
        ),
    ] = None,
    model: options.ModelOption = None,
    weights: options.WeightsOption = None,
    dataset: options.TestSetOption = None,
    n: options.N = None,
    norm: options.NormOption = None,
    eps: options.EpsOption = None,
    mask: options.MaskOption = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="Every attack at several radii or lengths: eps=0,2/255,...,16/255."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Craft the images on another run and try them on this one (transfer).",
            autocompletion=completion.runs,
        ),
    ] = None,
    restarts: options.RestartsOption = None,
    eot: options.EotOption = None,
    last_iterate: options.LastIterateOption = False,
    precision: options.PrecisionOption = None,
    batch_size: options.AttackBatchOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: options.OutOption = Path("results"),
    name: options.NameOption = None,
    set_: options.SetOption = None,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Measure a model under attacks or certify it; print the accuracies and the folder of verdicts.

    An interrupted evaluation goes on where it stopped when the same command is run again.

    \b
    advbench eval --attack pgd100 --attack cw20          the latest run
    advbench eval --suite paper --run trades --n 1000
    advbench eval --attack pgd20 --sweep eps=0,2/255,...,16/255
    advbench eval --attack pgd20 --mask threshold:above=0.1    the background only
    advbench eval --attack pgd20 --run trades --source standard
    advbench eval --certify smoothing --sigma 0.25 --n 500
    advbench eval --model net.py:make --weights net.pt --dataset cifar10 --attack aa
    """
    from robustbench_cli.cli.eval_summary import print_evaluation
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.evaluate import run_evaluation as evaluation

    asked = EvalOptions(
        attacks=attack or [],
        suite=suite,
        certify=certify or [],
        sigma=sigma,
        n0=n0,
        run=run,
        checkpoint=checkpoint,
        model=model,
        weights=weights,
        dataset=dataset,
        source=source,
        n=n,
        norm=norm,
        eps=eps,
        mask=mask,
        sweep=sweep,
        restarts=restarts,
        eot=eot,
        last_iterate=last_iterate,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        device=device,
        data_dir=data_dir,
        out=out,
        name=name,
        changes=set_ or [],
    )
    with progress_display(quiet) as display, options.interruptible(options.AGAIN):
        folder = evaluation(request(asked, "eval"), display)
    if is_main_process():
        print_evaluation(folder)
