"""``advbench attack``."""

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions, request


def attack_command(
    name_: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="pgd20, cw100, fgsm, autoattack, pgd:steps=50, ...",
            autocompletion=completion.attacks,
        ),
    ],
    run: options.RunOption = None,
    model: options.ModelOption = None,
    weights: options.WeightsOption = None,
    dataset: options.TestSetOption = None,
    n: Annotated[int, typer.Option("--n", help="First N test examples; 0: all.")] = 64,
    norm: options.NormOption = None,
    eps: options.EpsOption = None,
    mask: options.MaskOption = None,
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
    """Craft adversarial examples for a model and keep them, with a picture.

    The folder gets adversarial.npz (x, x_adv, y, clean, adversarial, norm, step) and
    adversarial.png: clean, adversarial, and the difference amplified.

    \b
    advbench attack pgd20                   the latest run
    advbench attack cw100 --run trades --eps 4/255 --n 256
    """
    from robustbench_cli.cli.eval_summary import print_evaluation
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.attack import run_attack_command as craft

    asked = EvalOptions(
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
    with progress_display(quiet) as display, options.interruptible(options.NOTHING):
        folder = craft(request(asked, "attack"), display)
    print_evaluation(folder)
