"""Attacks on the examples of an evaluation: a column of verdicts each, kept in its journal."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbench_cli.attacks import Stage
from robustbench_cli.commands.attack_progress import AttackProgress
from robustbench_cli.commands.attack_summary import REPORTED, fill_unattacked
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.fits import Fits
from robustbench_cli.commands.sweep import SweepPoint, inherit
from robustbench_cli.commands.targeted import TARGET
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.evaluation.sampled_tail import MARGIN_BEFORE, run_sampled
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress, clean, run_stages
from robustbench_cli.evaluation.tail_sampling import TailRule
from robustbench_cli.evaluation.targets import (
    LEFT_OUT,
    chosen_targets,
    note_on_targets,
    passes_to_choose,
    towards,
)
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.report.columns import CLEAN

IMAGES = "images"
"""The name, among the arrays of a column, of the images that an attack ended with."""


@dataclass(frozen=True, kw_only=True)
class AttackColumns:
    """Runs attacks on the examples of an evaluation and keeps their verdicts in its journal."""

    data: Split
    classes: int
    shard: Shard
    journal: Journal
    display: Display
    context: EvalContext
    exact: SearchModel
    """The model as it is, for stages that a faster one will not do for."""
    fits: Fits | None = None
    """Fits attacks to training images; None: there are none."""
    keeps_images: bool = False
    """Whether the journal keeps the images that attacks find, too."""
    tail: TailRule | None = None
    """How exactly the tail of a series is to be known (see ``sampled_tail``); None: every member
    sees all of what stands."""

    def judge_clean(self, verifier: Verifier) -> AttackVerdicts:
        """Return the verdicts on the images as they are.

        An image that a budget left out is pending, and counts as right until it is classified.
        """
        (column, _), allowance = self.journal.column("0"), self.context.allowance
        allowance.count(column)
        mine = self.shard.mine(len(self.data)) & (column.arrays["stages"] == 0)
        self.display.judging(CLEAN, int(mine.sum()), "accuracy")
        done, context = 0, replace(self.context, verifier=verifier)
        rows = torch.from_numpy(mine.nonzero()[0]).to(self.data.y.device)
        for block in allowance.blocks(rows, 1):
            for found in clean(context, block):
                column.put(0, found, minimal=False)
                self.journal.moved("0", column, found.rows.numpy())
                done += len(found.rows)
                judged = column.arrays["stages"] > 0
                self.display.judged(done, float(column.arrays["share"][judged].mean(dtype=float)))
        self.journal.flush("0", column)
        self.shard.merge_rows(column.arrays, len(self.data))
        column.leave(0, mine & (column.arrays["stages"] == 0), minimal=False)
        column.arrays["share"][column.undecided] = 1
        return column

    def fill(
        self,
        name: str,
        point: SweepPoint,
        clean: AttackVerdicts,
        *,
        weaker: AttackVerdicts | None = None,
        among: np.ndarray | None = None,
        context: EvalContext | None = None,
        watch: Callable[[Progress], None] = lambda _: None,
    ) -> tuple[AttackVerdicts, float]:
        """Return the verdicts under one attack, and the seconds they took.

        Args:
            name: of the column in the journal, which may hold a part of it already.
            point: the attack, and its threat.
            clean: the verdicts on the clean images.
            weaker: the verdicts under a smaller radius: what is broken there is broken here.
            among: the examples to attack, a mask (N), of those that are right; None: all of them.
            context: another one to attack in, with another model to craft images on.
            watch: called with the results as they come.
        """
        exact = self.exact if context is None else context.search_model
        context = context or self.context
        stages, target = point.attack.stages(point.threat, self.classes), point.attack.target
        column, right = AttackVerdicts.empty(len(self.data)), clean.arrays["share"] > 0
        if self.keeps_images:
            column.arrays[IMAGES] = self.data.images(slice(None)).cpu().numpy()
        for told in point.attack.reports:
            column.arrays[f"{REPORTED}{told}"] = np.full(len(self.data), np.nan, np.float32)
        if self.tail is not None:
            column.arrays[MARGIN_BEFORE] = np.full(len(self.data), np.nan, np.float32)
        seconds = self.journal.recall(name, column)
        context.allowance.count(column)
        if weaker is not None:
            inherit(column, weaker)
        mine = self.shard.mine(len(self.data))
        # A distance is wanted whatever the radius, and the sweep's other points read it off here.
        standing = mine & right & (point.eps != 0 or point.attack.minimal)
        standing = standing if among is None else standing & among
        context = replace(context, threat=replace(context.threat, eps=point.threat.eps))
        if self.fits is not None:
            context = replace(context, fit=self.fits.of_column(name))
        if target is not None:
            targets = chosen_targets(target, context, standing, self.classes)
            # What was judged before an interruption has been charged already.
            fresh = standing & (column.arrays["stages"] == 0)
            column.arrays["forwards"][fresh] += passes_to_choose(target)
            if note := note_on_targets(target, context):
                context.note(note)
            column.arrays[TARGET], standing = targets, targets != LEFT_OUT
            context = towards(context, targets)
        self.journal.started()
        shown = AttackProgress(self.display, point, column, clean, mine, standing, len(stages))
        for progress in self._run(point, stages, column, standing, context, exact):
            watch(progress)
            best = progress.found.rows.numpy()[progress.kept]
            for at, told in enumerate(point.attack.reports):
                of_best = progress.found.diagnostics[progress.kept][:, at]
                column.arrays[f"{REPORTED}{told}"][best] = of_best.float().numpy()
            if self.keeps_images:
                column.arrays[IMAGES][best] = progress.found.x[progress.kept].float().cpu().numpy()
            self.journal.moved(name, column, progress.found.rows.numpy())
            shown.see(progress)
        self.journal.flush(name, column)
        seconds += self.journal.spent
        fill_unattacked(column, right, clean, self.data.y.cpu().numpy())
        column.arrays["prediction"][clean.undecided] = -1
        if target is not None:  # what is left out has not reached it
            column.arrays["share"][column.arrays[TARGET] == LEFT_OUT] = 1
        return column, self.shard.merge_rows(column.arrays, len(self.data), seconds)

    def _run(
        self,
        point: SweepPoint,
        stages: list[Stage],
        column: AttackVerdicts,
        standing: np.ndarray,
        context: EvalContext,
        exact: SearchModel,
    ) -> Iterator[Progress]:
        """Run the stages of an attack, the last ones on a part of what stands where asked for."""
        most = point.attack.first_members(stages)
        if most is None or self.tail is None:
            return run_stages(stages, column, standing, context, exact)
        return run_sampled(stages, most, column, standing, context, exact, self.tail)
