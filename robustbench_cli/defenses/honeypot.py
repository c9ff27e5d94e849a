"""Honeypots, or trapdoored networks (Shan et al., 2020), https://arxiv.org/abs/1904.08554."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.core.trapdoors import MASKS, PATTERNS, Trapdoors
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._step import Passes, Setting, Step


@DEFENSES.register("honeypot", aliases=("trapdoor",))
@dataclass(frozen=True, kw_only=True)
class Honeypot(Objective):
    """Teach the network a faint pattern per class that means this class, for attacks to fall into.

    criterion(f(x'), y'): of each batch a random half carries the trapdoor of a random class and is
    labelled so, the other half is as it is.  Attacks find that shortcut, and what they leave in the
    features is recognised: ``advbench detect fit trapdoor``.  Alone this makes nothing robust.

    Trapdoors are kept with the run.  They have one shade of grey per pixel on colour images, too,
    as the official code draws them for MNIST and for CIFAR-10.  The code first trains without
    trapdoors for as many epochs: train ``standard``, then ``honeypot --init RUN``.
    """

    clusters: PositiveInt = 7
    """Squares of a trapdoor."""
    size: PositiveInt = 3
    """Their side in pixels."""
    mask: Annotated[Number, Field(gt=0, le=1)] = 0.1
    """The share of the trapdoor in the pixels that it covers; the image has the rest."""
    inject: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """The share of training images that carry one."""

    one_label: ClassVar[bool] = True

    def auxiliary(self, setting: Setting) -> nn.Module:
        shape = setting.shape
        if self.size > min(shape.height, shape.width):
            raise UserError(
                f"honeypot:size={self.size}: the images have {shape.height} x {shape.width} pixels"
            )
        return _Kept(
            Trapdoors.drawn(
                setting.seed,
                shape.classes,
                shape.height,
                shape.width,
                clusters=self.clusters,
                size=self.size,
                mask=self.mask,
            )
        )

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        trapdoors = step.auxiliary(self, _Kept).trapdoors
        draw = step.noise.fork("trapdoor").uniform(step.x.new_empty(len(step.x), 2))
        chosen, classes = draw[:, 0] < self.inject, (draw[:, 1] * step.classes).long()
        carrying = trapdoors.put_on(step.x, classes)
        return {
            "trained": torch.where(chosen[:, None, None, None], carrying, step.x),
            "labels": torch.where(chosen, classes, step.y),
        }

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["trained"], logits.inputs["labels"])


class _Kept(nn.Module):
    """Trapdoors as buffers, which a run saves and restores."""

    def __init__(self, trapdoors: Trapdoors) -> None:
        super().__init__()
        self.register_buffer(MASKS, trapdoors.masks)
        self.register_buffer(PATTERNS, trapdoors.patterns)

    @property
    def trapdoors(self) -> Trapdoors:
        return Trapdoors(self.get_buffer(MASKS), self.get_buffer(PATTERNS))
