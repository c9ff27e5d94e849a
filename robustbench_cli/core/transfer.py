"""Tensors on their way to a device, without a wait until they are there."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of any shape on ``device``, by a copy that the program does not wait for.

    A plain ``to`` waits until a GPU has done all that it was given before.  From page-locked memory
    the copy is queued behind that work instead, and what uses the tensor is queued behind the copy.
    """
    if device.type == "mps":  # whether the source outlives a queued copy is not documented there
        return tensor.to(device)
    locked = device.type == "cuda" and not tensor.is_cuda and tensor.numel() > 0
    return (tensor.pin_memory() if locked else tensor).to(device, non_blocking=True)
