"""``advbench eval`` and ``advbench attack``: a model under attacks, one folder per evaluation."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from robustbench_cli.audit._probe import copier
from robustbench_cli.commands import devices
from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.attack_summary import example_arrays
from robustbench_cli.commands.budgeted import (
    check_budget,
    check_budgeted,
    spending,
    with_progress,
)
from robustbench_cli.commands.certify import Certifying, check_certificates
from robustbench_cli.commands.checking import Checking, start_checking
from robustbench_cli.commands.defending import with_input_defenses
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import build_attacks
from robustbench_cli.commands.eval_request import EvalRequest, new_record
from robustbench_cli.commands.fits import Fits
from robustbench_cli.commands.given_model import fit_to_data
from robustbench_cli.commands.no_gradient import with_possible_gradients
from robustbench_cli.commands.rejection import clean_figures, with_rejection
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.commands.searching import searched_model
from robustbench_cli.commands.subset import counted_images, test_images
from robustbench_cli.commands.sweep import SweepPoint, cut, points
from robustbench_cli.commands.targeted import check_images_to_take
from robustbench_cli.commands.within import check_not_random, tolerance_of, with_sample
from robustbench_cli.commands.worst_case import worst_case_figures
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard, join_processes, local
from robustbench_cli.evaluation import mask_binding, search_model
from robustbench_cli.evaluation.budget import allowance_of
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs.recorder import Recorder, recording

ImageCallback = Callable[[str, Progress], None]
"""Called with an attack's label and the images that it has just found."""


@dataclass(frozen=True, kw_only=True)
class FinishedEvaluation:
    """The verdicts of an evaluation while they are still in memory."""

    folder: Path
    data: Split
    columns: dict[str, AttackVerdicts]
    recorder: Recorder


def run_evaluation(
    request: EvalRequest,
    display: Display,
    *,
    keep: ImageCallback | None = None,
    then: Callable[[FinishedEvaluation], None] | None = None,
) -> Path:
    """Judge every example under every attack; return the folder of the evaluation.

    An unfinished evaluation of the same weights with the same settings is taken up again where
    it stopped, unless its images are kept (``keep``), which no journal holds.

    Args:
        keep: called with the images that attacks find, as they find them.
        then: called at the end, before the record is closed, in the main process only.

    Raises:
        UserError: something asked for cannot be had, or the model answers clean images with NaN;
            no folder is left behind.  If it does so under attack, what was judged is kept.
        RunError: a verdict is not possible; what was judged is kept.
    """
    with join_processes(request.workspace.device) as shard:
        return evaluate_shard(request, shard, display, keep=keep, then=then)


def evaluate_shard(
    request: EvalRequest,
    shard: Shard,
    display: Display,
    *,
    keep: ImageCallback | None = None,
    then: Callable[[FinishedEvaluation], None] | None = None,
) -> Path:
    """Run one process's part of ``run_evaluation``: all of it where the process is alone."""
    check_budget(request.budget, request.config)
    where = devices.resolve_device(local(request.workspace.device))
    test = test_images(request, shard)
    chosen = counted_images(test, request.config)
    request = with_input_defenses(fit_to_data(request, test), test)
    request, data = with_rejection(request, chosen, where)
    config = request.config
    attacks = request.attacks or build_attacks(config, len(data.classes))
    config.threat.geometry.fitting(data.image_shape)
    todo = points(attacks, config)
    check_budgeted(request.budget, attacks, config.threat)
    check_images_to_take(attacks, config.threat, test.y, test.classes)
    for each in filter(None, (request.subject, request.source)):
        laid_out(each.model, where)
    request, differentiable = with_possible_gradients(request, attacks, data)
    subject, copy = request.subject, request.subject.copy or copier(request.subject.model)
    threat = mask_binding.bind_mask(config.threat, subject.model, data)
    with ExitStack() as stack:
        run_ = new_record(request, data, chosen, len(test), where)
        folder, run_, taken_up = shard.broadcast_from_main(
            lambda: open_run_folder(
                run_,
                request.workspace.out,
                request.name,
                display,
                budget=request.budget,
                fresh=keep is not None,
            )
        )
        if taken_up and shard.is_main:
            display.note(f"going on with {folder.name}")
        silent = not shard.is_main
        ends = partial(leaves_nothing, resumable=keep is None)
        recorder = stack.enter_context(recording(run_, folder, silent=silent, worthless=ends))
        stack.enter_context(shard.share_failure())
        for each in filter(None, (subject, request.source)):
            stack.enter_context(unchanged_model(each.model))
        check_certificates(config, subject.model, data)
        checking = start_checking(
            request, todo, data, threat, copy, shard, display.note, differentiable
        )
        session = _Session(request, todo, data, test, threat, shard, recorder, display, checking)
        for note in dict.fromkeys((*subject.notes, *data.notes, *chosen.notes)):
            session.note(note)
        columns = session.run_attacks(todo, keep or (lambda *_: None))
        if then and shard.is_main:
            then(FinishedEvaluation(folder=folder, data=data, columns=columns, recorder=recorder))
    if shard.is_main and not any(column.pending for column in columns.values()):
        session.journal.drop()
    return folder


class _Session:
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
        self._budget = request.budget
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
            tolerance=tolerance_of(self.config, len(data)),
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
                with_sample(found, point, column, clean_, self._context, self.config)
                with_progress(found, point, column, clean_, self._budget)
                self._recorder.update(**found.changes, search=self._search.about)
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
