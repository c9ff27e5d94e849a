"""Image classifiers of transformers (Wolf et al., 2019), https://arxiv.org/abs/1910.03771.

``hf:PATH`` is a folder that ``save_pretrained`` wrote, ``hf:NAME`` a model on the hub.  What its
image processor does to images becomes part of the model.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.models._around import Resample
from robustbench_cli.models.fitting import Fitting
from robustbench_cli.models.normalizations import ChannelStatistics
from robustbench_cli.models.sources import (
    SOURCES,
    Loaded,
    LoadRequest,
    ModelSource,
    package_of_extra,
)
from robustbench_cli.models.sources._hub import quiet_hub
from robustbench_cli.models.sources._tensors_only import tensors_only
from robustbench_cli.models.weights import load_weights

_OWN_CODE = {"trust_remote_code": False}
"""Code beside the weights is not run, and nobody is asked whether it may be."""
_RESAMPLES: Mapping[int, Resample] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""How Pillow numbers the ways to resize."""


@SOURCES.register("hf", positional="path")
@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel(ModelSource):
    """A classifier of transformers, with its processor's mean, std and size."""

    example: ClassVar[str] = "hf:FOLDER"

    path: str
    """A folder, or a name on the hub."""

    def load(self, wanted: LoadRequest) -> Loaded:
        """Load the network; its weights are its own, unless a file of others is given."""
        package = package_of_extra("transformers", "transformers", f"hf:{self.path}")
        place = Path(self.path).expanduser()
        path = str(place) if place.is_dir() else self.path
        auto = package.AutoModelForImageClassification
        notes: tuple[str, ...] = ()
        if wanted.weights is None:
            model = self._called(lambda: auto.from_pretrained(path, **_OWN_CODE).float(), package)
        else:
            config = self._called(
                lambda: package.AutoConfig.from_pretrained(path, **_OWN_CODE), package
            )
            model = self._called(lambda: auto.from_config(config, **_OWN_CODE), package)
            notes = load_weights(model, wanted.weights, wanted.weights_key)
        try:
            processor = self._called(
                lambda: package.AutoImageProcessor.from_pretrained(path, **_OWN_CODE), package
            )
        except UserError:
            notes = (*notes, f"hf:{self.path} has no image processor: images are not normalised")
            processor = None
        return Loaded(model=model, fitting=_fitting(model, processor), notes=notes)

    def _called(self, load: Any, package: Any) -> Any:
        package.logging.set_verbosity_error()
        quiet_hub()
        package.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings(), tensors_only():
                warnings.simplefilter("ignore")
                return load()
        except Exception as error:  # of the network, of the hub, or of files there
            raise UserError(
                f"model 'hf:{self.path}' cannot be loaded: {in_one_line(error)}; without a network "
                "put its config.json, model.safetensors and preprocessor_config.json into a folder "
                "and name that: hf:FOLDER"
            ) from error


def _fitting(model: nn.Module, processor: Any) -> Fitting:
    """Return what the processor does to images, and the names of the model's classes."""
    config: Any = model.config
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    plain = all(name.startswith("LABEL_") for name in names)
    side = getattr(config, "image_size", None)
    made_for = (side, side) if isinstance(side, int) else None
    size = _size(processor) if getattr(processor, "do_resize", False) else None
    resample = getattr(processor, "resample", 2)
    return Fitting(
        normalization=_normalization(processor),
        size=size,
        resample=_RESAMPLES.get(int(resample) if resample is not None else 2, "bilinear"),
        class_names=() if plain else tuple(names),
        made_for=size or made_for,
    )


def _normalization(processor: Any) -> ChannelStatistics | None:
    """Return what is subtracted and divided by, for images in [0, 1]."""
    scale = 1.0
    if getattr(processor, "do_rescale", False):
        scale = 255 * float(processor.rescale_factor)
    elif processor is not None:
        scale = 255.0
    if getattr(processor, "do_normalize", False):
        mean, std = (_listed(getattr(processor, f"image_{name}")) for name in ("mean", "std"))
    elif scale == 1.0:
        return None
    else:
        mean, std = (0.0,), (1.0,)
    # (scale * x - mean) / std
    return ChannelStatistics(tuple(m / scale for m in mean), tuple(s / scale for s in std))


def _listed(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (float(value),)


def _size(processor: Any) -> tuple[int, int] | None:
    """Return height and width of what the processor hands to the model."""
    known = dict(processor.size or {})
    if getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None):
        known = dict(processor.crop_size)
    side = known.get("shortest_edge")
    height, width = known.get("height", side), known.get("width", side)
    return (int(height), int(width)) if height and width else None
