"""What is put around a model of somebody else: images in [0, 1] in, logits of the classes out.

Such a model may expect normalised images of another size, and return its logits in a tuple or an
object, one logit for two classes, or more classes than the data has.  All of it becomes part of the
model, so eps keeps its units: pixels of the images as the data has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.models import Normalize
from robustbench_cli.models._around import (
    AsColumn,
    AsFloat32,
    FittedModel,
    GroupedLogits,
    PickOutput,
    TwoLogits,
)
from robustbench_cli.models.class_map import ClassMap, matched_classes
from robustbench_cli.models.normalizations import ChannelStatistics
from robustbench_cli.models.outputs import OutputPlace, find_logits
from robustbench_cli.models.reshaping import Reshaping, by


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a model of somebody else expects, and which of its classes are meant."""

    normalization: ChannelStatistics | None = None
    """What the images are to be normalised by before the model; None: nothing."""
    reshaping: Reshaping = Reshaping()  # noqa: RUF009 - it is frozen
    """How images are brought to another size."""
    class_map: ClassMap | None = None
    """Which of the model's classes the data's are; None: the same, or found by their names."""
    class_names: tuple[str, ...] = ()
    """The names of the model's classes, where they are known."""
    made_for: tuple[int, int] | None = None
    """Height and width of the images that it was made for, for the message if others do not fit."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a model is made to take the data's images and to return the logits of its classes."""

    around: Callable[[nn.Module], nn.Module]
    """Returns the model with all that is needed around it; the model itself where nothing is."""
    settings: dict[str, Any]
    """What was done, for the record; empty: nothing."""
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What stands around the model, from the images to the logits."""

    reshaping: Reshaping = Reshaping()  # noqa: RUF009 - it is frozen
    """For images of the size that the data has."""
    normalization: ChannelStatistics | None = None
    as_float32: bool = False
    place: OutputPlace = ()
    column: bool = False
    """The model returns its one logit as (B)."""
    two: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    float_logits: bool = False

    def before(self) -> list[nn.Module]:
        parts = self.reshaping.layers()
        if self.normalization:
            parts.append(Normalize(*self.normalization))
        return parts

    def after(self) -> list[nn.Module]:
        parts: list[nn.Module] = [PickOutput(self.place)] if self.place else []
        parts += [AsColumn()] * self.column + [AsFloat32()] * self.float_logits
        parts += [TwoLogits()] * self.two
        return parts + ([GroupedLogits(self.groups)] if self.groups else [])

    def around(self, model: nn.Module) -> nn.Module:
        """Return the model between its parts."""
        model = model.float() if self.as_float32 else model
        before, after = self.before(), self.after()
        return FittedModel(model, before, after) if before or after else model


def fit_model(
    model: nn.Module,
    wanted: Fitting,
    x: Tensor,
    classes: Sequence[str] | None,
    *,
    rejects: int = 0,
    two: bool,
) -> Fitted:
    """Look at what a model makes of a few images, and return how it is to be used.

    Args:
        model: it is called, and may be changed by that: a copy of the model to use.
        x: a few images (B, C, H, W) in [0, 1].
        classes: the names of the data's classes; None: those of the model, whatever they are.
        rejects: the number of its logits that stand for a rejection.
        two: whether there are two classes, so that one logit tells them apart.

    Raises:
        UserError: it cannot take the images, it is not clear what its logits are, or the class map
            names classes that it does not have.
    """
    reshaping, channels = wanted.reshaping.for_images(x.shape[2:]), x.shape[1]
    parts = _Parts(normalization=wanted.normalization, reshaping=reshaping)
    for name, values in zip(("mean", "std"), wanted.normalization or (), strict=False):
        if len(values) not in (1, channels):
            raise UserError(
                f"--{name} has {len(values)} values, the images have {channels} channels"
            )
    out, parts = _answer(model, parts, x, wanted.made_for)
    count = None if classes is None else len(classes) + rejects
    place, logits = find_logits(out, len(x), count)
    parts = replace(parts, place=place, float_logits=_narrow(logits))
    if two and logits.numel() == len(x):
        parts = replace(parts, column=logits.ndim == 1, two=True)
    elif classes is not None and logits.ndim == 2:
        groups = matched_classes(
            wanted.class_map, wanted.class_names, logits.shape[1], list(classes), rejects
        )
        parts = replace(parts, groups=groups)
    settings, notes = _told(parts, wanted, x, logits, classes)
    return Fitted(around=parts.around, settings=settings, notes=notes)


def _answer(
    model: nn.Module, parts: _Parts, x: Tensor, made_for: tuple[int, int] | None
) -> tuple[Any, _Parts]:
    """Return what the model makes of images, as float32 if it does not go otherwise."""

    def ask(given: _Parts, asked: nn.Module) -> Any:
        with torch.no_grad():
            return asked.eval()(nn.Sequential(*given.before())(x))

    narrow = any(p.is_floating_point() and p.dtype != torch.float32 for p in model.parameters())
    for as_float32 in (False, True)[: 1 + narrow]:
        try:
            out = ask(parts, model.float() if as_float32 else model)
        except Exception as error:  # it may be the user's code: anything can come out of it
            failed = in_one_line(error)
        else:
            return out, replace(parts, as_float32=as_float32)
    size = tuple(x.shape[2:])
    advice = ""
    if made_for and made_for != size and not parts.reshaping.settings:
        advice = f"; it was made for {by(made_for)}: add --resize {made_for[0]}"
    shape = tuple(x.shape[1:])
    raise UserError(f"the model cannot take images of shape {shape}: {failed}{advice}")


def _told(
    parts: _Parts, wanted: Fitting, x: Tensor, logits: Tensor, classes: Sequence[str] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what was done around the model: for the record, and in words."""
    settings: dict[str, Any] = {}
    notes = []
    if parts.normalization:
        mean, std = parts.normalization
        settings |= {"mean": list(mean), "std": list(std)}
    if parts.reshaping.settings:
        settings |= parts.reshaping.settings
        notes.append(parts.reshaping.said(x.shape[2:]))
    if parts.as_float32:
        settings["dtype"] = "float32"
        notes.append("the model's weights are not float32: it is evaluated in float32")
    if parts.place:
        settings["output"] = ".".join(map(str, parts.place))
    if parts.two:
        settings["logits"] = "0 and z"
        notes.append("the model's one logit z is taken as the two logits 0 and z")
        if bool((logits >= 0).all() and (logits <= 1).all()):
            notes.append(
                "its one output is in [0, 1]: if that is a probability, let the model return "
                "torch.logit of it"
            )
    if parts.groups:
        settings["classes"] = [g[0] if len(g) == 1 else list(g) for g in parts.groups]
        how = "as --classes says" if wanted.class_map is not None else "found by their names"
        notes.append(
            f"of the model's {logits.shape[1]} classes the data's {len(classes or ())} are "
            f"compared, {how}"
        )
    return settings, tuple(notes)


def _narrow(logits: Tensor) -> bool:
    return logits.dtype in (torch.bfloat16, torch.float16)
