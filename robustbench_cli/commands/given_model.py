"""The model of an evaluation that is the user's own: loaded from its source, fitted to the data."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_cli.audit._probe import Copy, copier
from robustbench_cli.commands.components import component_table
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.models import Classifier, Normalize, Shape
from robustbench_cli.models.class_map import ClassMap, read_class_map
from robustbench_cli.models.fitting import Fitted, Fitting, fit_model
from robustbench_cli.models.normalizations import ASSUMED, NORMALIZATIONS, ChannelStatistics
from robustbench_cli.models.reshaping import Reshaping
from robustbench_cli.models.sources import LoadRequest, find_source
from robustbench_cli.models.weights import digest

LOOKED_AT = 8
"""Images that a model is shown to see what it returns."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model of the user's own, and what its name does not say; options as they were typed."""

    model: str
    weights: Path | None = None
    weights_key: str | None = None
    normalize: str | None = None
    """A name of ``NORMALIZATIONS``, or none."""
    mean: str | float | Sequence[float] | None = None
    std: str | float | Sequence[float] | None = None
    resize: int | None = None
    class_map: str | ClassMap | None = None

    def statistics(self) -> ChannelStatistics | str | None:
        """Return the normalisation that was asked for, ``none``, or None where nothing was said.

        Raises:
            UserError: an unknown name, a mean without a std, or values that make no sense.
        """
        given = [value is not None for value in (self.mean, self.std)]
        if self.normalize is not None and any(given):
            raise UserError("--normalize and --mean/--std say the same: give one of them")
        if any(given) and not all(given):
            raise UserError("--mean and --std go together, e.g. --mean 0.5 --std 0.5")
        if self.mean is not None and self.std is not None:
            std = _numbers("--std", self.std)
            if min(std) <= 0:
                raise UserError(f"--std {self.std}: give numbers above 0")
            return ChannelStatistics(_numbers("--mean", self.mean), std)
        if self.normalize in (None, "none"):
            return self.normalize
        if self.normalize not in NORMALIZATIONS:
            known = hint(str(self.normalize), [*NORMALIZATIONS, "none"])
            raise UserError(f"--normalize {self.normalize}{known}; or give --mean and --std")
        return NORMALIZATIONS[str(self.normalize)]


def _numbers(option: str, given: str | float | Sequence[float]) -> tuple[float, ...]:
    try:
        if isinstance(given, str):
            return tuple(float(Fraction(each.strip())) for each in given.split(","))
        return tuple(map(float, [given] if isinstance(given, int | float) else given))
    except (ValueError, TypeError, ZeroDivisionError):
        raise UserError(f"{option} {given}: give a number, or one per channel: .5,.4,.4") from None


@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """A model of the user's own as it comes from its source."""

    model: nn.Module
    copy: Copy
    """Makes the model anew."""
    weights: str
    """sha256 of the weights, and of the code where that is the user's own."""
    fitting: Fitting
    table: ConfigTable
    """Its name, and what else the record says of it."""
    notes: tuple[str, ...]


def load_given(options: ModelOptions, folder: Path, shape: Callable[[], Shape]) -> GivenModel:
    """Load a model from its source.

    Args:
        folder: the folder of ``--data-dir``.
        shape: returns the size of the images and the number of classes, for models that are built
            for them.

    Raises:
        UserError: no such model, a missing package, or weights that are damaged or do not fit.
    """
    asked, source = options.statistics(), find_source(options.model)
    wanted = LoadRequest(
        weights=options.weights, weights_key=options.weights_key, folder=folder, shape=shape
    )

    drawn = torch.get_rng_state()

    def load() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(drawn)  # so that weights drawn at random are drawn again
            return _normalised(source.load(wanted).model, asked)

    loaded = source.load(wanted)
    model = _normalised(loaded.model, asked)
    table: ConfigTable = dict(loaded.described or {"name": options.model})
    if options.weights_key is not None:
        table["weights_key"] = options.weights_key
    fitting = loaded.fitting
    if isinstance(model, Classifier):  # it normalises by itself
        table |= {} if asked is None else {"statistics": _recorded(asked)}
    elif asked is not None:
        statistics = asked if isinstance(asked, ChannelStatistics) else None
        fitting = replace(fitting, normalization=statistics)
    if options.resize is not None:
        fitting = replace(fitting, reshaping=Reshaping(size=(options.resize, options.resize)))
    if options.class_map is not None:
        given = options.class_map
        known = read_class_map(given) if isinstance(given, str) else given
        fitting = replace(fitting, class_map=known)
    return GivenModel(
        model=model,
        # A copy in memory would share what a file keeps in globals: it is run again.
        copy=copier(model, load) if source.rebuilt else copier(model),
        weights=f"{digest(model)}+{loaded.code}" if loaded.code else digest(model),
        fitting=fitting,
        table=table,
        notes=loaded.notes if asked is None else _without_assumption(loaded.notes),
    )


