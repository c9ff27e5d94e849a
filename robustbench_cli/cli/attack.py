"""``advbench attack``."""

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.evaluating import Asked, request


def attack(
    name_: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="pgd20, cw100, fgsm, autoattack, pgd:steps=50, ...",
            autocompletion=completion.attacks,
        ),
    ],
    run: options.RunName = None,
    model: options.Model = None,
    weights: options.Weights = None,
    dataset: options.TestSet = None,
    n: Annotated[int, typer.Option("--n", help="First N test examples; 0: all.")] = 64,
    norm: options.Norm = None,
    eps: options.Eps = None,
    mask: options.Mask = None,
    restarts: options.Restarts = None,
    eot: options.Eot = None,
    last_iterate: options.LastIterate = False,
    precision: options.Precision = None,
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
    from robustbench_cli.commands.attack import attack as craft

    asked = Asked(
        attacks=[name_],
        run=run,
        model=model,
        weights=weights,
        dataset=dataset,
        n=n,
        norm=norm,
        eps=eps,
        mask=mask,
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
    with shown(quiet) as display, options.interruptible(options.NOTHING):
        folder = craft(request(asked, "attack"), display)
    print_outcomes(folder)
