"""The progress of an attack: how many examples are done, and the robust accuracy so far."""

import numpy as np

from robustbench_cli.commands.attack_summary import robust_share
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.targeted import reached
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress


class AttackProgress:
    """Reports to the display while the verdicts of one attack come in."""

    def __init__(
        self,
        display: Display,
        point: SweepPoint,
        column: AttackVerdicts,
        clean: AttackVerdicts,
        mine: np.ndarray,
        standing: np.ndarray,
        stages: int,
    ) -> None:
        self._display, self._point, self._column, self._clean = display, point, column, clean
        self._mine, self._standing, self._stages = mine, standing, stages
        self._index = self._done = self._todo = -1

    def see(self, progress: Progress) -> None:
        """Report the examples that have just finished a stage of the attack."""
        if progress.number != self._index:
            self._index, self._done = progress.number, 0
            stage = progress.stage
            waiting = self._standing & self._column.waiting(self._index, stage.attack.minimal)
            # Those of this batch are through already.
            self._todo = int(waiting.sum()) + len(progress.found.rows)
            several = f" {stage.member} {self._index + 1}/{self._stages}" * (self._stages > 1)
            of_what = ["targets reached"] * (self._point.attack.target is not None)
            self._display.judging(f"{self._point.label}{several}", self._todo, *of_what)
        self._done += len(progress.found.rows)
        if self._point.attack.target is not None:
            known = self._standing & (self._column.arrays["stages"] > 0)
            found = reached(self._point, self._column)[known]
            self._display.judged(self._done, float(found.mean(dtype=float)))
            return
        known = self._column.broken | (self._column.arrays["stages"] > 0)
        share = robust_share(self._point, self._column, self._clean)
        share = np.where(known, share, self._clean.arrays["share"])
        self._display.judged(self._done, float(share[self._mine].mean(dtype=float)))