def _without_assumption(notes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the notes but for that of a normalisation that another one has replaced."""
    return tuple(note for note in notes if not note.startswith(ASSUMED))


def _normalised(model: nn.Module, asked: ChannelStatistics | str | None) -> nn.Module:
    """Return a network of this program with the first layer that was asked for, if any was."""
    if isinstance(model, Classifier) and asked is not None:
        named = isinstance(asked, ChannelStatistics)
        model.normalize = Normalize(*asked) if named else nn.Identity()
    return model


def _recorded(asked: ChannelStatistics | str) -> Any:
    return [list(part) for part in asked] if isinstance(asked, ChannelStatistics) else asked


def given_subject(
    options: ModelOptions, dataset: str | None, folder: Path
) -> tuple[Subject, ConfigTable]:
    """Return the model that ``--model`` names, and the configuration that goes with it.

    Raises:
        UserError: as ``load_given`` does, or there is no data set to evaluate it on.
    """
    if dataset is None:
        raise UserError("--model needs --dataset: say on which images to attack it")
    dataset_table = component_table("dataset", dataset)
    built = DATASETS.build(spec_of(dataset_table))

    def shape() -> Shape:
        return shape_for_weights(built.load("test", folder))

    given = load_given(options, folder, shape)
    subject = Subject(
        model=given.model,
        name=options.model,
        weights=given.weights,
        notes=given.notes,
        copy=given.copy,
        fitting=given.fitting,
    )
    return subject, {"dataset": dataset_table, "defense": {}, "model": given.table}


def shape_for_weights(data: Split) -> Shape:
    """Return image size and classes; the channels' statistics, which weights bring, are 0 and 1."""
    channels, height, width = data.image_shape
    plain = (0.0,) * channels, (1.0,) * channels
    return Shape(channels, height, width, len(data.classes), *plain)


def fit_to_data(request: EvalRequest, test: Split) -> EvalRequest:
    """Return the request with a model that takes the images and returns logits of their classes.

    What was done stands in the configuration of the model.

    Args:
        test: the test split.

    Raises:
        UserError: it cannot be done, or it is not clear how.
    """
    rejects = int("class" in request.config.reject)
    subject, settings = subject_for(request.subject, test, rejects)
    config = replace(request.config, model={**request.config.model, **settings})
    return replace(request, subject=subject, config=config)


def subject_for(
    subject: Subject, test: Split, rejects: int = 0
) -> tuple[Subject, Mapping[str, Any]]:
    """Return the subject fitted to the data, and what was done for it; itself where nothing is.

    Args:
        test: the test split.
        rejects: the number of its logits that stand for a rejection.

    Raises:
        UserError: it cannot be done, or it is not clear how.
    """
    if subject.fitting is None:
        return subject, {}
    few = test.images(slice(min(LOOKED_AT, len(test))))
    fitted = fitted_like(subject, few, test.classes, rejects)
    return fitted_subject(subject, fitted), fitted.settings


def fitted_like(
    subject: Subject, x: torch.Tensor, classes: tuple[str, ...], rejects: int = 0
) -> Fitted:
    """Return how a subject's model is to be used on images like ``x`` (B, C, H, W) in [0, 1].

    A copy of the model is asked: one with a memory must not have been asked before.
    """
    assert subject.fitting is not None
    with torch.random.fork_rng(devices=[]):
        copy = subject.copy() if subject.copy is not None else None
        return fit_model(
            copy or subject.model,
            subject.fitting,
            x,
            classes,
            rejects=rejects,
            two=len(classes) == 2,
        )


def fitted_subject(subject: Subject, fitted: Fitted) -> Subject:
    """Return the subject with what its model needs around it."""
    known, plain = subject.weights, subject.copy

    def copy() -> nn.Module | None:
        made = None if plain is None else plain()
        return None if made is None else fitted.around(made).eval()

    if fitted.settings:
        known += f"+{settings_digest(fitted.settings)}"
    return replace(
        subject,
        model=fitted.around(subject.model),
        weights=known,
        copy=copy,
        notes=(*subject.notes, *fitted.notes),
        fitting=None,
    )


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the first digits of the sha256 of settings that a record can hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
