"""The image classifiers of timm (Wightman, 2019), https://github.com/huggingface/pytorch-image-models.

``timm:convnext_tiny`` or ``timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k``.
"""

import textwrap
import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from robustbench_cli.core.errors import UserError, hint, in_one_line
from robustbench_cli.models.fitting import Fitting
from robustbench_cli.models.normalizations import ChannelStatistics, assumed_normalization
from robustbench_cli.models.sources import (
    SOURCES,
    Loaded,
    LoadRequest,
    ModelSource,
    package_of_extra,
)
from robustbench_cli.models.sources._hub import quiet_hub
from robustbench_cli.models.sources._tensors_only import tensors_only
from robustbench_cli.models.weights import classes_in_layer, fill_from_file, read_weights


@SOURCES.register("timm", positional="arch")
@dataclass(frozen=True, kw_only=True)
class TimmModel(ModelSource):
    """Any classifier of timm, with the mean and std that its published weights expect."""

    example: ClassVar[str] = "timm:resnet18"

    arch: str
    """Name of the architecture in timm, with or without the tag of its weights."""
    img_size: int | None = None
    """Side of the images, for architectures that are built for one; None: the published one."""

    def load(self, wanted: LoadRequest) -> Loaded:
        """Build the network; its weights come from the file, else timm downloads them."""
        timm = package_of_extra("timm", "timm", f"timm:{self.arch}")
        if not timm.is_model(self.arch.partition(".")[0]):
            near = hint(self.arch, timm.list_models(), "timm.list_models()")
            raise UserError(f"unknown timm model {self.arch!r}{near}")
        if wanted.weights is None:
            model = self._made(timm, pretrained=True)
            return self._loaded(model, ())
        file = read_weights(wanted.weights, wanted.weights_key)
        model = self._made(timm)
        layer = self._config(model).get("classifier")
        found = classes_in_layer(model, file.state, layer) if isinstance(layer, str) else None
        if found not in (None, getattr(model, "num_classes", None)):
            model = self._made(timm, num_classes=found)
        loaded = self._loaded(model, fill_from_file(model, file))
        if loaded.fitting.normalization is None:
            return loaded
        said = assumed_normalization(*loaded.fitting.normalization)
        return replace(loaded, notes=(*loaded.notes, said))

    def _made(self, timm: Any, **options: Any) -> nn.Module:
        if self.img_size is not None:
            options["img_size"] = self.img_size
        quiet_hub()
        try:
            with warnings.catch_warnings(), tensors_only():
                warnings.simplefilter("ignore")
                model: nn.Module = timm.create_model(self.arch, **options)
        except Exception as error:  # of the network, of the hub, or of an option it does not take
            why, advice = textwrap.shorten(in_one_line(error), 120), ""
            if options.get("pretrained"):
                known = timm.get_pretrained_cfg(self.arch)
                place = getattr(known, "hf_hub_id", None) or getattr(known, "url", None)
                what = f"model.safetensors of {place}" if place else "its weights"
                advice = f"; get {what} where there is a network, and pass --weights FILE"
            raise UserError(f"model 'timm:{self.arch}' cannot be had: {why}{advice}") from error
        return model

    def _config(self, model: nn.Module) -> dict[str, Any]:
        found = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
        return dict(found or {})

    def _loaded(self, model: nn.Module, notes: tuple[str, ...]) -> Loaded:
        known = self._config(model)
        side = self.img_size
        size = (side, side) if side else tuple(known.get("input_size", ()))[1:]
        fitting = Fitting(
            normalization=ChannelStatistics(tuple(known["mean"]), tuple(known["std"]))
            if known.get("mean")
            else None,
            made_for=(size[0], size[1]) if size else None,
            class_names=self._imagenet_names() if getattr(model, "num_classes", 0) == 1000 else (),
        )
        return Loaded(model=model, fitting=fitting, notes=notes)

    def _imagenet_names(self) -> tuple[str, ...]:
        """Return the WordNet id and the names of each ImageNet class, "n01440764, tench"."""
        known = package_of_extra("timm.data", "timm", f"timm:{self.arch}").ImageNetInfo()
        return tuple(
            f"{known.index_to_label_name(i)}, {known.index_to_description(i)}" for i in range(1000)
        )
