"""The cost of attacks and checks that call a model themselves."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


class Meter:
    """A model that counts the images that pass through it, forward and backward."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.forwards = 0
        self.backwards = 0
        self._model: Any = model

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the parts of the model by name, for attacks that look at features inside it."""
        yield from self._model.named_modules()

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count(len(x)))  # type: ignore[no-untyped-call]
        return logits

    def _count(self, images: int) -> None:
        self.backwards += images
