"""``advbench joint``: one perturbation per example against several domains at once."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustbench_cli.attacks import Stage
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.commands import devices
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.joint_config import (
    JointOptions,
    build_joint_attack,
    resolve_joint_config,
)
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.config.schema import JointConfig, as_recorded, spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.distributed import env
from robustbench_cli.evaluation import search_model
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.joint import (
    Groups,
    Joint,
    JointThreat,
    JointVerdicts,
    JointVerifier,
)
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.evaluation.rewritten_models import COMPARED_IMAGES
from robustbench_cli.evaluation.stages import clean, run_stages
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Domain, Outcome
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import Run
from robustbench_cli.transforms import TRANSFORMS

_KEPT = ("prediction", "margin", "norm", "step", "by", "forwards", "backwards", "weights")
"""The arrays of the attack in ``examples.npz``: (N), ``prediction`` and ``weights`` (N, K)."""


def run_joint(request: JointOptions, display: Display) -> Path:
    """Attack the test images, or groups of them; return the folder.

    An unfinished attack on the same domains with the same settings is taken up again where it
    stopped.

    Raises:
        UserError: something asked for cannot be had, or a model answers clean images with NaN; no
            folder is left behind.  If it does so under attack, what was judged is kept.
        RunError: a verdict is not possible; what was judged is kept.
    """
    if env.world() > 1:
        raise UserError("joint works in one process: run it without torchrun")
    subjects, config = resolve_joint_config(request)
    attack, where = build_joint_attack(config), devices.resolve_device(request.workspace.device)
    test = DATASETS.build(spec_of(config.dataset)).load("test", request.workspace.data_dir)
    data = _examples(config, test, where)
    model = _together(subjects, config, data, where, len(test.classes))
    about = _described(request, subjects, config, test, len(data.y), where)
    with ExitStack() as stack:
        folder, about, again = open_run_folder(about, request.workspace.out, request.name, display)
        if again:
            display.note(f"going on with {folder.name}")
        recorder = stack.enter_context(recording(about, folder, worthless=leaves_nothing))
        stack.enter_context(unchanged_model(model))
        journal = Journal(folder, len(data.y))
        ball = (JointThreat if config.images > 1 else Threat)(config.threat.norm, config.threat.eps)
        context = EvalContext(
            data=data,
            threat=ball,
            verifier=JointVerifier(model),
            # It checks after every pass which images are done, so the weights that are reported
            # are those of the last pass that counted.
            search_model=search_model.SearchModel(model=model),
            noise=Noise(config.seed, torch.arange(len(data.y), device=where)),
            slots=max(1, config.batch_size // config.images),
            note=display.note,
        )
        before, labels = _clean(context, journal), data.y.cpu().numpy()
        right = before.arrays["prediction"] == labels
        recorder.update(clean_accuracy=float(right.any(1).mean()))
        stages = attack.stages(ball, len(test.classes))
        after, seconds = _attacked(stages, before, context, journal, display)
        recorder.update(
            **_figures(config, right, after, labels, seconds),
            examples=journal.close(_arrays(config, before, after, labels)),
        )
    journal.drop()
    return folder


def _examples(config: JointConfig, test: Split, where: torch.device) -> Groups:
    n = config.n or len(test)
    if not config.images <= n <= len(test):
        raise UserError(
            f"--n {n}: the test split has {len(test)} examples, a group {config.images}"
        )
    views = len(config.runs) * len(config.transform)
    return Groups(test.only(slice(n)).to(where), config.images, views)


def _together(
    subjects: list[Subject], config: JointConfig, data: Groups, where: torch.device, classes: int
) -> Joint:
    """Return all models as one, which answers for all domains; a ``UserError`` names a bad one."""
    few = data.data.images(slice(COMPARED_IMAGES))
    for each in subjects:
        laid_out(each.model, where)
        check_model(each.model, few[:2], classes, called=f"run {each.parent!r}")
        with unchanged_model(each.model):
            if randomised(each.model, few):
                raise UserError(f"run {each.parent!r} is randomised: a joint attack asks once")
    transforms = [TRANSFORMS.build(spec) for spec in specs_of(config.transform)]
    return Joint([each.model for each in subjects], transforms)


def _described(
    request: JointOptions,
    subjects: list[Subject],
    config: JointConfig,
    test: Split,
    n: int,
    where: torch.device,
) -> Run:
    name = config.dataset["name"]
    made_up = folders.new_id("joint", name, config.seed)
    left_out = (config.n or len(test)) % config.images
    notes = [note for each in subjects for note in each.notes]
    notes += [f"{left_out} images are left out: they fill no group"] * bool(left_out)
    return Run(
        id=request.name or made_up,
        kind="joint",
        created=records.now(),
        command=request.command,
        config=records.as_json(as_recorded(config)),
        seed=config.seed,
        subject=", ".join(each.name for each in subjects),
        dataset={"name": name, "test": len(test), "test_sha256": test.fingerprint()},
        environment=devices.run_environment(where),
        search="float32",
        n=n,
        notes=notes,
    )


def _clean(context: EvalContext, journal: Journal) -> JointVerdicts:
    """Return the verdicts on the clean images."""
    answers = JointVerdicts.of(*context.data.y.shape)
    journal.recall("0", answers)
    rows = torch.from_numpy((answers.arrays["stages"] == 0).nonzero()[0])
    for found in clean(context, rows.to(context.data.y.device)):
        answers.put(0, found, minimal=False)
        journal.moved("0", answers, found.rows.numpy())
    journal.flush("0", answers)
    return answers


def _attacked(
    stages: list[Stage],
    before: JointVerdicts,
    context: EvalContext,
    journal: Journal,
    display: Display,
) -> tuple[JointVerdicts, float]:
    """Return the verdicts under the attack, and the seconds that they took."""
    answers = JointVerdicts.of(*context.data.y.shape)
    seconds = journal.recall("1", answers)
    standing = before.arrays["share"] > 0
    display.judging(stages[0].member, int((standing & answers.waiting(0, minimal=False)).sum()))
    journal.started()
    done = 0
    for progress in run_stages(stages, answers, standing, context, context.search_model):
        journal.moved("1", answers, progress.found.rows.numpy())
        done += len(progress.found.rows)
        display.judged(done, float((standing & ~answers.broken).mean()))
    journal.flush("1", answers)
    untouched = ~standing[:, None]
    np.copyto(answers.arrays["prediction"], before.arrays["prediction"], where=untouched)
    return answers, seconds + journal.spent


def _figures(
    config: JointConfig, right: np.ndarray, after: JointVerdicts, labels: np.ndarray, seconds: float
) -> dict[str, Any]:
    """Return the figures of the record; an example is robust if one domain is right about it."""
    a, names = after.arrays, config.domains
    held = a["prediction"] == labels
    stand = held.any(1)
    tried = a["stages"] > 0
    weights = a["weights"][tried if tried.any() else ...].mean(0)
    ((label, params),) = config.attack.items()
    outcome = Outcome(
        params=params,
        n=len(labels),
        correct=int(stand.sum()),
        robust_accuracy=float(stand.mean()),
        forwards=int(a["forwards"].sum()) * len(names),
        backwards=int(a["backwards"].sum()) * len(names),
        seconds=seconds,
    )
    domains = [
        Domain(
            name=name,
            clean_accuracy=float(right[:, i].mean()),
            robust_accuracy=float(held[:, i].mean()),
            weight=float(weights[i]),
        )
        for i, name in enumerate(names)
    ]
    return {
        "worst_case_accuracy": outcome.robust_accuracy,
        "attacks": {label: outcome},
        "domains": domains,
        "seconds": seconds,
    }


def _arrays(
    config: JointConfig, before: JointVerdicts, after: JointVerdicts, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of ``examples.npz``: labels and predictions (N, K), the rest (N)."""
    (label,) = config.attack
    return {
        "index": np.arange(len(labels), dtype=np.int32),
        "label": labels.astype(np.int32),
        f"{CLEAN}/prediction": before.arrays["prediction"],
        **{f"{label}/{key}": after.arrays[key] for key in _KEPT},
    }
