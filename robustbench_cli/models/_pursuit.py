"""Layers as dictionaries, and the sparse coding problem of which they are the parts.

Cazenavette, Murdock & Lucey (2021), https://arxiv.org/abs/2011.14427.  The full text could not be
read and there is no code: this follows the abstract and a thesis by others.

Layer j has a dictionary D_j, non-negative codes z_j and thresholds b_j >= 0; z_0 is the image.  The
objective is the sum over layers of ``0.5 ||r_j||^2 + b_j . z_j`` with the residual
``r_j = z_{j-1} - D_j (z_j - s_j)``, where s_j is 0, or the codes of an earlier layer that a skip
connection leads from.  One proximal step of size 1 for each layer in turn, from ``z_j = s_j``, is
``relu(s_j + D_j^T z_{j-1} - b_j)``: the feed-forward network, plain or residual.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models.unrolled import UnrolledSolver

Codes = tuple[Tensor, ...]
"""One tensor for each layer, the batch first."""

_THRESHOLD = 0.01
"""What every threshold is before training."""


class TiedLayer(nn.Module, ABC):
    """A dictionary D and its transpose, with the same weights, and thresholds for its codes."""

    weight: Tensor
    bias: nn.Parameter
    """Its absolute value is the threshold: never negative, and never stuck at zero."""

    def __init__(self, code_shape: tuple[int, ...]) -> None:
        """Take the shape of the codes of one image."""
        super().__init__()
        self.code_shape = code_shape
        start = torch.Generator().manual_seed(0)
        drawn = torch.randn((1, *code_shape), generator=start, device="cpu")
        self.register_buffer("start", drawn, persistent=False)

    start: Tensor
    """Where power iteration begins (1, ...): the same in every network of this shape."""

    @property
    def threshold(self) -> Tensor:
        """The thresholds b, as they are added to codes."""
        shape = self.bias.shape + (1,) * (len(self.code_shape) - 1)
        return self.bias.abs().view(shape)

    @abstractmethod
    def analysis(self, below: Tensor) -> Tensor:
        """Return D^T of what the layer reads: (B, ...) to (B, *code_shape)."""

    @abstractmethod
    def synthesis(self, codes: Tensor) -> Tensor:
        """Return D of codes (B, *code_shape), in the shape of what the layer reads."""


class TiedConv(TiedLayer):
    """D^T is a 3x3 convolution of images (C, H, W), D the transposed convolution."""

    def __init__(self, inputs: tuple[int, ...], channels: int, stride: int) -> None:
        """Take the shape (C, H, W) that it reads, and the channels of its codes."""
        seen, *sides = inputs
        super().__init__((channels, *((side - 1) // stride + 1 for side in sides)))
        like = nn.Conv2d(seen, channels, 3)
        self.weight, self.bias = like.weight, nn.Parameter(torch.full((channels,), _THRESHOLD))
        self.stride, self.rest = stride, [(side - 1) % stride for side in sides]

    def analysis(self, below: Tensor) -> Tensor:
        return F.conv2d(below, self.weight, stride=self.stride, padding=1)

    def synthesis(self, codes: Tensor) -> Tensor:
        return F.conv_transpose2d(codes, self.weight, None, self.stride, 1, self.rest)


class TiedLinear(TiedLayer):
    """D^T is a matrix (units, inputs)."""

    def __init__(self, inputs: int, units: int) -> None:
        """Take the number of values that it reads, and of its codes."""
        super().__init__((units,))
        self.weight = nn.Linear(inputs, units).weight
        self.bias = nn.Parameter(torch.full((units,), _THRESHOLD))

    def analysis(self, below: Tensor) -> Tensor:
        return F.linear(below, self.weight)

    def synthesis(self, codes: Tensor) -> Tensor:
        return F.linear(codes, self.weight.t())


class PursuitBody(UnrolledSolver, ABC):
    """Layers with their skip connections; the features are the codes of the last one.

    Args:
        layers: the first one reads the image.
        skips: for each layer the place of the layer that a skip leads from, or None.
        iterations: T.
        accelerated: whether codes are extrapolated as in FISTA (Beck & Teboulle, 2009).
        power_iterations: the steps of power iteration for the norm of the operator.
    """

    def __init__(
        self,
        layers: Sequence[TiedLayer],
        skips: Sequence[int | None],
        *,
        iterations: int,
        accelerated: bool = False,
        power_iterations: int = 30,
    ) -> None:
        super().__init__()
        self.layers: Sequence[TiedLayer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.skips, self.iterations = tuple(skips), iterations
        self.accelerated, self.power_iterations = accelerated, power_iterations

    @abstractmethod
    def solve(self, x: Tensor) -> Codes:
        """Return the codes of all layers after ``iterations`` steps, for normalised images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes of the last layer (B, F) for normalised images (B, C, H, W)."""
        dense = isinstance(self.layers[0], TiedLinear)
        return self.solve(x.flatten(1) if dense else x)[-1].flatten(1)

    def feed_forward(self, x: Tensor) -> Codes:
        """Return the codes of the feed-forward network, from which solvers start."""
        codes: Codes = ()
        for j in range(len(self.layers)):
            codes = *codes, self.first_codes(j, codes[j - 1] if j else x, codes)
        return codes

    def first_codes(self, j: int, below: Tensor, codes: Codes) -> Tensor:
        """Return relu(s_j + D_j^T z_{j-1} - b_j), where codes of the layers below are given."""
        layer, skip = self.layers[j], self.skips[j]
        out = layer.analysis(below) - layer.threshold
        return F.relu(out if skip is None else out + codes[skip])

    def residuals(self, x: Tensor, codes: Codes) -> Codes:
        """Return r_j of every layer; the operator maps codes to ``-residuals(0, codes)``."""
        found = []
        for j, (layer, skip) in enumerate(zip(self.layers, self.skips, strict=True)):
            own = codes[j] if skip is None else codes[j] - codes[skip]
            found.append((codes[j - 1] if j else x) - layer.synthesis(own))
        return tuple(found)

    def adjoint(self, residuals: Codes) -> Codes:
        """Return the transpose of the operator times residuals: of the objective's smooth part it
        is the negative gradient."""
        pairs = zip(self.layers, residuals, strict=True)
        moved = [layer.analysis(r) for layer, r in pairs]
        found = list(moved)
        for j, skip in enumerate(self.skips):
            if j:
                found[j - 1] = found[j - 1] - residuals[j]
            if skip is not None:
                found[skip] = found[skip] - moved[j]
        return tuple(found)

    def objective(self, x: Tensor, codes: Codes) -> Tensor:
        """Return the objective of each image (B), of the layers together."""
        total = x.new_zeros(len(x))
        for layer, r, z in zip(self.layers, self.residuals(x, codes), codes, strict=True):
            total = total + 0.5 * r.square().flatten(1).sum(1)
            total = total + (layer.threshold * z).flatten(1).sum(1)
        return total

    def iterated(self, codes: Codes, step: Callable[[Codes], Codes]) -> Codes:
        """Return codes after ``iterations`` steps."""
        ahead, momentum = codes, 1.0
        for _ in range(self.iterations):
            before, codes = codes, step(ahead)
            ahead = codes
            if self.accelerated:
                longer = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
                w, momentum = (momentum - 1) / longer, longer
                ahead = tuple(z + w * (z - old) for z, old in zip(codes, before, strict=True))
        return codes


def squared_norm(square: Callable[[Codes], Codes], start: Codes, iterations: int) -> Tensor:
    """Return the largest eigenvalue of a positive operator by power iteration, without a gradient.

    It is approached from below.  It depends on the operator alone, so that a network forgets
    nothing and remembers nothing between passes.

    Args:
        square: the operator, A^T A.
        start: what the iteration begins with.
        iterations: how often the operator is applied.
    """
    largest = start[0].new_zeros(())
    with torch.no_grad(), torch.autocast(start[0].device.type, enabled=False):
        for _ in range(iterations):
            size = torch.stack([each.norm() for each in start]).norm().clamp_min(1e-30)
            start = square(tuple(each / size for each in start))
            largest = torch.stack([each.norm() for each in start]).norm()
    return largest.clamp_min(1e-12)


@dataclass(frozen=True, kw_only=True)
class PursuitConfig(ModelConfig):
    """Sizes of the layers, and how the solver runs."""

    iterations: NonNegativeInt = 10
    """Unrolled iterations of the solver, T; 0: the feed-forward ReLU network."""
    width: PositiveInt = 32
    """Channels of the first stage's convolutions; each further stage has twice as many."""
    stages: PositiveInt = 2
    """Stages of 3x3 convolutions; each but the first begins with a stride of 2."""
    blocks: NonNegativeInt = 0
    """Pairs of convolutions that follow the first one in each stage."""
    residual: bool = False
    """Lead a skip connection around each of these pairs."""
    units: Annotated[str, Field(pattern=r"^([1-9]\d*(-[1-9]\d*)*)?$")] = ""
    """Dense layers instead of convolutions: their units, as 128-256-4096."""
    accelerated: bool = False
    """Extrapolate the codes as in FISTA."""
    power_iterations: PositiveInt = 30
    """Steps of power iteration in each pass, for the size of the solver's steps."""

    @abstractmethod
    def body(self, layers: Sequence[TiedLayer], skips: Sequence[int | None]) -> PursuitBody:
        """Return the solver over these layers."""

    def build(self, shape: Shape) -> Classifier:
        if self.residual and (self.units or not self.blocks):
            raise UserError(
                f"model {MODELS.name_of(self)!r}: skip connections lead around pairs of "
                "convolutions; use residual=true with blocks=1 or more, and without units"
            )
        layers, skips = self._dense(shape) if self.units else self._convolutions(shape)
        head = nn.Linear(math.prod(layers[-1].code_shape), shape.classes)
        return Classifier(self.normalizer(shape), self.body(layers, skips), head)

    def _dense(self, shape: Shape) -> tuple[list[TiedLayer], list[int | None]]:
        sizes = [shape.channels * shape.height * shape.width, *map(int, self.units.split("-"))]
        return [TiedLinear(*pair) for pair in pairwise(sizes)], [None] * (len(sizes) - 1)

    def _convolutions(self, shape: Shape) -> tuple[list[TiedLayer], list[int | None]]:
        self.at_least(2 ** (self.stages - 1), shape)
        layers: list[TiedLayer] = []
        skips: list[int | None] = []
        reads: tuple[int, ...] = (shape.channels, shape.height, shape.width)
        for stage in range(self.stages):
            for place in range(1 + 2 * self.blocks):
                stride = 2 if stage and not place else 1
                layers.append(TiedConv(reads, self.width * 2**stage, stride))
                ends_pair = self.residual and place and place % 2 == 0
                skips.append(len(layers) - 3 if ends_pair else None)
                reads = layers[-1].code_shape
        return layers, skips
