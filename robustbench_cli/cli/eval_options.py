"""The options of ``eval``, ``attack`` and ``detect eval``, each written once, and their request."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.options import RunOptions, given
from robustbench_cli.core.errors import UserError

if TYPE_CHECKING:  # torch comes with it; --help must not wait for that
    from robustbench_cli.commands.eval_request import EvalRequest
    from robustbench_cli.commands.given_model import ModelOptions
    from robustbench_cli.commands.load_model import Choice
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
            help="crown, ibp, crown-ibp, smoothing:sigma=0.5, ...: what can be proven; repeat.",
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
    weights_key: options.WeightsKeyOption = None
    normalize: options.NormalizeOption = None
    mean: options.MeanOption = None
    std: options.StdOption = None
    resize: options.ResizeOption = None
    classes: options.ClassesOption = None
    dataset: options.TestSetOption = None
    n: options.FirstNOption = None
    only_classes: options.OnlyClassesOption = None
    balanced: options.BalancedOption = False
    shuffle: options.ShuffleOption = None
    norm: options.NormOption = None
    eps: options.EpsOption = None
    mask: options.MaskOption = None
    defend: options.DefendOption = None
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
    reject_class: Annotated[
        str | None,
        typer.Option(
            help="The class by which the model rejects an image, counted from 0, or last; only an "
            "error that is not rejected counts as broken."
        ),
    ] = None
    detector: Annotated[
        str | None,
        typer.Option(
            help="A run of advbench detect fit: what it flags is rejected. The threshold is set on "
            "test images that are not evaluated.",
            autocompletion=completion.runs,
        ),
    ] = None
    fpr: Annotated[
        str | None,
        typer.Option(help="Share of clean images that the detector may flag (default: 0.05)."),
    ] = None
    restarts: options.RestartsOption = None
    eot: options.EotOption = None
    last_iterate: options.LastIterateOption = False
    no_checks: options.NoChecksOption = False
    strict: options.StrictOption = False
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PERCENT",
            help="End with exit code 4 if an accuracy is below this or cannot be vouched for: 40 "
            "(every attack), pgd20=40, worst=35, clean=80; repeat.",
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Of autoattack and ensembles: try the last members on a part of what "
            "stands, until so many points of accuracy at most are undecided (95 % confidence).",
        ),
    ] = None
    widen: Annotated[
        bool,
        typer.Option(
            "--widen",
            help="With --within POINTS, and any attack: take 250, 500, ... images in random order, "
            "--n at most, until every robust accuracy is known to so many points to either side.",
        ),
    ] = False
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Stop after a time (90s, 10m, 2h) or a number of passes (50000passes) and give "
            "bounds; the same command with a larger budget, or none, goes on.",
        ),
    ] = None
    precision: options.PrecisionOption = None
    batch_size: options.AttackBatchOption = None
    seed: options.SeedOption = None


def eval_request(flags: EvalOptions, kind: "Kind", *, attacked: bool = True) -> "EvalRequest":
    """Return the request of an evaluation: names resolved, model loaded, configuration validated.

    Args:
        kind: of the run that the command leaves.
        attacked: whether attacks or certificates are needed; else there may be none.

    Raises:
        UserError: something that was asked for is unknown, damaged or makes no sense.
    """
    if flags.strict and flags.no_checks:
        raise UserError(
            "--strict asks for numbers that were checked and --no-checks for ones that were not: "
            "leave one of them out"
        )
    from robustbench_cli.commands.components import component_table
    from robustbench_cli.commands.defending import chosen_input_defenses
    from robustbench_cli.commands.eval_config import (
        chosen_attacks,
        chosen_certificates,
        resolve_eval_config,
    )
    from robustbench_cli.commands.eval_request import EvalRequest
    from robustbench_cli.commands.fitted_detectors import find_detector
    from robustbench_cli.commands.load_model import Choice, deployed, find_model
    from robustbench_cli.commands.rejection import chosen_rejection
    from robustbench_cli.evaluation.budget import Budget

    budget = None if flags.budget is None else Budget(flags.budget)
    of_attacks: dict[str, Any] = given(
        restarts=flags.restarts, eot=flags.eot, last_iterate=flags.last_iterate or None
    )
    certificates = chosen_certificates(flags.certify or [], given(sigma=flags.sigma, n0=flags.n0))
    none_needed = certificates or not attacked
    unattacked = none_needed and not (flags.attack or flags.suite or of_attacks)
    attacks = {} if unattacked else chosen_attacks(flags.attack or [], flags.suite, of_attacks)
    subject, base = find_model(chosen_model(flags), flags.workspace)
    source = None
    if flags.source is not None:
        source, _ = find_model(Choice(run=flags.source), flags.workspace)
    detector = None
    if flags.detector is not None:
        detector = find_detector(flags.detector, flags.workspace.out, subject.weights)
    typed = given(
        reject=chosen_rejection(flags.reject_class, detector, flags.fpr) or None,
        attack=attacks,
        certify=certificates,
        defend=chosen_input_defenses(flags.defend or []) or None,
        dataset=component_table("dataset", flags.dataset) if flags.dataset is not None else None,
        threat=given(norm=flags.norm, eps=flags.eps, mask=flags.mask) or None,
        source={"id": source.parent, "weights": source.weights} if source else None,
        sweep=flags.sweep,
        n=flags.n,
        subset=given(
            classes=[each.strip() for each in flags.only_classes.split(",")]
            if flags.only_classes is not None
            else None,
            balanced=flags.balanced or None,
            shuffle=flags.shuffle,
        )
        or None,
        within=flags.within,
        widen=flags.widen or None,
        precision=flags.precision,
        batch_size=flags.batch_size,
        seed=flags.seed,
        checks=False if flags.no_checks else None,
    )
    config = resolve_eval_config(base, typed, flags.set_ or [])
    return EvalRequest(
        subject=deployed(subject, config),
        source=source,
        detector=detector,
        config=config,
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
        budget=budget,
        kind=kind,
    )


MODEL_OPTIONS = ("weights", "weights_key", "normalize", "mean", "std", "resize", "classes")
"""Options that go with ``--model``."""


def chosen_model(flags: EvalOptions) -> "Choice":
    """Return the options that name the model: a run's, or the user's own."""
    from robustbench_cli.commands.load_model import Choice

    return Choice(
        run=flags.run,
        checkpoint=flags.checkpoint,
        given=_given_model(flags),
        dataset=flags.dataset,
    )


def _given_model(flags: EvalOptions) -> "ModelOptions | None":
    """Return the model that ``--model`` names; None: a run's is evaluated."""
    from robustbench_cli.commands.given_model import ModelOptions

    said = given(**{name: getattr(flags, name) for name in MODEL_OPTIONS})
    if flags.model is not None:
        return ModelOptions(model=flags.model, class_map=said.pop("classes", None), **said)
    if said:
        option = next(iter(said)).replace("_", "-")
        raise UserError(f"--{option} goes with --model; a run has weights and settings of its own")
    return None
