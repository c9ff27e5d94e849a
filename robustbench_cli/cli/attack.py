"""``advbench attack``: craft adversarial examples and keep them."""

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import MODEL_OPTIONS, EvalOptions, eval_request


@dataclass(frozen=True, kw_only=True)
class AttackOptions(EvalOptions):
    """The options of an evaluation, with fewer images: their adversarial versions are kept."""

    n: Annotated[int | None, typer.Option("--n", help="First N test examples; 0: all.")] = 64


@options.takes_options(
    *("run", "model", *MODEL_OPTIONS, "dataset", "n"),
    *("only_classes", "balanced", "shuffle", "norm", "eps", "mask", "defend"),
    *("restarts", "eot", "last_iterate", "no_checks", "strict"),
    *("precision", "batch_size", "seed"),
    *("device", "data_dir", "out", "name", "set_", "json_", "quiet", "debug"),
)
def attack_command(
    attack: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="pgd20, cw100, fgsm, autoattack, pgd:steps=50, ...",
            autocompletion=completion.attacks,
        ),
    ],
    flags: AttackOptions,
) -> None:
    """Craft adversarial examples for a model and keep them, with a picture.

    The folder gets adversarial.npz (x, x_adv, y, clean, adversarial, norm, step, the confidence
    of both predictions, names of classes) and adversarial.png: clean, adversarial, and the
    difference amplified. advbench report --out study.html shows them on a page, too.

    \b
    advbench attack pgd20                   the latest run
    advbench attack cw100 --run trades --eps 4/255 --n 256
    """
    from robustbench_cli.cli.eval_summary import print_evaluation, refuse_unsound
    from robustbench_cli.cli.json_output import print_outcome
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.attack import run_attack_command

    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        request = eval_request(replace(flags, attack=[attack]), "attack")
        folder = run_attack_command(request, display)
    print_outcome(folder) if flags.json_ else print_evaluation(folder)
    if flags.strict:
        refuse_unsound(folder)
