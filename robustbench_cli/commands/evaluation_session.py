"""One process's part of an evaluation: its attacks, its checks, its certificates."""

import numpy as np

from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.attack_summary import example_arrays
from robustbench_cli.commands.budgeted import (
    check_budgeted,
    spending,
    with_progress,
)
from robustbench_cli.commands.certify import Certifying, check_certificates
from robustbench_cli.commands.checking import Checking
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.finished_evaluation import ImageCallback
from robustbench_cli.commands.fits import Fits
from robustbench_cli.commands.rejection import clean_figures
from robustbench_cli.commands.searching import searched_model
from robustbench_cli.commands.sweep import SweepPoint, cut
from robustbench_cli.commands.widening import intervals
from robustbench_cli.commands.within import check_not_random, tail_rule, with_sample
from robustbench_cli.commands.worst_case import worst_case_figures
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation import search_model
from robustbench_cli.evaluation.budget import allowance_of
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs.recorder import Recorder


class EvaluationSession:
    """One process's part of an evaluation: its share of the examples, under each attack."""

    def __init__(
        self,
        request: EvalRequest,
        todo: list[SweepPoint],
        data: Split,
        test: Split,
        threat: Threat,
        shard: Shard,
        recorder: Recorder,
        display: Display,
        checking: Checking,
    ) -> None:
        self.config, self.data, self.shard = request.config, data, shard
        self.journal = Journal(recorder.folder, len(data))
        self._recorder, self._display, self._checking = recorder, display, checking
        self._labels = data.y.cpu().numpy()
        checking.before()
        check_not_random(self.config, checking.random)
        check_budgeted(request.budget, {}, self.config.threat, random=checking.random)
        self._budget, self._look = request.budget, request.look
        self._tail = tail_rule(request, {point.label: point.attack for point in todo}, len(data))
        model = checking.judged_model()
        if model is not request.subject.model:
            self.note("every batch is shown to a fresh copy of the model")
        self._verifier = Verifier(model, checking.random)
        on = request.source.model if request.source else model
        self._itself = self._search = search_model.exact_search_model(
            on, differentiable=checking.subject.differentiable
        )
        # Tracing runs a model's own code: what that remembers of it would be in later answers.
        traceable = request.source is None and not checking.coupled and self._itself.differentiable
        if self.config.precision == "auto" and traceable:
            self._search = searched_model(
                model, todo, data, request, checking, shard, recorder, self.note
            )
        self._context = EvalContext(
            data=data,
            threat=threat,
            verifier=Verifier(on, self._verifier.random and on is model),
            search_model=self._search,
            noise=Noise(self.config.seed, data.ids),
            slots=self.config.batch_size,
            # An image for another model is the better the surer this one is wrong about it.
            early_stop=request.early_stop and request.source is None,
            target=self._verifier if request.source else None,
            others=test,
            classes=len(data.classes),
            allowance=allowance_of(self._budget, recorder.run.budget),
            note=self.note,
        )
        self._certifying = Certifying(
            config=self.config,
            model=model,
            data=data,
            shard=shard,
            journal=self.journal,
            recorder=recorder,
            display=display,
        )
        if model is not request.subject.model:
            check_certificates(self.config, model, data)
        self._attacks = AttackColumns(
            data=data,
            classes=len(data.classes),
            shard=shard,
            journal=self.journal,
            display=display,
            context=self._context,
            exact=self._itself,
            fits=Fits.of(request, recorder.folder, shard, display),
            keeps_images=request.battery is not None,
            tail=self._tail,
        )
        # A longer run gives the verdict of a shorter one, its beginning, only if neither a
        # randomised model nor a second search nor another model has a say in it.
        exact = not (self._verifier.random or self._search.uncertain_margin)
        self._prefixes = exact and self._context.early_stop

    def run_attacks(self, todo: list[SweepPoint], keep: ImageCallback) -> dict[str, AttackVerdicts]:
        """Return the verdicts on the clean images and under every attack, by label.

        The record is written after each attack; certificates follow.
        """
        columns: dict[str, AttackVerdicts] = {}
        found = AttackOutcomes(classes=len(self.data.classes), rejects_as=self._verifier.rejects_as)
        with spending(self._budget, self._context.allowance, columns, self._recorder):
            clean_ = columns[CLEAN] = self._attacks.judge_clean(self._verifier)
            of_clean = clean_figures(self._verifier.model, self.config.reject, clean_)
            self._recorder.update(**of_clean)
            for point in todo:
                column, seconds = self._column(point, columns, keep)
                columns[point.label] = column
                found.add(point, column, clean_, seconds)
                with_sample(found, point, column, clean_, self._context, self.config, self._tail)
                with_progress(found, point, column, clean_, self._budget)
                self._recorder.update(**found.changes, search=self._search.about)
        if self._look:
            seen = intervals(self._look, self.config, todo, columns, found.attacks)
            self._recorder.update(widened=seen)
            if seen.goes_on:  # the last look is checked, and certified
                self._close(todo, columns, {})
                return columns
        done = self._checking.conclude(columns, clean_, found, self._attacks)
        self._recorder.update(**done)
        proven = self._certifying.run(self.note)
        self._certifying.compare(proven, columns, self.note)
        self._close(todo, columns, proven)
        return columns

    def note(self, text: str) -> None:
        """Show a note and add it to the record, once."""
        if text not in self._recorder.run.notes:
            self._display.note(text)
            self._recorder.update(notes=[*self._recorder.run.notes, text])

    def _column(
        self,
        point: SweepPoint,
        columns: dict[str, AttackVerdicts],
        keep: ImageCallback,
    ) -> tuple[AttackVerdicts, float]:
        """Return the verdicts under one attack, and the seconds they took."""
        name = str(len(columns))
        clean_, *filled = columns.values()
        if point.within is not None and (point.until is None or self._prefixes):
            column = AttackVerdicts.empty(len(self.data))
            cut(column, filled[point.within], self._labels, point.until, point.attack.draws)
            return column, 0.0
        weaker = None if point.weaker is None else filled[point.weaker]

        def watch(progress: Progress) -> None:
            keep(point.label, progress)
            if point.attack.target is None:
                self._checking.watch(progress, self._labels)

        return self._attacks.fill(name, point, clean_, weaker=weaker, watch=watch)

    def _close(
        self,
        todo: list[SweepPoint],
        columns: dict[str, AttackVerdicts],
        proven: dict[str, np.ndarray],
    ) -> None:
        run_ = self._recorder.run
        changes = worst_case_figures(todo, columns, columns[CLEAN], run_.attacks)
        if self.shard.is_main:
            arrays = example_arrays(columns, self.data) | proven
            changes["examples"] = self.journal.close(arrays)
        parts = run_.attacks.values(), run_.targeted.values(), run_.certificates.values()
        changes["seconds"] = sum(each.seconds for part in parts for each in part)
        self._recorder.update(**changes)
