"""Models with a memory, asked so that they can remember nothing."""

from collections.abc import Callable

from torch import Tensor, nn


class FreshCopies(nn.Module):
    """A model of which every batch is shown to another fresh copy.

    So it answers as it does to a user who has just loaded it.
    """

    def __init__(self, model: nn.Module, copy: Callable[[], nn.Module | None]) -> None:
        """Create the model.

        Args:
            model: the model itself, whose parameters and device this one has; it is never asked.
            copy: returns a copy of the model, in evaluation mode, as it was before it was used.
        """
        super().__init__()
        self.model = model
        self._copy = copy

    def forward(self, x: Tensor) -> Tensor:
        fresh = self._copy()
        assert fresh is not None, "it was copied before"
        logits: Tensor = fresh.requires_grad_(False)(x)
        return logits
