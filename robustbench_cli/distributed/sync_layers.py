"""A batch that several processes share, computed as the one batch that it is.

Each process passes its own rows through the model.  Two layers look beyond them: BatchNorm in
training mode takes its statistics over the whole batch, and dropout draws for the whole batch, so
that each row gets what it would get in a single process.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.overrides import TorchFunctionMode

from robustbench_cli.distributed.group import Shard


@contextmanager
def whole_batch(shard: Shard, size: int) -> Iterator[None]:
    """While open, layers see the whole batch of ``size`` rows; nothing changes for one process."""
    if shard.world == 1:
        yield
        return
    try:
        with _Whole(shard, size):
            yield
    except RuntimeError as error:
        # torch takes the mode off its stack while a function runs, and leaving an empty stack is
        # an error of its own: an interruption at that moment stays one.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


class _Whole(TorchFunctionMode):
    """Replaces the two functions that layers of any make call."""

    def __init__(self, shard: Shard, size: int) -> None:
        super().__init__()
        self._rows = shard.rows
        self._size = size
        self._own = len(range(size)[shard.rows])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        rest = dict(kwargs or {})
        if func is F.batch_norm and rest.pop("training"):
            return _batch_norm(*args, **rest)
        if func is F.dropout and rest["training"]:
            return self._dropout(args[0], rest["p"])
        return func(*args, **(kwargs or {}))

    def _dropout(self, x: Tensor, p: float) -> Tensor:
        # Several passes may have been put one after the other: each has the batch's rows.
        passes, odd = divmod(len(x), self._own) if self._own else (1, 0)
        if odd:  # some of the rows: nobody knows which of one process's draws are theirs
            return F.dropout(x, p)
        ones = x.new_ones(passes * self._size, *x.shape[1:])
        # Draws follow the order in memory.
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        ones = ones.contiguous(memory_format=torch.channels_last) if last else ones
        drawn = F.dropout(ones, p).view(passes, self._size, *x.shape[1:])
        return x * drawn[:, self._rows].flatten(0, 1)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The same formula, with sums over all processes, at least in float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    over = [0, *range(2, x.ndim)]
    each = [1, -1] + [1] * (x.ndim - 2)
    count = wide.new_tensor([x.numel() / x.shape[1]])
    *sums, n = _Sum.apply(torch.cat([wide.sum(over), count])).split([x.shape[1], 1])
    mean = sums[0] / n
    centred = wide - mean.view(each)
    variance = _Sum.apply(centred.square().sum(over)) / n
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * n / (n - 1), momentum)
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    out: Tensor = centred * scale.view(each)
    out = out if bias is None else out + bias.view(each)
    return out.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of values forward and of gradients backward."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(grad.contiguous())
        return total
