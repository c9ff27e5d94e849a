"""Decoded images in the cache, so that no command decodes again what another one has decoded.

One safetensors file (Hugging Face, 2022, https://github.com/huggingface/safetensors) per split,
with the images that were asked for so far.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from robustbench_cli.core.atomic_files import FileWriteError, write_atomically
from robustbench_cli.core.cache_folder import room

Read = Callable[[list[int]], Tensor]
_MOST = 2**30
"""Bytes of images that a file has at most; beyond it holds only those that were asked for last."""


def decoded(key: str, read: Read, rows: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return images (B, C, H, W), from the cache as far as it has them, and notes for the user.

    Args:
        key: a hash of the content of the files that they come from.
        read: decodes the images at some positions.
        rows: positions (B) int64.
    """
    path, notes = room("decoded") / f"{key}.safetensors", list[str]()
    known, kept = _found(path, notes)
    wanted = torch.unique(rows)
    missing = wanted[~torch.isin(wanted, known)]
    if len(missing) or kept is None:
        fresh = read(missing.tolist())
        if kept is not None and kept.nbytes + fresh.nbytes > _MOST:
            known, kept, fresh = known[:0], None, read(wanted.tolist())
            missing = wanted
        every = fresh if kept is None else torch.cat([kept, fresh])
        known, order = torch.cat([known, missing]).sort()
        kept = every[order]
        notes += _written(path, known, kept)
    return kept[torch.searchsorted(known, rows)], tuple(notes)


def _found(path: Path, notes: list[str]) -> tuple[Tensor, Tensor | None]:
    """Return the positions, sorted, and the images of a file; none where it is of no use."""
    nothing = torch.zeros(0, dtype=torch.int64)
    if not path.is_file():
        return nothing, None
    try:
        with safetensors.safe_open(path, "pt") as file:
            rows, images = file.get_tensor("rows"), file.get_tensor("images")
            if (file.metadata() or {}).get("sha256") == _hash(rows, images):
                return rows, images
    except (OSError, KeyError, safetensors.SafetensorError):
        pass
    notes.append(f"the cached images in {path} were damaged: they are decoded again")
    return nothing, None


def _written(path: Path, rows: Tensor, images: Tensor) -> list[str]:
    """Write a file; return a note where that is not possible."""
    tensors, about = {"rows": rows, "images": images}, {"sha256": _hash(rows, images)}
    try:
        write_atomically(path, lambda part: safetensors.torch.save_file(tensors, part, about))
    except FileWriteError as error:
        return [f"decoded images are not kept: {error}"]
    return []


def _hash(rows: Tensor, images: Tensor) -> str:
    digest = hashlib.sha256()
    for each in (rows, images):
        digest.update(each.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
