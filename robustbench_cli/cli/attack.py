"""``advbench attack``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli import catalogue
from robustbench_cli.cli import options


def attack(
    name_: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="pgd20, cw100, fgsm, autoattack, pgd:steps=50, ...",
            autocompletion=catalogue.complete_attacks,
        ),
    ],
    run: options.RunName = None,
    model: options.Model = None,
    weights: options.Weights = None,
    dataset: options.Dataset = None,
    n: Annotated[int, typer.Option("--n", help="First N test examples; 0: all.")] = 64,
    norm: options.Norm = None,
    eps: options.Eps = None,
    restarts: Annotated[int | None, typer.Option(help="Independent starts.")] = None,
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
    """Craft adversarial examples for a model and keep them, with a picture.

    The folder gets adversarial.npz (x, x_adv, y, clean, adversarial, norm, step) and
    adversarial.png: clean, adversarial, and the difference amplified.

    \b
    advbench attack pgd20                   the latest run
    advbench attack cw100 --run trades --eps 4/255 --n 256
    """
    from robustbench_cli.cli.display import print_outcomes, shown
    from robustbench_cli.run import craft as command
    from robustbench_cli.run import setup
    from robustbench_cli.run.subject import Choice, find

    place = setup.Place(out=out, data_dir=data_dir, device=device)
    attacks = setup.chosen_attacks([name_], None, last_iterate, restarts)
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
    with shown(quiet) as display, options.interruptible("nothing is kept of it."):
        folder = command.attack(subject, chosen, place, display, command=sys.argv[1:], name=name)
    print_outcomes(folder)
