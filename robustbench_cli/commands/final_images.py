"""The images that an evaluation ended with, and what a fresh copy of the model says of them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.audit._evidence import Replay
from robustbench_cli.audit._probe import Copy
from robustbench_cli.core.losses import wide
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.stages import Progress

CLEAR = 1e-3
"""The smallest margin, as a fraction of the logits' range, that rounding cannot turn over."""


@dataclass
class FinalImages:
    """The last image that was judged of each of the first examples, with its prediction."""

    examples: int
    """The number of examples whose images are remembered, from the first."""
    _images: dict[int, tuple[Tensor, int, bool]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._images)

    def watch(self, progress: Progress, labels: np.ndarray) -> None:
        """Take in the images that an attack has just ended with; ``labels`` are classes (N)."""
        found = progress.found
        for place in (found.rows < self.examples).nonzero().squeeze(1).tolist():
            if progress.kept[place]:
                row, prediction = int(found.rows[place]), int(found.prediction[place])
                self._images[row] = found.x[place], prediction, prediction == int(labels[row])

    def replay(self, copy: Copy, device: torch.device, n: int, shard: Shard) -> Replay | None:
        """Show the images to a fresh copy, one by one; return None where there is no copy.

        Args:
            device: where the model is.
            n: the number of examples of the evaluation.
        """
        fresh = copy()
        if fresh is None:
            return None
        tried, differs, worse = (np.zeros(n, bool) for _ in range(3))
        for row, (image, prediction, held) in self._images.items():
            with torch.no_grad():
                (logits,) = wide(fresh(image[None].to(device)))
            tried[row] = True
            top = logits.topk(2).values
            clear = float(top[0] - top[1]) > CLEAR * float(logits.amax() - logits.amin())
            differs[row] = clear and int(logits.argmax()) != prediction
            worse[row] = differs[row] and held
        shard.merge_rows({"tried": tried, "differs": differs, "worse": worse}, n)
        return Replay(tried=tried, differs=differs, worse=worse)
