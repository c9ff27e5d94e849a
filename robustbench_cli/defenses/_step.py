"""One training step as defenses see it: the batch, the passes over it, and what came of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import Criterion, cross_entropy
from robustbench_cli.core.threat import Threat
from robustbench_cli.data.bank import Bank
from robustbench_cli.distributed.group import ALONE, Shard
from robustbench_cli.models import Classifier, Shape
from robustbench_cli.models.taps import EMBEDDING, tapped

Auxiliary = TypeVar("Auxiliary", bound=nn.Module)

SCORED = ("clean", "adv")
"""The passes whose accuracy a history tells; others need not be about the labels."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a part may know before training, when it makes its aid."""

    model: Classifier
    shape: Shape
    batch_size: int
    fresh: Callable[[], Classifier]
    """Makes another network of the same architecture, with weights of its own."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything a defense may know about one training step."""

    model: Classifier
    x: Tensor
    """Images (B, C, H, W) in [0, 1], augmented."""
    y: Tensor
    """Labels (B) int64, -100 where there is none; or (B, classes), once labels were mixed."""
    classes: int = 0
    """How many there are."""
    threat: Threat
    """With a mask: bound to these images by the time that an objective sees it."""
    noise: Noise
    criterion: Criterion = cross_entropy
    epoch: int = 0
    batch: int = 0
    """Which batch of the epoch it is."""
    update_index: int = 0
    """Which of the objective's ``turns`` with this batch it is."""
    extra: Tensor | None = None
    """Which rows (B, bool) come from the extra pool; None: there is no pool, or nothing else."""
    teachers: tuple[Classifier, ...] = ()
    """Frozen networks in evaluation mode, as many as the objective asked for."""
    bank: Bank | None = None
    """All training images, for objectives that look at others than the batch's: the data set's,
    or those of a pool that stands in for it."""
    auxiliaries: Mapping[str, nn.Module] = field(default_factory=dict)
    shard: Shard = ALONE
    """Which of the processes that share the batch this is."""
    dealt: int | None = None
    """How many rows the batch had before each process took its own."""

    @property
    def size(self) -> int:
        """Rows of the whole batch, those of other processes included."""
        return len(self.x) if self.dealt is None else self.dealt

    def total(self, value: Tensor) -> Tensor:
        """The sum of such values over all processes, a constant."""
        found = value.detach().clone()
        self.shard.all_reduce_sum_([found])
        return found

    def gradients(self) -> list[Tensor]:
        """What a backward pass left in the weights, the model's and the aids'."""
        nets = self.model, *self.auxiliaries.values()
        return [p.grad for net in nets for p in net.parameters() if p.grad is not None]

    def part(self) -> "Step":
        """The same step with the rows of this process only."""
        if self.shard.world == 1:
            return self
        rows = self.shard.rows
        return replace(
            self,
            x=self.x[rows].contiguous(memory_format=torch.channels_last),
            y=self.y[rows],
            noise=self.noise.only(rows),
            extra=None if self.extra is None else self.extra[rows],
            dealt=len(self.x),
        )

    def auxiliary(self, part: object, kind: type[Auxiliary]) -> Auxiliary:
        """The module that ``part`` made for itself before training."""
        found = self.auxiliaries[type(part).__name__]
        assert isinstance(found, kind)
        return found


class Passes:
    """The forward passes of one evaluation of the loss, by name: ``clean``, ``adv``.

    Each input goes through the model once, at first use, so that a penalty reads the logits the
    objective already has; the order of first use is the order that BatchNorm sees.
    """

    def __init__(
        self, model: Classifier, inputs: Mapping[str, Tensor], taps: Sequence[str] = ()
    ) -> None:
        self.seen: dict[str, Tensor] = {}
        self.inputs = inputs
        self._model = model
        self._taps = taps
        self._features: dict[str, Mapping[str, Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.seen:
            with tapped(self._model, self._taps) as found:
                self.seen[name] = self._model(self.inputs[name])
            self._features[name] = found
        return self.seen[name]

    def features(self, name: str, tap: str = EMBEDDING) -> Tensor:
        """What the pass ``name`` left at one of the objective's ``taps``."""
        _ = self[name]
        return self._features[name][tap]


class Trained(NamedTuple):
    """One batch, after its gradient was left in the parameters.

    Of several processes each has its part of both: their sum is the batch's.  ``correct`` counts
    right answers (0-dim tensors, no synchronisation) for each named pass; of mixed labels, the
    share that was predicted.
    """

    loss: Tensor
    correct: dict[str, Tensor]
