"""A model of somebody else by its name, as ``advbench eval --model`` takes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from robustbench_cli.api.images import float_images, read_images
from robustbench_cli.commands.given_model import LOOKED_AT, ModelOptions, load_given
from robustbench_cli.models import Shape
from robustbench_cli.models._around import FittedModel
from robustbench_cli.models.fitting import fit_model


def load_model(
    model: str,
    x: Tensor | np.ndarray[Any, Any],
    *,
    classes: Sequence[str] | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    normalize: str | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    resize: int | None = None,
    class_map: str | Mapping[str, Any] | Sequence[Any] | None = None,
    data_dir: str | Path = "data",
) -> FittedModel:
    """Load a model and put around it what it needs to take images in [0, 1] and return logits.

    Args:
        model: "file.py:function", "timm:NAME", "hf:PATH-or-NAME", "robustbench:NAME",
            "torchvision:NAME", the path of a program (.pt2, .pt), or a registered architecture.
        x: a few of the images that it is for, as ``evaluate`` takes them.
        classes: the names of the data's classes, by which the model's are found where it has more;
            None: the model's own classes.
        weights: a state dict: a .safetensors, .pt or .pth file.
        weights_key: the key of the state dict in that file, e.g. "ema"; None: it is found.
        normalize: what the model expects: "imagenet", "cifar10", "mnist", "signed" or "none"; None:
            as it says itself.
        mean: the mean of each channel that it expects, for pixels in [0, 1], with ``std``.
        std: the standard deviation of each channel.
        resize: the side that it is to resize images to.
        class_map: for each class of the data the number or name of the model's class, or a list of
            them; a mapping by name, a sequence in order, or the path of a JSON file.
        data_dir: the folder below which published weights are looked for.

    Returns:
        Images float32 (B, C, H, W) in [0, 1] to logits (B, K); on the CPU.

    Raises:
        UserError: there is no such model, a package is missing, or the weights are damaged or do
            not fit.

    Example:
        >>> model = load_model("timm:resnet18", x, weights="resnet18.pt")
    """
    options = ModelOptions(
        model=model,
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        normalize=normalize,
        mean=mean,
        std=std,
        resize=resize,
        class_map=class_map,
    )
    images, _ = read_images(x, [0] * len(x))
    few = float_images(images[:LOOKED_AT])
    if classes is None and class_map is not None and not isinstance(class_map, str):
        named = isinstance(class_map, Mapping)
        classes = [str(each) for each in (class_map if named else range(len(class_map)))]
    _, channels, height, width = few.shape

    def shape() -> Shape:
        plain = (0.0,) * channels, (1.0,) * channels
        return Shape(channels, height, width, len(classes or ()) or 10, *plain)

    given = load_given(options, Path(data_dir), shape)
    copy = given.copy()
    fitted = fit_model(
        copy or given.model,
        given.fitting,
        few,
        classes,
        two=classes is None or len(classes) == 2,
    )
    around = fitted.around(given.model)
    made = around if isinstance(around, FittedModel) else FittedModel(around, [], [])
    made.settings = {**given.table, **fitted.settings}
    made.notes = (*given.notes, *fitted.notes)
    return made.eval()
