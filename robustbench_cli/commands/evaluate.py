"""``advbench eval`` and ``advbench attack``: a model under attacks, one folder per evaluation."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from robustbench_cli.audit._probe import copier
from robustbench_cli.commands import devices
from robustbench_cli.commands.budgeted import (
    check_budget,
    check_budgeted,
)
from robustbench_cli.commands.certify import check_certificates
from robustbench_cli.commands.checking import start_checking
from robustbench_cli.commands.defending import with_input_defenses
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import build_attacks
from robustbench_cli.commands.eval_request import EvalRequest, new_record
from robustbench_cli.commands.evaluation_session import EvaluationSession
from robustbench_cli.commands.finished_evaluation import FinishedEvaluation, ImageCallback
from robustbench_cli.commands.given_model import fit_to_data
from robustbench_cli.commands.no_gradient import with_possible_gradients
from robustbench_cli.commands.rejection import with_rejection
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.commands.subset import counted_images, test_images
from robustbench_cli.commands.sweep import points
from robustbench_cli.commands.targeted import check_images_to_take
from robustbench_cli.commands.widening import check_widening, run_widened
from robustbench_cli.distributed.group import Shard, join_processes, local
from robustbench_cli.evaluation import mask_binding
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import goes_on


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
    check_widening(request)
    once = partial(_evaluate, shard=shard, display=display, keep=keep, then=then)
    return run_widened(request, shard, once) if request.config.widen else once(request)


def _evaluate(
    request: EvalRequest,
    *,
    shard: Shard,
    display: Display,
    keep: ImageCallback | None,
    then: Callable[[FinishedEvaluation], None] | None,
) -> Path:
    """Evaluate the images of a request, or take the look at them that it asks for."""
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
        if taken_up and shard.is_main and not (request.look and request.look.number):
            display.note(f"going on with {folder.name}")
        if request.look and request.look.was_taken(run_.widened):
            return folder
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
        session = EvaluationSession(
            request, todo, data, test, threat, shard, recorder, display, checking
        )
        for note in dict.fromkeys((*subject.notes, *data.notes, *chosen.notes)):
            session.note(note)
        columns = session.run_attacks(todo, keep or (lambda *_: None))
        if then and shard.is_main:
            then(FinishedEvaluation(folder=folder, data=data, columns=columns, recorder=recorder))
    if shard.is_main and not goes_on(recorder.run):
        session.journal.drop()
    return folder
