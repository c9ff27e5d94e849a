"""AutoAttack (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, through ``pyautoattack``.

The package holds the official code; its attack mathematics are untouched here.  It seeds every
batch alike and draws per batch, so its verdicts depend on the batch size: keep that fixed when
comparing runs.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robustbench_cli.ascent import Crafted, Model
from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.noise import Noise
from robustbench_cli.threat import Threat


@ATTACKS.register("autoattack", aliases=("aa",))
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The official ensemble: APGD-CE, APGD-T, FAB-T and Square, each on what is left.

    ``plus`` adds untargeted APGD-DLR and FAB with five restarts; ``rand`` is for randomised
    models (gradients averaged over 20 passes).
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    """Which official composition to run."""

    min_classes: ClassVar[int] = 4  # the targeted DLR loss reads the fourth largest logit

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Crafted:
        import pyautoattack

        # It reseeds torch's global generators; the caller's must not notice.
        with torch.random.fork_rng(), torch.no_grad():
            classes = model(x[:1]).shape[1]
            ensemble = pyautoattack.AutoAttack(
                model,
                norm=threat.norm,
                eps=threat.eps,
                seed=noise.seed,
                version=self.version,
                device=x.device,
            )
            ensemble.verbose = False
            # The official nine targets index out of range with fewer than ten classes.
            targets = min(9, classes - 1)
            ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = targets
            x_adv, _ = ensemble.run_standard_evaluation(x, y, batch_size=len(x))
        return Crafted(x_adv, torch.full_like(y, -1))
