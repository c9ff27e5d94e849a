"""The identity, for joint attacks that count the unchanged image as one of the transforms."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.transforms import TRANSFORMS, Transform


@TRANSFORMS.register("identity")
@dataclass(frozen=True, kw_only=True)
class Identity(Transform):
    """Return the image unchanged."""

    def __call__(self, x: Tensor) -> Tensor:
        return x
