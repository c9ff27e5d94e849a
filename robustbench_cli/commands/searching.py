"""The model that the attacks of an evaluation search on: the same in all its processes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from robustbench_cli.audit._budget import PER_SECOND
from robustbench_cli.commands.checking import Checking
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.search_choice import PassesAhead, chosen_search_model
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.runs.recorder import Recorder


def searched_model(
    model: nn.Module,
    todo: Sequence[SweepPoint],
    data: Split,
    request: EvalRequest,
    checking: Checking,
    shard: Shard,
    recorder: Recorder,
    note: Callable[[str], None],
) -> SearchModel:
    """Return the model to search on; note what could not be made faster.

    The record says what was chosen, so that an evaluation that is taken up goes on with it, and
    the main process chooses for the others.  Under a budget models are timed only if it is long
    enough to earn that.
    """
    stages = [
        stage for each in todo for stage in each.attack.stages(each.threat, len(data.classes))
    ]
    ahead = PassesAhead.of(stages, int(shard.mine(len(data)).sum()), request.config.batch_size)
    if request.budget is not None:
        most = request.budget.timed_passes(PER_SECOND / checking.flops) / ahead.batch
        ahead = replace(ahead, passes=min(ahead.passes, most))
    choose = partial(chosen_search_model, model, data, ahead, random=checking.random)
    before = recorder.run.search
    if shard.world > 1:  # in the same words as the main process, which measures the times
        before = shard.broadcast_from_main(lambda: choose(before=before)[0].about)
    search, given_up = choose(before=before)
    for text in given_up:
        note(text)
    if todo:
        recorder.update(search=search.about)
    return search
