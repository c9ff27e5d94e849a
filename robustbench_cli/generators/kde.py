"""Class-conditional kernel density estimation (Parzen, 1962),
https://doi.org/10.1214/aoms/1177704472."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.generators import GENERATORS, Generator


@GENERATORS.register("kde", aliases=("parzen",))
@dataclass(frozen=True, kw_only=True)
class KDE(Generator):
    """A random training image of the class plus Gaussian noise on every pixel.

    Its file contains the training images themselves: share it only where they may be shared.
    """

    bandwidth: Annotated[Number, Field(gt=0)] = 0.1
    """Standard deviation of the noise, for pixels in [0, 1]."""

    def fit(self, train: Split) -> dict[str, Tensor]:
        return {"images": train.x, "labels": train.y}

    def draw(self, known: Mapping[str, Tensor], y: Tensor, noise: Noise) -> Tensor:
        names = tuple(map(str, range(int(known["labels"].max()) + 1)))
        bank = Bank(Split(known["images"], known["labels"], names))
        near = bank.images(bank.same(y, noise)).double()
        return near + self.bandwidth * noise.fork("kernel").normal(near)
