"""Image classifiers of transformers (Wolf et al., 2019), https://arxiv.org/abs/1910.03771.

``hf:PATH`` is a folder that ``save_pretrained`` wrote, ``hf:NAME`` a model on the hub.  What its
image processor does to images becomes part of the model.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from robustbench_cli.core.errors import UserError, in_one_line
from robustbench_cli.models.fitting import Fitting
from robustbench_cli.models.reshaping import Reshaping
from robustbench_cli.models.sources import (
    SOURCES,
    Loaded,
    LoadRequest,
    ModelSource,
    package_of_extra,
)
from robustbench_cli.models.sources._hub import quiet_hub
from robustbench_cli.models.sources._processor import normalization_of, reshaping_of
from robustbench_cli.models.sources._tensors_only import tensors_only
from robustbench_cli.models.weights import load_weights

_OWN_CODE = {"trust_remote_code": False}
"""Code beside the weights is not run, and nobody is asked whether it may be."""


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
        fitting, more = _fitting(model, processor)
        return Loaded(model=model, fitting=fitting, notes=(*notes, *more))

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


def _fitting(model: nn.Module, processor: Any) -> tuple[Fitting, tuple[str, ...]]:
    """Return what the processor does to images and the names of the model's classes, and notes."""
    config: Any = model.config
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    plain = all(name.startswith("LABEL_") for name in names)
    side = getattr(config, "image_size", None)
    made_for = (side, side) if isinstance(side, int) else None
    normalization = None if processor is None else normalization_of(processor)
    reshaping, notes = Reshaping(), tuple[str, ...]()
    if processor is not None:
        channels = getattr(config, "num_channels", 3)
        reshaping, notes = reshaping_of(processor, normalization, channels)
    return (
        Fitting(
            normalization=normalization,
            reshaping=reshaping,
            class_names=() if plain else tuple(names),
            made_for=reshaping.crop or reshaping.size or made_for,
        ),
        notes,
    )
