"""AutoAttack (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690, through ``pyautoattack``.

The package holds the official code, whose attacks are run unchanged.  It sets the same seed for
each batch and draws per batch, so its verdicts depend on the batch size: keep that fixed when
comparing runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Attack, ExternalAttack, Task
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat

Member = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]

MEMBERS: Mapping[str, tuple[Member, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""The official compositions, in their order."""


@ATTACKS.register("autoattack-reference", aliases=("aa-reference",))
@dataclass(frozen=True, kw_only=True)
class Reference(ExternalAttack):
    """The official AutoAttack code, as a reference for ``autoattack``.

    Its members run one by one, each on the examples that are still unbroken, as in the official
    cascade, so the record counts what each of them broke.  A member runs batch by batch, keeps
    broken examples until it ends, and cannot be resumed within a batch.
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    """The official composition to run."""
    only: Literal["all"] | Member = "all"
    """The whole composition, or one member of it with its parameters there."""

    min_classes: ClassVar[int] = 4  # the targeted DLR loss reads the fourth largest logit

    @property
    def no_target(self) -> str:
        return "the official code has no target to choose; use autoattack"

    def __post_init__(self) -> None:
        """Check that the composition has the chosen member.

        Raises:
            UserError: it has not.
        """
        members = MEMBERS[self.version]
        if self.only not in ("all", *members):
            raise UserError(
                f"the {self.version} version has no {self.only}; it has {', '.join(members)}"
            )

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, Attack]:
        if self.only != "all":
            return super().members(threat, classes)
        return {name: replace(self, only=name) for name in MEMBERS[self.version]}

    def craft(self, model: Any, task: Task) -> Tensor:
        import pyautoattack

        # It seeds torch's global generators; their state is restored afterwards.
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
            ensemble.attacks_to_run = [self.only]  # ``members`` never asks for "all"
            if task.threat.norm != "L1":  # for L1 the official code sets five targets
                # The official nine targets are out of range with fewer than ten classes.
                targets = min(9, task.clean.shape[1] - 1)
                ensemble.apgd_targeted.n_target_classes = targets
                ensemble.fab.n_target_classes = targets
            x_adv: Tensor
            x_adv, _ = ensemble.run_standard_evaluation(task.x, task.y, batch_size=len(task.x))
        return x_adv
