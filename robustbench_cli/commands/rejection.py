"""The rejection of an evaluation: a reject class of the model, or a detector beside it.

Clean accuracy counts images that are right and not rejected.  Under attack an image stands that was
right when clean and is right or rejected: only an error that is not detected breaks it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.commands.components import component_label
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.fitted_detectors import FittedDetector
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.evaluation.detecting_model import ModelWithDetector, with_detector
from robustbench_cli.evaluation.model_check import gradient_obstacle
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.models.rejecting import ModelWithRejectClass, RejectingModel
from robustbench_cli.runs.outcomes import Rejection

LAST_LOGIT = "last"
"""Stands for the last of the model's logits."""
USUAL_FPR = 0.05
"""The share of clean images that a detector may flag, unless another is asked for."""
_MOST_HELD_OUT = 2000
"""Held-out images that a threshold is set on: more would cost passes and change little."""


def chosen_rejection(
    reject_class: str | int | None, detector: FittedDetector | None = None, fpr: str | None = None
) -> ConfigTable:
    """Return the ``reject`` section for a reject class or a detector; empty: nothing is rejected.

    Args:
        reject_class: a position among the model's logits, from 0, or ``last``.
        fpr: the share of clean images that the detector may flag, as text.

    Raises:
        UserError: both at once, a rate without a detector, or a value that makes no sense.
    """
    if detector is None and fpr is not None:
        raise UserError(f"--fpr {fpr} belongs to a detector: add --detector RUN")
    if detector is None:
        return {} if reject_class is None else {"class": _reject_class(reject_class)}
    if reject_class is not None:
        raise UserError("a reject class and a detector are two rejections; give one of them")
    table = DETECTORS.describe(detector.detector)
    return {"detector": table, "fitted": detector.sha256, "fpr": _rate(fpr)}


def _reject_class(given: str | int) -> str | int:
    if given == LAST_LOGIT or (
        isinstance(given, int) and not isinstance(given, bool) and given >= 0
    ):
        return given
    if isinstance(given, str) and given.isdecimal():
        return int(given)
    raise UserError(
        f"reject class {given!r}: give the position of a class among the model's logits, from 0 "
        f"on, or {LAST_LOGIT!r}"
    )


def _rate(given: str | None) -> float:
    if given is None:
        return USUAL_FPR
    try:
        rate = float(Fraction(given))
    except (ValueError, ZeroDivisionError):
        rate = math.nan
    if not 0 < rate < 1:
        raise UserError(f"--fpr {given}: give a share of the clean images, such as 0.05")
    return rate


def with_rejection(
    request: EvalRequest, test: Split, where: torch.device
) -> tuple[EvalRequest, Split]:
    """Return the request with a model that rejects, and the images to evaluate, on the device.

    Where nothing is to be rejected the request is as it was.

    Args:
        test: the whole test split; the first ``config.n`` images are evaluated, and a detector's
            threshold is set on others.
        where: the device.

    Raises:
        UserError: the model has no such class, it cannot take the images, or too few are left to
            set a threshold on.
    """
    asked, subject = request.config.reject, request.subject
    data = test.only(slice(request.n or len(test))).to(where)
    if not asked:
        return request, data
    model = laid_out(subject.model, where)
    if request.detector is None:
        rejecting, data = _with_reject_class(model, asked["class"], data)
        return replace(request, subject=_as_one(subject, rejecting)), data
    gradient_obstacle(model, data.images(slice(2)), len(data.classes))
    held_out = _held_out(test, len(data), asked["fpr"]).to(where)
    fitted, batch = request.detector, request.config.batch_size
    with unchanged_model(model):
        detecting = with_detector(
            model, fitted.detector, fitted.known, held_out, asked["fpr"], batch
        )
        detecting = laid_out(detecting, where)
    if not detecting.differentiable:
        said = (
            f"no gradient passes through detector {fitted.label}: gradient attacks do not aim at it"
        )
        subject = replace(subject, notes=(*subject.notes, said))
    return replace(request, subject=_as_one(subject, detecting)), data


