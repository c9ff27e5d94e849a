"""AutoAttack (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, through ``pyautoattack``.

The package holds the official code; its attack mathematics are untouched here.  It seeds every
batch alike and draws per batch, so its verdicts depend on the batch size: keep that fixed when
comparing runs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Task, Whole


@ATTACKS.register("autoattack-reference", aliases=("aa-reference",))
@dataclass(frozen=True, kw_only=True)
class Reference(Whole):
    """The official ensemble in its own code, to hold ``autoattack`` against.

    It runs batch by batch, drops nothing inside an attack, and cannot be resumed within a batch.
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    """Which official composition to run."""

    min_classes: ClassVar[int] = 4  # the targeted DLR loss reads the fourth largest logit

    def craft(self, model: Any, task: Task) -> Tensor:
        import pyautoattack

        # It reseeds torch's global generators; the caller's must not notice.
        with torch.random.fork_rng(), torch.no_grad():
            ensemble = pyautoattack.AutoAttack(
                model,
                norm=task.threat.norm,
                eps=task.threat.eps,
                seed=task.noise.seed,
                version=self.version,
                device=task.x.device,
            )
            ensemble.verbose = False
            if task.threat.norm != "L1":  # which has five targets of its own
                # The official nine targets index out of range with fewer than ten classes.
                targets = min(9, task.clean.shape[1] - 1)
                ensemble.apgd_targeted.n_target_classes = targets
                ensemble.fab.n_target_classes = targets
            x_adv: Tensor
            x_adv, _ = ensemble.run_standard_evaluation(task.x, task.y, batch_size=len(task.x))
        return x_adv
