"""``advbench eval``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli import catalogue
from robustbench_cli.cli import options


def evaluate(
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="pgd20, cw100, pgd:steps=50,restarts=5, autoattack, ...; repeat.",
            autocompletion=catalogue.complete_attacks,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A set of attacks by name (paper), or a .toml file.",
            autocompletion=catalogue.complete_suites,
        ),
    ] = None,
    run: options.RunName = None,
    model: options.Model = None,
    weights: options.Weights = None,
    dataset: options.Dataset = None,
    n: Annotated[int | None, typer.Option("--n", help="First N test examples (default: all).")] = (
        None
    ),
    norm: options.Norm = None,
    eps: options.Eps = None,
    restarts: Annotated[
        int | None, typer.Option(help="Restarts of every attack that takes them.")
    ] = None,
    last_iterate: options.LastIterate = False,
    batch_size: options.AttackBatch = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    data_dir: options.DataDir = Path("data"),
    out: options.Out = Path("results"),
    name: options.Name = None,
    set_: options.Set = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure a model under attacks; print the accuracies and the folder of verdicts.

    An interrupted evaluation goes on where it stopped when the same command is run again.

    \b
    advbench eval --attack pgd100 --attack cw20          the latest run
    advbench eval --suite paper --run trades --n 1000
    advbench eval --model net.py:make --weights net.pt --dataset cifar10 --attack aa
    """
    from robustbench_cli.cli.display import print_outcomes, shown
    from robustbench_cli.run import evaluate as command
    from robustbench_cli.run import setup
    from robustbench_cli.run.subject import Choice, find

    place = setup.Place(out=out, data_dir=data_dir, device=device)
    attacks = setup.chosen_attacks(attack or [], suite, last_iterate, restarts)
    choice = Choice(run=run, model=model, weights=weights, dataset=dataset)
    subject, base = find(choice, place)
    chosen = setup.eval_config(
        base,
        options.given(
            attack=attacks,
            dataset=setup.component("dataset", dataset) if dataset is not None else None,
            threat=options.given(norm=norm, eps=eps) or None,
            n=n,
            batch_size=batch_size,
            seed=seed,
        ),
        set_ or [],
    )
    again = "what is done is kept. Run the same command again to go on."
    with shown(quiet) as display, options.interruptible(again):
        folder = command.evaluate(subject, chosen, place, display, command=sys.argv[1:], name=name)
    print_outcomes(folder)
