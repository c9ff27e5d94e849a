"""Grad-CAM (Selvaraju et al., 2017), https://arxiv.org/abs/1610.02391."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method


@EXPLANATIONS.register("grad-cam", aliases=("gradcam",), positional="layer")
@dataclass(frozen=True, kw_only=True)
class GradCAM(Explanation):
    """The channels of a layer, each weighted by the mean gradient of the class's logit by it.

    Captum's LayerGradCam with the paper's ReLU, brought to the size of the image by bilinear
    interpolation: the map is as coarse as the layer.
    """

    layer: str = ""
    """The module whose output (B, C, h, w) is looked at, as ``named_modules`` calls it; empty: the
    convolution that a forward pass comes by last."""

    def attributions(self, asked: ExplainedImages) -> Tensor:
        layer = _layer(asked.model, self.layer, asked.x[:1])
        method = captum_method("LayerGradCam", asked.model, layer)
        found = captum_attributions(method, asked, relu_attributions=True)
        size = asked.x.shape[2:]
        return nn.functional.interpolate(found, size, mode="bilinear", align_corners=False)


def _layer(model: nn.Module, name: str, x: Tensor) -> nn.Module:
    """Return the named module, or the convolution that a pass of ``x`` (1, C, H, W) ends with.

    Raises:
        UserError: there is none, or its output is no map (1, C, h, w).
    """
    modules = {path: module for path, module in model.named_modules() if path}
    if name and name not in modules:
        raise UserError(f"grad-cam: the model has no layer {name!r}{hint(name, modules)}")
    looked = {modules[name]} if name else {m for m in modules.values() if _is_convolution(m)}
    seen: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, _inputs: object, out: object) -> None:
        seen.append((module, tuple(out.shape) if isinstance(out, Tensor) else ()))

    with ExitStack() as hooks, torch.no_grad():
        for module in looked:
            hooks.callback(module.register_forward_hook(note).remove)
        model(x)
    if not seen:
        what = f"a forward pass does not call the layer {name!r}" if name else "no convolution"
        raise UserError(f"grad-cam: {what}; name a layer with maps: grad-cam:layer=NAME")
    layer, shape = seen[-1]
    if len(shape) != 4:
        raise UserError(
            f"grad-cam: the output of {name or 'the last convolution'!r} has the shape {shape}; it "
            "takes a layer with maps (images, channels, height, width)"
        )
    return layer


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)