def _as_one(subject: Subject, model: RejectingModel) -> Subject:
    """The subject whose model is the rejecting one, and so are the copies of it that are made."""
    remade = subject.copy
    if remade is None:
        return replace(subject, model=model)

    def fresh() -> nn.Module | None:
        inside = remade()
        return None if inside is None else model.around(inside)

    return replace(subject, model=model, copy=fresh)


def _with_reject_class(
    model: nn.Module, asked: str | int, data: Split
) -> tuple[ModelWithRejectClass, Split]:
    """The model with its reject class last, and the data without that class if it has it, too."""
    classes = len(data.classes)
    outputs = _count_outputs(model, data.images(slice(2))) or classes + 1
    index = outputs - 1 if asked == LAST_LOGIT else int(asked)
    if outputs not in (classes, classes + 1):
        raise UserError(
            f"reject class {asked}: the model returns {outputs} logits; with {classes} classes in "
            f"the data set it must be {classes + 1}, one more for the rejection"
        )
    if index >= outputs:
        raise UserError(
            f"reject class {asked}: the model returns {outputs} logits, so give 0 to {outputs - 1}"
        )
    if outputs == classes:
        if index != classes - 1 or bool((data.y == index).any()):
            raise UserError(
                f"reject class {asked}: the model returns {outputs} logits, one for each class of "
                "the data set; such a model may reject by the last one only, and no image may be "
                "of that class"
            )
        data = replace(data, classes=data.classes[:-1])
    return ModelWithRejectClass(model, outputs - 1, index).eval(), data


def _count_outputs(model: nn.Module, x: Tensor) -> int:
    """The number of logits; 0 for a model that cannot be used, as is said later."""
    with unchanged_model(model), torch.no_grad():
        try:
            return int(model(x).shape[1])
        except Exception:  # the model is the user's code: anything can come out of it
            return 0


def _held_out(test: Split, evaluated: int, fpr: float) -> Split:
    """The test images that are not evaluated, as many as a threshold is set on."""
    needed, left = math.ceil(1 / fpr - 1e-9), len(test) - evaluated
    if left < needed:
        raise UserError(
            f"--detector sets its threshold on test images that are not evaluated: at --fpr "
            f"{fpr:g} it takes {needed} of them, {left} of {len(test)} are left; evaluate fewer, "
            f"e.g. --n {max(1, min(len(test) // 2, len(test) - needed))}"
        )
    return test.only(slice(evaluated, evaluated + _MOST_HELD_OUT))


def clean_figures(
    model: nn.Module, asked: Mapping[str, Any], clean: AttackVerdicts
) -> dict[str, object]:
    """Return what a record says of the clean images: ``clean_accuracy`` and ``rejection``.

    Args:
        model: the evaluated one.
        asked: the ``reject`` section of the configuration.
        clean: the verdicts on the clean images (N).
    """
    share = float(clean.arrays["share"].mean(dtype=float))
    return {"clean_accuracy": share, "rejection": _rejection(model, asked, clean)}


def _rejection(
    model: nn.Module, asked: Mapping[str, Any], clean: AttackVerdicts
) -> Rejection | None:
    """How the model rejects, and what it rejects of the clean images; None: nothing."""
    if not isinstance(model, RejectingModel):
        return None
    accepted = clean.arrays["prediction"] != model.classes
    right = clean.arrays["share"][accepted]
    measured = Rejection(
        kind="class",
        clean_rejected=float((~accepted).mean()),
        accepted_accuracy=float(right.mean(dtype=float)) if accepted.any() else None,
    )
    if not isinstance(model, ModelWithDetector):
        assert isinstance(model, ModelWithRejectClass)
        return replace(measured, index=model.index)
    return replace(
        measured,
        kind="detector",
        detector=component_label(DETECTORS, model.detector),
        fitted=asked["fitted"],
        fpr=asked["fpr"],
        threshold=model.threshold,
        held_out=model.held_out,
        held_out_flagged=model.flagged / model.held_out,
    )
