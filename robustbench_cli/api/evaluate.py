"""Evaluate a model that is in memory, with the engine, the checks and the verdicts of ``eval``."""

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from robustbench_cli.api.images import ImageInput, LabelInput, as_split, float_images, read_images
from robustbench_cli.api.lent_model import (
    count_classes,
    dtype_notes,
    fitted_for,
    lent,
    model_digest,
    named_model,
)
from robustbench_cli.api.result import EvaluationResult, read_result
from robustbench_cli.api.settings import (
    AttackChoice,
    build_choice,
    eval_config_of,
)
from robustbench_cli.audit._probe import copier
from robustbench_cli.commands.defending import (
    DefenseChoice,
    chosen_input_defenses,
    listed_defenses,
)
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import check_attacks
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import evaluate_shard
from robustbench_cli.commands.given_model import LOOKED_AT
from robustbench_cli.commands.rejection import chosen_rejection
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.threat import Threat
from robustbench_cli.distributed.group import ALONE
from robustbench_cli.evaluation.budget import Budget
from robustbench_cli.evaluation.search_model import SearchPrecision


def evaluate(
    model: nn.Module | str,
    x: ImageInput,
    y: LabelInput | None = None,
    *,
    attacks: AttackChoice | Sequence[AttackChoice],
    threat: Threat,
    seed: int = 0,
    precision: SearchPrecision = "auto",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = False,
    out: str | Path | None = None,
    name: str | None = None,
    dataset: str = "images",
    model_name: str | None = None,
    within: float | None = None,
    widen: bool = False,
    budget: str | None = None,
    checks: bool = True,
    reject_class: int | Literal["last"] | None = None,
    defend: DefenseChoice | Sequence[DefenseChoice] = (),
) -> EvaluationResult:
    """Attack every image that the model classifies correctly, and judge what is found in float32.

    The model is evaluated in evaluation mode and given back as it was: training flags,
    ``requires_grad``, gradients, device, dtype, memory format, classes of layers, and values.

    Args:
        model: images float32 (B, C, H, W) in [0, 1] to logits (B, K); any mode, any device.  Or
            a name as ``load_model`` takes it, e.g. "hf:PATH".  Logits may stand in a tuple, a
            dictionary or an object where it is clear which they are; one logit z means 0 and z.
        x: images, as a tensor (N, C, H, W), an array (N, C, H, W) or (N, H, W, C) with 1 or 3
            channels, or a DataLoader that yields pairs (x, y); float in [0, 1] or uint8.
        y: labels (N), whole numbers in 0..K-1; none with a DataLoader.
        attacks: names as on the command line ("pgd20", "pgd:steps=50,restarts=2", the suite
            "paper"), or dataclasses of ``robustbench_cli.attacks``.
        threat: the norm and the radius, in units of pixels in [0, 1].
        seed: of everything that attacks draw.
        precision: "auto" searches with the fastest model that can be vouched for, "exact" with the
            model itself; verdicts are always the model's own, in float32.
        batch_size: examples under attack at a time; verdicts do not depend on it.
        device: where to evaluate, e.g. "cuda"; None: where the model is.
        progress: whether to show what is going on, on standard error.
        out: a folder of results to leave a record in, which ``advbench report`` and
            ``advbench list runs`` read; an evaluation that was interrupted goes on where it
            stopped if it is called again with the same model, images and settings.
        name: the record's folder below ``out``; None: one is made up.
        dataset: what the record calls the images.
        model_name: what the record calls the model; None: as its class is called.
        within: points of accuracy that AutoAttack and ensembles may leave undecided by trying their
            last members on a part of what stands; None: on all of it.  ``bounds`` of the
            result then holds both ends of the robust accuracy, with 95 % confidence.
        widen: with ``within``, and for any attack: take 250, 500, ... of the images in random order
            until every robust accuracy is known to so many points to either side; ``intervals`` of
            the result holds them, and ``index`` says which images they are of.
        budget: stop after a time ("90s", "10m", "2h") or a number of passes, forward and backward
            ("50000passes"); ``bounds`` of the result then holds both ends of each robust accuracy,
            and ``record.attacks[label].budgeted`` how far each member came.  Called again with
            the same ``out`` and a larger budget, or none, it goes on where it stopped.
        checks: whether the model and what attacks found are checked for signs that an accuracy is
            too high or means nothing; False: every number is "unchecked".
        reject_class: the position among the model's logits, from 0, of a class that stands for a
            rejection, or "last"; labels number the other classes, in the order of their logits.
            An image is right when clean if it is right and not rejected, and stands under attack
            if it is right or rejected; attacks look for errors that are not rejected.
        defend: input defenses in front of the model, in order: names as on the command line
            ("lgs", "jpeg:quality=50"), or dataclasses of ``robustbench_cli.input_defenses``.

    Returns:
        Accuracies, how far each can be trusted and why, and verdicts example by example.

    Raises:
        UserError: a mistake in what was given: an unknown attack, images outside [0, 1], labels
            that are no classes of the model, a model that returns NaN, ...
        RunError: no verdict is possible: the model changes itself, or an attack of one's own
            leaves the ball.

    Example:
        >>> result = evaluate(model, x, y, attacks=["pgd20"], threat=Threat("Linf", 8 / 255))
        >>> result.clean_accuracy, result.robust_accuracy["pgd20"]
        (0.84, 0.43)
    """
    built, limit = build_choice(attacks), None if budget is None else Budget(budget)
    images, labels = read_images(x, y)
    called = model_name or (model if isinstance(model, str) else type(model).__name__)
    model = named_model(model, images)
    config = eval_config_of(
        built,
        threat,
        dataset=dataset,
        model=called,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        within=within,
        widen=widen,
        checks=checks,
        reject=chosen_rejection(reject_class),
        defend=chosen_input_defenses(listed_defenses(defend)),
    )
    with ExitStack() as stack:
        said = dtype_notes(model)
        where = stack.enter_context(lent(model, device))
        plain, few = copier(model), float_images(images[:LOOKED_AT]).to(where)
        model, unused, table, more = fitted_for(model, plain, few, labels)
        config = replace(config, model={**config.model, **table})
        classes, _ = count_classes(model, float_images(images[:2]).to(where))
        classes -= reject_class is not None
        data = as_split(images, labels, classes)
        check_attacks(built, config.threat, classes)
        results = out if out is not None else stack.enter_context(tempfile.TemporaryDirectory())
        request = EvalRequest(
            subject=Subject(
                model=model,
                name=called,
                weights=model_digest(model),
                notes=said + more,
                copy=unused,
            ),
            config=config,
            workspace=Workspace(out=Path(results), device=str(where)),
            command=["evaluate"],
            data=data,
            attacks=built,
            name=name,
            budget=limit,
        )
        display = stack.enter_context(_on_screen()) if progress else Display()
        folder = evaluate_shard(request, ALONE, display)
        return read_result(folder, kept=out is not None)


def _on_screen() -> AbstractContextManager[Display]:
    """Return the display of the command line: live bars on a terminal, plain lines elsewhere."""
    from robustbench_cli.cli.progress import progress_display  # takes time to import

    return progress_display(quiet=False)
