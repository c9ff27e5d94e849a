"""BatchNorm and dropout over a batch that several processes share.

Each process passes its own rows through the model.  So that each row gets what it would get in a
single process, BatchNorm in training mode takes its statistics over the whole batch, and dropout
draws the mask of the whole batch and applies the process's own rows of it.
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
    """Make BatchNorm and dropout act on the whole batch within the block.

    With one process nothing changes.

    Args:
        shard: this process's part of the batch.
        size: the number of rows of the whole batch.
    """
    if shard.world == 1:
        yield
        return
    try:
        with _WholeBatchMode(shard, size):
            yield
    except RuntimeError as error:
        # torch takes the mode off its stack while a function runs.  A Ctrl-C at that moment makes
        # the exit from the mode raise a RuntimeError (empty stack); raise the interrupt instead.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


class _WholeBatchMode(TorchFunctionMode):
    """Replace F.batch_norm and F.dropout, which the layers of all libraries call."""

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
        """Apply the process's rows of a dropout mask drawn for the whole batch."""
        # ``x`` may be a concatenation of several passes, each with all the process's rows.
        passes, rest = divmod(len(x), self._own) if self._own else (1, 0)
        if rest:  # a part of the rows: their places in the whole batch are unknown
            return F.dropout(x, p)
        ones = x.new_ones(passes * self._size, *x.shape[1:])
        # Random numbers are drawn in memory order, so the mask needs the layout of ``x``.
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
    """Compute F.batch_norm in training mode with sums over all processes, in float32 or float64."""
    wide = x if x.dtype == torch.float64 else x.float()
    axes = [0, *range(2, x.ndim)]  # all but the channels
    shape = [1, -1] + [1] * (x.ndim - 2)  # broadcasts one value per channel
    count = wide.new_tensor([x.numel() / x.shape[1]])
    *sums, n = _AllReduceSum.apply(torch.cat([wide.sum(axes), count])).split([x.shape[1], 1])
    mean = sums[0] / n
    centred = wide - mean.view(shape)
    variance = _AllReduceSum.apply(centred.square().sum(axes)) / n
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * n / (n - 1), momentum)
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    out: Tensor = centred * scale.view(shape)
    out = out if bias is None else out + bias.view(shape)
    return out.to(x.dtype)


class _AllReduceSum(torch.autograd.Function):
    """Sum over all processes: values in the forward pass, gradients in the backward pass."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        total: Tensor = _AllReduceSum.apply(grad.contiguous())
        return total
