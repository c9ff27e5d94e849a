"""A network as a list of operations, and the bounds of what it computes on a ball."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.bounds.balls import InputBall
from robustbench_cli.bounds.interval import EXACT, Interval, summed
from robustbench_cli.bounds.operations import Operation
from robustbench_cli.bounds.zonotopes import KinkSlope, Zonotope, around
from robustbench_cli.core.threat import Norm, over

_MEMORY = 2**23
"""Numbers that the coefficients of one layer may hold at once; they set how many rows are computed
together, and change no result."""


@dataclass(frozen=True, kw_only=True)
class GraphStep:
    """One operation, with the values it reads."""

    operation: Operation
    inputs: tuple[int, ...]
    """The numbers of these values: 0 is the image, i + 1 the output of step i."""
    name: str
    """Where it is in the model, for messages."""


@dataclass(frozen=True, kw_only=True)
class BoundGraph:
    """A network from images to logits, its weights as they were when it was made."""

    steps: Sequence[GraphStep]
    output: int
    """The number of the value that is the logits."""
    dtype: torch.dtype
    """The precision in which bounds are computed."""
    norms: dict[tuple[int, Norm], Tensor] = field(default_factory=dict, init=False, compare=False)
    """Dual norms (1, ...) of the coefficients of values that depend linearly on the image, by
    number and norm, once they are known."""

    def intervals(
        self, ball: InputBall, unit: float = EXACT, *, tighten: bool = False
    ) -> list[Interval]:
        """Return bounds of every value on a ball: of the image, then of each step's output.

        They are intervals passed from step to step (IBP; Gowal et al., 2018,
        https://arxiv.org/abs/1810.12715).  Under a norm other than Linf, what depends linearly on
        the image is bounded by the dual norm of its coefficients.

        Args:
            ball: B examples.
            unit: the relative rounding error to allow for (``FLOAT32``); 0: none.
            tighten: whether each activation's input gets linear bounds, too, as far as these help
                (CROWN; Zhang et al., 2018, https://arxiv.org/abs/1811.00866).
        """
        found = [ball.interval]
        straight = {} if ball.is_box else {0: Interval(ball.x, ball.x)}
        for number, step in enumerate(self.steps, 1):
            operation = step.operation
            if not operation.linear:
                (source,) = step.inputs
                if source in straight:
                    self._measure(found, straight[source], source, ball)
                elif tighten:
                    self._tighten(found, source, operation, ball)
            found.append(operation.interval([found[i] for i in step.inputs], unit))
            if operation.linear and straight.keys() >= {*step.inputs}:
                # The value at the example itself, with the rounding errors of the whole ball.
                at = operation.interval([straight[i] for i in step.inputs], EXACT)
                error = found[number].error
                straight[number] = at if error is None else at.widened(error)
        return found

    def lowest(
        self,
        known: Sequence[Interval],
        a: Tensor,
        ball: InputBall,
        *,
        start: int | None = None,
        through: bool = True,
    ) -> Tensor:
        """Return lower bounds on a ball of linear functions of one value, as a rule the logits.

        The functions are passed back from step to step.  Activations are replaced by lines within
        the bounds that are known of their inputs.

        Args:
            known: bounds of all values up to that one (see ``intervals``).
            a: the coefficients (B, S, ...) of S functions per example.
            ball: B examples.
            start: the number of the value; None: the logits.
            through: False: stop at activations and take the bounds of their outputs, so that only
                the linear steps at the end are taken together (IBP with the last layer elided).

        Returns:
            (B, S).
        """
        start = self.output if start is None else start
        ends, total = self._passed_back(known, a, start, through=through)
        for number, rest in ends.items():
            total = total + (known[number] if number else ball).lowest(rest)
        return total

    def zonotopes(
        self, ball: InputBall, kink: KinkSlope, unit: float = EXACT
    ) -> tuple[list[Zonotope], list[Interval]]:
        """Return a hybrid zonotope of every value on a ball, and the bounds of each.

        Args:
            ball: B examples; of a norm other than Linf the box around it.
            kink: the transformer of ReLU (``RELU_TRANSFORMERS``).
            unit: the relative rounding error to allow for; 0: none.
        """
        found, known = [around(ball.interval)], [ball.interval]
        for step in self.steps:
            bounds = step.operation.interval([known[i] for i in step.inputs], unit)
            zonotope = step.operation.zonotope([found[i] for i in step.inputs], bounds, kink)
            within = zonotope.interval
            found.append(zonotope)
            known.append(bounds.within(within.low, within.high))
        return found, known

    def lowest_of_zonotopes(
        self, found: Sequence[Zonotope], known: Sequence[Interval], a: Tensor
    ) -> Tensor:
        """Return lower bounds of linear functions of the logits, over ``zonotopes``.

        The linear steps at the end are folded into the functions.

        Args:
            found: a zonotope of every value.
            known: bounds of every value.
            a: the coefficients (B, S, K) of S functions per example.

        Returns:
            (B, S).
        """
        ends, total = self._passed_back(known, a, self.output, through=False)
        terms = []
        for number, rest in ends.items():
            zonotope = found[number]
            total = total + summed(rest, zonotope.center) - summed(rest.abs(), zonotope.box)
            terms.append(torch.bmm(rest.flatten(2), zonotope.terms.flatten(2).transpose(1, 2)))
        # Values share their error terms, so these may cancel.
        return total - torch.stack(terms).sum(0).abs().sum(2)

    def _passed_back(
        self, known: Sequence[Interval], a: Tensor, start: int, *, through: bool
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Return the coefficients (B, S, ...) of the values at which it ends, and constants (B, S).

        These are the image's, 0, and those of activations where it does not go ``through`` them.
        """
        total, waiting, ends = a.new_zeros(()), {start: a}, {}
        for number in range(start, 0, -1):
            if (here := waiting.pop(number, None)) is None:
                continue
            step, interval = self.steps[number - 1], known[number]
            if not through and not step.operation.linear:
                ends[number] = here
                continue
            if interval.error is not None:
                total = total - summed(here.abs(), interval.error)
            inputs = [known[i] for i in step.inputs]
            parts, constant = step.operation.backward(here, inputs)
            total = total + constant
            for source, part in zip(step.inputs, parts, strict=True):
                waiting[source] = waiting[source] + part if source in waiting else part
        return ends | waiting, total

    def _tighten(
        self, found: list[Interval], source: int, operation: Operation, ball: InputBall
    ) -> None:
        """Give one value linear bounds, too, where that helps the operation on it."""
        known = found[source]
        shape, low, high = known.low.shape[1:], known.low.flatten(1), known.high.flatten(1)
        open_ = operation.unsettled(known).flatten(1)
        wanted = open_.any(0).nonzero().squeeze(1)
        # Nothing is written in place: training differentiates these bounds.
        for rows in torch.split(wanted, self._rows_at_once(found, len(ball.x))):
            one = F.one_hot(rows, low.shape[1]).to(low)
            eye = one.view(1, len(rows), *shape).expand(len(ball.x), -1, *shape)
            below = self.lowest(found, eye, ball, start=source)
            above = -self.lowest(found, -eye, ball, start=source)
            # What another example asks for changes nothing here.
            below = torch.where(open_[:, rows], torch.fmax(low[:, rows], below), low[:, rows])
            above = torch.where(open_[:, rows], torch.fmin(high[:, rows], above), high[:, rows])
            low, high = low.index_copy(1, rows, below), high.index_copy(1, rows, above)
        found[source] = Interval(low.view_as(known.low), high.view_as(known.high), known.error)

    def _measure(self, found: list[Interval], at: Interval, source: int, ball: InputBall) -> None:
        """Bound a value that depends linearly on the image by the norms of its coefficients.

        Args:
            at: bounds of it at the example itself.
        """
        if (source, ball.norm) not in self.norms:
            shape = found[source].low.shape[1:]
            every = torch.arange(math.prod(shape), device=ball.x.device)
            norms = []
            for rows in torch.split(every, self._rows_at_once(found, 1)):
                eye = F.one_hot(rows, len(every)).to(ball.x).view(1, len(rows), *shape)
                ends, _ = self._passed_back(found, eye, source, through=True)
                norms.append(ball.dual(ends[0])[0])
            self.norms[source, ball.norm] = torch.cat(norms).view(1, *shape)
        reach = over(ball.eps, at.low) * self.norms[source, ball.norm]
        found[source] = found[source].within(at.low - reach, at.high + reach)

    def _rows_at_once(self, found: Sequence[Interval], batch: int) -> int:
        return _rows(batch * max(each.low[0].numel() for each in found))

    def examples_at_once(self, image: torch.Size, functions: int) -> int:
        """Return the number of examples whose functions fit into memory together.

        Args:
            image: the shape of one image (C, H, W).
            functions: the number of functions per example.
        """
        with torch.no_grad():
            shown = torch.zeros(1, *image, dtype=self.dtype, device=self.device)
            sizes = [value.numel() for value in self.values(shown)]
        return _rows(functions * max(sizes))

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU if there are none."""
        weights = (getattr(each.operation, "weight", None) for each in self.steps)
        return next((w.device for w in weights if w is not None), torch.device("cpu"))

    def values(self, x: Tensor) -> Iterator[Tensor]:
        """Yield every value at images x (B, C, H, W), without rounding bounds: x, then the steps'.

        Bounds of a ball of radius 0 are the values themselves.
        """
        ball = InputBall(x=x, eps=x.new_zeros(len(x)))
        yield from (each.center for each in self.intervals(ball))


def _rows(numbers: int) -> int:
    """Return how many rows of so many numbers are computed together."""
    return max(1, _MEMORY // numbers)
