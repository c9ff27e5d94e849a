"""Mirror images (Wang et al., 2021), https://arxiv.org/abs/1906.03563, section 4.4."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.transforms import TRANSFORMS, Transform


@TRANSFORMS.register("flip")
@dataclass(frozen=True, kw_only=True)
class Flip(Transform):
    """Mirror the image left to right."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-1)


@TRANSFORMS.register("flip-vertical")
@dataclass(frozen=True, kw_only=True)
class FlipVertical(Transform):
    """Mirror the image top to bottom."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-2)
