"""The images that an evaluation ended with, and what a fresh copy of the model says of them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.audit._evidence import Replay
from robustbench_cli.audit._probe import Copy
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.losses import wide
from robustbench_cli.core.threat import Threat
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.stages import Progress

CLEAR = 1e-3
"""The smallest margin, as a fraction of the logits' range, that rounding cannot turn over."""


NEARER = (0.99, 0.93, 0.85)
"""Parts of the way from the clean image to an attack's last one."""


@dataclass
class FinalImages:
    """The last image that was judged of each of the first examples, with its prediction."""

    examples: int
    """The number of examples whose images are remembered, from the first."""
    passes: int = 0
    """The images that a copy was shown so far."""
    _images: dict[int, tuple[Tensor, int, bool]] = field(default_factory=dict)

    def watch(self, progress: Progress, labels: np.ndarray) -> None:
        """Take in the images that an attack has just ended with; ``labels`` are classes (N)."""
        found = progress.found
        for place in (found.rows < self.examples).nonzero().squeeze(1).tolist():
            if progress.kept[place]:
                row, prediction = int(found.rows[place]), int(found.prediction[place])
                self._images[row] = found.x[place], prediction, prediction == int(labels[row])

    def merge(self, shard: Shard) -> None:
        """Take in the images that the other processes remember."""
        own = {
            row: (image.cpu(), prediction, held)
            for row, (image, prediction, held) in self._images.items()
        }
        for known in shard.all_gather(own):
            self._images |= known

    def ends(self, rows: Tensor, starts: Tensor) -> Tensor:
        """Return the last images of these examples (m, C, H, W).

        Args:
            rows: the examples (m).
            starts: what stands for those that were not attacked (m, C, H, W).
        """
        ends = starts.clone()
        for place, row in enumerate(rows.tolist()):
            if row in self._images:
                ends[place] = self._images[row][0].to(ends)
        return ends

    def replay(
        self, copy: Copy, data: Examples, threat: Threat, shard: Shard, most: int
    ) -> Replay | None:
        """Show the images to a fresh copy, one by one; return None where there is no copy.

        Each process shows those of its own examples.

        Args:
            most: how many to show; those that stood come first.
            data: the clean images of the evaluation.
            threat: with a mask, bound to all of them.
        """
        fresh = copy()
        if fresh is None:
            return None
        levels = torch.unique(data.images(slice(self.examples)))
        tried, differs, worse, nearer = (np.zeros(len(data.y), bool) for _ in range(4))
        held_first = sorted(self._images, key=lambda row: (not self._images[row][2], row))
        mine = shard.mine(len(data.y))
        for row in (row for row in held_first[:most] if mine[row]):
            image, prediction, held = self._images[row]
            place = torch.tensor([row], device=data.y.device)
            x = data.images(place)
            x_adv = image[None].to(x)
            with torch.no_grad():
                (logits,) = wide(fresh(x_adv))
            tried[row] = True
            self.passes += 1
            top = logits.topk(2).values
            clear = float(top[0] - top[1]) > CLEAR * float(logits.amax() - logits.amin())
            differs[row] = clear and int(logits.argmax()) != prediction
            worse[row] = differs[row] and held
            if held:
                for moved in _moved(x_adv, x, levels, threat.only(place)):
                    self.passes += 1
                    with torch.no_grad():
                        nearer[row] |= int(fresh(moved).argmax()) != prediction
        merged = {"tried": tried, "differs": differs, "worse": worse, "nearer": nearer}
        shard.merge_rows(merged, len(data.y))
        return Replay(tried=tried, differs=differs, worse=worse, nearer=nearer)


def _moved(x_adv: Tensor, x: Tensor, levels: Tensor, threat: Threat) -> list[Tensor]:
    """Return images (1, C, H, W) in the ball: nearer to the clean one, and on the data's values.

    Args:
        levels: the pixel values of clean images, in order (L).
    """
    images = [x + share * (x_adv - x) for share in NEARER]
    above = torch.searchsorted(levels, x_adv.contiguous()).clamp(max=len(levels) - 1)
    pair = levels[torch.stack([(above - 1).clamp(min=0), above])]
    away = (pair - x_adv).abs() + ((pair - x).abs() > threat.eps * (1 + 1e-6))
    images.append(torch.where(away[0] <= away[1], pair[0], pair[1]))
    moved = (threat.restored(image, x) for image in images)
    return [image for image in moved if bool(threat.inside(image, x).all())]
