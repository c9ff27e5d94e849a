"""Random numbers of randomised models, keyed by example while an evaluation says which they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise


class DrawingModule(nn.Module):
    """A module that draws random numbers for each image of a batch in each of its passes.

    Within ``keyed_draws`` they belong to the examples, so that no answer depends on the batch, on
    the order of the examples, or on what was asked before.  Elsewhere they follow from torch's
    generator, as a user's own randomised model has it.
    """

    _keyed: Noise | None = None
    _passes = 0

    def noise_of_pass(self, count: int, device: torch.device) -> Noise:
        """Return the random numbers of one pass over ``count`` images, other ones each time."""
        noise, number = self._keyed, self._passes
        self._passes += 1
        if noise is not None and len(noise.ids) == count:
            return noise.fork(f"pass {number}")
        # A view may show another batch than that of the examples, with neighbours of its own.
        return Noise(int(torch.randint(2**62, ())), torch.arange(count, device=device))


def drawing_modules(model: object) -> tuple[DrawingModule, ...]:
    """Return the modules of a model, which may be anything, that draw by example."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return tuple(module for module in modules if isinstance(module, DrawingModule))


@contextmanager
def keyed_draws(model: object, noise: Noise | None) -> Iterator[None]:
    """Key what a model draws by the examples that it is shown while the context is open.

    Args:
        model: anything; only modules that draw by example take notice.
        noise: one stream for each image of every batch that the model is shown; None: nothing
            changes.
    """
    drawing = drawing_modules(model) if noise is not None else ()
    before = [(module._keyed, module._passes) for module in drawing]
    for module in drawing:
        module._keyed, module._passes = noise, 0
    try:
        yield
    finally:
        for module, (kept, passes) in zip(drawing, before, strict=True):
            module._keyed, module._passes = kept, passes
