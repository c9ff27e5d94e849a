"""One training step as defenses see it: the batch, the passes over it, and their result.

Means over the batch.  Several processes may share a batch: each has some of its rows in ``step.x``,
and the gradients of all of them are summed.  ``Objective.loss`` returns one number per example, and
the recipe divides their sum by ``step.size``, the rows of the whole batch; so a loss that is a sum
over examples needs no care.  A loss with a statistic of the batch (how many rows are unlabelled,
how much a weight sums to, a mean that another mean is divided by) must not take it from its own
rows: ``len(step.x)`` and ``x.mean()`` differ from process to process.  Write ``step.size`` for the
number of rows, and ``step.total(value)`` for the sum of a per-process value over all processes,
which is a constant without a gradient: ``weights.sum()`` becomes ``step.total(weights.sum())``, a
mean over some rows ``losses[rows] * step.size / step.total(rows.sum())``, whose sum over the batch
the recipe divides by ``step.size`` again.  With one process both are what they look like.
"""

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
"""The passes whose accuracy a history records; others need not be about the labels."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The information that a part has when it makes its auxiliary module, before training."""

    model: Classifier
    shape: Shape
    batch_size: int
    fresh: Callable[[], Classifier]
    """Returns another network of the same architecture, with newly initialised weights."""
    seed: int = 0
    """The run's seed, for draws that concern the whole run."""
    threat: Threat = field(default_factory=Threat)
    """What the run trains against."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything a defense may know about one training step."""

    model: Classifier
    x: Tensor
    """Images (B, C, H, W) in [0, 1], augmented."""
    y: Tensor
    """Labels (B) int64, -100 for an example without one; once labels were mixed, shares (B, K) of
    the K classes."""
    classes: int = 0
    """The number of classes, K."""
    threat: Threat
    """With a mask: bound to these images by the time that an objective gets the step."""
    noise: Noise
    """Random numbers keyed by example, B of them, the epoch and the seed."""
    criterion: Criterion = cross_entropy
    """Logits (B, K) and labels to one loss per example (B), as the modifiers left it."""
    epoch: int = 0
    """Counted from 0."""
    batch: int = 0
    """The position of the batch in the epoch, from 0."""
    progress: float = 1.0
    """The share of the run that was done before this update, in [0, 1): for settings that change
    along the run, batch by batch."""
    update_index: int = 0
    """The number of this update among the objective's ``updates_per_batch``, from 0."""
    extra: Tensor | None = None
    """True for rows from the extra pool (B, bool); None: there is no pool, or nothing else."""
    teachers: tuple[Classifier, ...] = ()
    """Frozen networks in evaluation mode, as many as the objective asked for."""
    bank: Bank | None = None
    """All training images, for objectives that look at others than the batch's: those of the data
    set, or of a pool that replaces it."""
    auxiliaries: Mapping[str, nn.Module] = field(default_factory=dict)
    """The parts' auxiliary modules, by the name of the part's class."""
    shard: Shard = ALONE
    """This process among those that share the batch."""
    whole_size: int | None = None
    """The rows of the batch before each process took its own; None: they are all here."""

    @property
    def size(self) -> int:
        """The rows of the whole batch, those of other processes included."""
        return len(self.x) if self.whole_size is None else self.whole_size

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of ``value`` over all processes, of any shape, without a gradient.

        Every process must call it, at the same place.  With one process it is the value itself.
        """
        total = value.detach().clone()
        self.shard.all_reduce_sum_([total])
        return total

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all weights that have one, the auxiliary modules' included."""
        nets = self.model, *self.auxiliaries.values()
        return [p.grad for net in nets for p in net.parameters() if p.grad is not None]

    def part(self) -> "Step":
        """Return the same step with the rows of this process only."""
        if self.shard.world == 1:
            return self
        rows = self.shard.rows
        return replace(
            self,
            x=self.x[rows].contiguous(memory_format=torch.channels_last),
            y=self.y[rows],
            noise=self.noise.only(rows),
            extra=None if self.extra is None else self.extra[rows],
            whole_size=len(self.x),
        )

    def auxiliary(self, part: object, kind: type[Auxiliary]) -> Auxiliary:
        """Return the auxiliary module that ``part`` made before training; it is a ``kind``."""
        module = self.auxiliaries[type(part).__name__]
        assert isinstance(module, kind)
        return module


class Passes:
    """The forward passes of one evaluation of the loss, by name: ``clean``, ``adv``.

    ``passes[name]`` is the logits (B, K) of ``inputs[name]``.  Each input goes through the model
    once, at first use, so that a penalty reads the logits that the objective already has; the order
    of first use is the order in which BatchNorm sees the inputs.
    """

    def __init__(
        self, model: Classifier, inputs: Mapping[str, Tensor], taps: Sequence[str] = ()
    ) -> None:
        self.made: dict[str, Tensor] = {}
        """The logits of the passes that were made, in their order."""
        self.inputs = inputs
        self._model = model
        self._taps = taps
        self._features: dict[str, Mapping[str, Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.made:
            with tapped(self._model, self._taps) as features:
                self.made[name] = self._model(self.inputs[name])
            self._features[name] = features
        return self.made[name]

    def features(self, name: str, tap: str = EMBEDDING) -> Tensor:
        """Return the features at one of the objective's ``taps`` in the pass ``name``.

        The last layer's input, the default, is (B, F).
        """
        _ = self[name]
        return self._features[name][tap]


class Trained(NamedTuple):
    """The result of one batch, after its gradient was left in the parameters.

    Of several processes each has its share of both: their sum is the batch's.
    """

    loss: Tensor
    """The mean loss (0-dim)."""
    correct: dict[str, Tensor]
    """For each pass in ``SCORED`` that was made, how many answers were right (0-dim tensors, which
    need no synchronisation with the device); with mixed labels, the sum of the predicted shares."""
