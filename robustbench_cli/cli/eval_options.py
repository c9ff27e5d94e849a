"""The options of ``eval``, ``attack`` and ``detect eval``, each written once, and their request."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.options import RunOptions, given

if TYPE_CHECKING:  # torch comes with it; --help must not wait for that
    from robustbench_cli.commands.eval_request import EvalRequest
    from robustbench_cli.runs.records import Kind


@dataclass(frozen=True, kw_only=True)
class EvalOptions(RunOptions):
    """The options of an evaluation as they were typed; a command takes all of them or some."""

    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="pgd20, cw100, pgd:steps=50,restarts=5, autoattack, ...; repeat.",
            autocompletion=completion.attacks,
        ),
    ] = None
    suite: Annotated[
        str | None,
        typer.Option(
            help="A set of attacks by name (paper), or a .toml file.",
            autocompletion=completion.suites,
        ),
    ] = None
    certify: Annotated[
        list[str] | None,
        typer.Option(
            help="smoothing, smoothing:sigma=0.5,n=100000, ...: what can be proven; repeat.",
            autocompletion=completion.certificates,
        ),
    ] = None
    sigma: Annotated[
        str | None, typer.Option(help="Noise of every certificate that takes it, e.g. 0.25.")
    ] = None
    n0: Annotated[
        int | None,
        typer.Option("--n0", help="Votes that choose the class which is certified, e.g. 100."),
    ] = None
    run: options.RunOption = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Which of the run's weights: last, or the ones that train.select keeps (default)."
        ),
    ] = None
    model: options.ModelOption = None
    weights: options.WeightsOption = None
    dataset: options.TestSetOption = None
    n: options.FirstNOption = None
    norm: options.NormOption = None
    eps: options.EpsOption = None
    mask: options.MaskOption = None
    sweep: Annotated[
        str | None,
        typer.Option(help="Every attack at several radii or lengths: eps=0,2/255,...,16/255."),
    ] = None
    source: Annotated[
        str | None,
        typer.Option(
            help="Craft the images on another run and try them on this one (transfer).",
            autocompletion=completion.runs,
        ),
    ] = None
    restarts: options.RestartsOption = None
    eot: options.EotOption = None
    last_iterate: options.LastIterateOption = False
    precision: options.PrecisionOption = None
    batch_size: options.AttackBatchOption = None
    seed: options.SeedOption = None


def eval_request(asked: EvalOptions, kind: "Kind") -> "EvalRequest":
    """Return the request of an evaluation: names resolved, model loaded, configuration validated.

    Args:
        kind: of the run that the command leaves.

    Raises:
        UserError: something that was asked for is unknown, damaged or makes no sense.
    """
    from robustbench_cli.commands.components import component_table
    from robustbench_cli.commands.eval_config import (
        chosen_attacks,
        chosen_certificates,
        resolve_eval_config,
    )
    from robustbench_cli.commands.eval_request import EvalRequest
    from robustbench_cli.commands.load_model import Choice, deployed, find_model

    of_attacks: dict[str, Any] = given(
        restarts=asked.restarts, eot=asked.eot, last_iterate=asked.last_iterate or None
    )
    certificates = chosen_certificates(asked.certify or [], given(sigma=asked.sigma, n0=asked.n0))
    proof_only = certificates and not (asked.attack or asked.suite or of_attacks)
    attacks = {} if proof_only else chosen_attacks(asked.attack or [], asked.suite, of_attacks)
    choice = Choice(
        run=asked.run,
        checkpoint=asked.checkpoint,
        model=asked.model,
        weights=asked.weights,
        dataset=asked.dataset,
    )
    subject, base = find_model(choice, asked.workspace)
    source = None
    if asked.source is not None:
        source, _ = find_model(Choice(run=asked.source), asked.workspace)
    typed = given(
        attack=attacks,
        certify=certificates,
        dataset=component_table("dataset", asked.dataset) if asked.dataset is not None else None,
        threat=given(norm=asked.norm, eps=asked.eps, mask=asked.mask) or None,
        source={"id": source.parent, "weights": source.weights} if source else None,
        sweep=asked.sweep,
        n=asked.n,
        precision=asked.precision,
        batch_size=asked.batch_size,
        seed=asked.seed,
    )
    config = resolve_eval_config(base, typed, asked.set_ or [])
    return EvalRequest(
        subject=deployed(subject, config),
        source=source,
        config=config,
        workspace=asked.workspace,
        command=sys.argv[1:],
        name=asked.name,
        kind=kind,
    )
