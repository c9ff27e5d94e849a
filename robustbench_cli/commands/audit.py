"""``advbench audit``: the claimed attack, then a battery of attacks and measurements against it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from robustbench_cli.commands.audit_battery import AuditBattery
from robustbench_cli.commands.audit_claim import grade_claim
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.evaluate import evaluate_shard
from robustbench_cli.commands.finished_evaluation import FinishedEvaluation
from robustbench_cli.commands.targeted import refuse_targets
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.distributed import env
from robustbench_cli.distributed.group import ALONE
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.runs import records

SHOWN = 5
"""Images on the page that only another attack than the claimed one broke."""


def run_audit(
    request: EvalRequest, display: Display, *, claim: float | None = None, thorough: bool = False
) -> Path:
    """Audit one attack's number on one model; return the folder of the record.

    An audit that was interrupted goes on where it stopped, as an evaluation does.

    Args:
        request: with exactly one attack, the claimed one.
        claim: the claimed robust accuracy, as a share in [0, 1].
        thorough: use all images wherever costly checks would take some of them.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: a verdict is not possible; what was judged is kept.
    """
    if len(request.config.attack) != 1:
        raise UserError(f"an audit grades one attack, {len(request.config.attack)} are given")
    refuse_targets(request.config, "an audit grades a robust accuracy")
    if env.world() > 1:
        raise UserError("an audit runs in one process: start it without torchrun")
    if claim is not None and not 0 <= claim <= 1:
        raise UserError(f"--claim {100 * claim:g}: give an accuracy in per cent, from 0 to 100")
    battery = AuditBattery(request.config, request.workspace, thorough)

    def then(judged: FinishedEvaluation) -> None:
        _conclude(judged, battery, claim)

    request = replace(request, kind="audit", battery=battery)
    return evaluate_shard(request, ALONE, display, then=then)


def _conclude(judged: FinishedEvaluation, battery: AuditBattery, claim: float | None) -> None:
    """Grade the claim, and put what the battery found into the record."""
    recorder, result = judged.recorder, battery.result
    if claim is not None:
        graded = grade_claim(recorder.run, claim, battery.own_shares, battery.other_shares)
        result = replace(result, claim=graded)
    curves = battery.curves()
    examples = save_examples(judged.folder, battery, judged.data)
    spent = recorder.run.seconds + sum(each.seconds for each in result.attacks)
    recorder.update(audit=replace(result, curves=curves, examples=examples), seconds=spent)


def save_examples(folder: Path, battery: AuditBattery, data: Split) -> dict[str, str]:
    """Write ``audit.npz`` with images that only another attack broke; return name and sha256.

    It holds x, x_adv (B, C, H, W) in [0, 1], label, prediction, index (the position in the test
    split) and right (B: in which share of its draws a randomised model is right, else 0), the name
    of the attack and the names of the classes.  Nothing is written where no other attack broke
    more.
    """
    label, broken = battery.strongest
    rows = broken.nonzero()[0][:SHOWN]
    if not len(rows):
        return {}
    x_adv = torch.from_numpy(battery.images[label][rows])
    where = data.y.device
    prediction = battery.verifier.logits(x_adv.to(where)).argmax(1)
    path = write_arrays(
        folder / "audit.npz",
        {
            "x": data.images(torch.from_numpy(rows).to(where)).cpu().numpy(),
            "x_adv": x_adv.numpy(),
            "label": data.y.cpu().numpy()[rows],
            "prediction": prediction.cpu().numpy(),
            "index": data.ids.cpu().numpy()[rows],
            "right": battery.other_shares[label][rows],
            "attack": np.array(label),
            "names": np.array(data.classes),
        },
    )
    return records.filed(path)
