"""Attacks that are fitted to training images, in an evaluation: once, on disk, in all processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustbench_cli.attacks import FitResult, FittedAttack, Stage, State
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import EvalConfig, spec_of
from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.eval_context import EvalContext, Fitter
from robustbench_cli.evaluation.fitting import FitRound, fit_rounds
from robustbench_cli.evaluation.journal import FLUSH, read_arrays, write_arrays

_COUNTS = ("rounds", "of", "last", "forwards", "backwards")
"""The names of the numbers in a file of what was fitted; all others are tensors of it."""
_SIDE = 128
"""The least number of pixels of a picture's side; each pixel of the image becomes a square."""


class Request(Protocol):
    """What says where training images are: the request of an evaluation."""

    @property
    def data(self) -> Split | None:
        """Images in memory to evaluate on; None: the test split of a data set."""

    @property
    def config(self) -> EvalConfig:
        """Its settings."""

    @property
    def workspace(self) -> Workspace:
        """Its folders."""


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Fits attacks and keeps what they have fitted in the folder of the evaluation.

    The file of an attack, ``fitted-COLUMN-STAGE.npz``, is written every few seconds, so that an
    interrupted evaluation goes on with the next round, and stays there with a picture beside it.
    """

    folder: Path
    training: Callable[[], Split]
    """Returns the training images; asked once there is something to fit."""
    shard: Shard
    display: Display

    @classmethod
    def of(cls, request: "Request", folder: Path, shard: Shard, display: Display) -> "Fits | None":
        """Return what fits attacks to the training split of the data set that is evaluated.

        None where images in memory are evaluated: then it is not known which others there are.
        """
        if request.data is not None:
            return None
        dataset = DATASETS.build(spec_of(request.config.dataset))
        training = partial(dataset.load, "train", request.workspace.data_dir)
        return cls(folder=folder, training=training, shard=shard, display=display)

    def of_column(self, name: str) -> Fitter:
        """Return what fits the attacks of a column of the journal, by the number of the stage."""

        def fit(number: int, stage: Stage, context: EvalContext) -> FitResult:
            path = self.path(name, number)
            arrays = self.shard.broadcast_from_main(
                lambda: _as_arrays(self._fitted(path, stage, context))
            )
            known, share = _from_arrays(arrays), self.shard.world
            state = {k: v.to(context.data.y.device) for k, v in known.fitted.state.items()}
            return FitResult(state, known.fitted.forwards // share, known.fitted.backwards // share)

        return fit

    def path(self, name: str, number: int) -> Path:
        """Return the file of what was fitted for a stage of a column."""
        return self.folder / f"fitted-{name}-{number}.npz"

    def _fitted(self, path: Path, stage: Stage, context: EvalContext) -> FitRound:
        """Fit what is not fitted yet, in the main process."""
        known = _from_arrays(read_arrays(path)) if path.exists() else None
        if known is not None and known.last:
            return known
        where = context.data.y.device
        if known is not None:
            state = {key: each.to(where) for key, each in known.fitted.state.items()}
            known = known._replace(fitted=replace(known.fitted, state=state))
        data = self.training().to(where)
        written, found = perf_counter(), known
        for found in fit_rounds(stage, data, data.ids, context, known):
            self.display.fitting(stage.member, found.done, found.of)
            if found.last or perf_counter() - written > FLUSH:
                write_arrays(path, _as_arrays(found))
                written = perf_counter()
        assert found is not None
        attack = stage.attack
        assert isinstance(attack, FittedAttack)
        _write_picture(path.with_suffix(".png"), attack.picture(found.fitted.state, context.threat))
        return found


def _write_picture(path: Path, image: Tensor) -> None:
    """Write an image (C, H, W) in [0, 1] as a PNG of at least ``_SIDE`` pixels a side."""
    times = max(1, -(-_SIDE // min(image.shape[1:])))
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(times, 1).repeat_interleave(times, 2).permute(1, 2, 0)
    shown = pixels.expand(-1, -1, 3) if pixels.shape[2] != 3 else pixels
    picture = Image.fromarray(shown.contiguous().numpy())
    write_atomically(path, lambda part: picture.save(part, format="PNG"))


def _as_arrays(found: FitRound) -> dict[str, np.ndarray]:
    fitted = found.fitted
    counts = (found.done, found.of, found.last, fitted.forwards, fitted.backwards)
    arrays = {key: each.detach().cpu().numpy() for key, each in fitted.state.items()}
    return {**{k: np.array(v) for k, v in zip(_COUNTS, counts, strict=True)}, **arrays}


def _from_arrays(arrays: dict[str, np.ndarray]) -> FitRound:
    done, of, last, forwards, backwards = (int(arrays[name]) for name in _COUNTS)
    state: State = {k: _tensor(v) for k, v in arrays.items() if k not in _COUNTS}
    return FitRound(done, of, bool(last), FitResult(state, forwards, backwards))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).clone().reshape(values.shape)
