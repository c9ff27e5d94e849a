"""``advbench audit``: try to prove a robust accuracy wrong, and grade the claim."""

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import MODEL_OPTIONS, EvalOptions, eval_request
from robustbench_cli.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AuditOptions(EvalOptions):
    """The options of an evaluation under the one attack that is claimed, and those of the audit."""

    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="First N test examples (default: 200).", callback=options.at_least_one
        ),
    ] = 200
    claim: Annotated[
        float | None,
        typer.Option(
            help="The claimed robust accuracy in per cent, under --attack at --eps: it is graded."
        ),
    ] = None
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="All images wherever costly checks would take some of them: many times slower.",
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="End with exit code 3 if any number is not sound, or the claim not reproduced.",
        ),
    ] = False


@options.takes_options(
    *("claim", "thorough", "checkpoint", "model", *MODEL_OPTIONS, "dataset", "n"),
    *("only_classes", "balanced", "shuffle"),
    *("norm", "eps", "mask", "defend", "reject_class", "detector", "fpr"),
    *("restarts", "eot", "last_iterate", "strict"),
    *("precision", "batch_size", "seed"),
    *("device", "data_dir", "out", "name", "set_", "json_", "quiet", "debug"),
)
def audit_command(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A training run: its id, a part of it, or its path (default: the latest).",
            autocompletion=completion.runs,
        ),
    ] = None,
    attack: Annotated[
        str,
        typer.Option(
            help="The claimed attack: pgd20, cw100, autoattack, ...",
            autocompletion=completion.attacks,
        ),
    ] = "autoattack",
    *,
    flags: AuditOptions,
) -> None:
    """Try to prove a robust accuracy wrong, and grade the claim.

    The claimed attack is run, then every check at full size and a battery: more steps and
    restarts, growing radii, no limit at all, stronger attacks, transfer, the binarization test,
    a self-test of every attack, and more (advbench list checks). What is found stands in
    run.json and on a page, audit.md and audit.html. An interrupted audit goes on where it
    stopped when the same command is run again.

    \b
    advbench audit                                     the latest run under AutoAttack
    advbench audit trades --attack pgd20 --claim 55    is it 55 %?
    advbench audit --model net.py:make --weights net.pt --dataset cifar10 --eps 8/255 --claim 60
    """
    from robustbench_cli.cli.audit_files import write_audit_page
    from robustbench_cli.cli.audit_summary import print_audit, refuse_audit
    from robustbench_cli.cli.json_output import print_outcome
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.audit import run_audit

    if run is not None and flags.model is not None:
        raise UserError("RUN and --model name two models; give one of them")
    with progress_display(flags.quiet) as display, options.interruptible(options.AGAIN):
        request = eval_request(replace(flags, attack=[attack], run=run), "audit")
        claim = None if flags.claim is None else flags.claim / 100
        folder = run_audit(request, display, claim=claim, thorough=flags.thorough)
    pages = write_audit_page(folder)
    print_outcome(folder) if flags.json_ else print_audit(folder, pages)
    if flags.strict:
        refuse_audit(folder)
