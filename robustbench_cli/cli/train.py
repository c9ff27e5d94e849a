"""``advbench train``: train one model with one defense, or go on with an interrupted run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError


def train_command(
    defense: Annotated[
        str | None,
        typer.Argument(
            help="One objective and any modifiers: trades, trades:beta=1, trades+awp+he.",
            autocompletion=completion.defenses,
        ),
    ] = None,
    dataset: options.DatasetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="small-cnn, preact-resnet-18, wrn-28-10, torchvision:resnet18, ...",
            autocompletion=completion.models,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A published recipe by name, or a .toml file; flags change single settings.",
            autocompletion=completion.presets,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classify (default), or metric: embeddings; the defense is then none, one-role, "
            "est, act or hm."
        ),
    ] = None,
    split_classes: Annotated[
        bool,
        typer.Option(
            "--split-classes",
            help="Metric: train on the first half of the classes, retrieve among the others.",
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Passes through the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.")] = None,
    lr: Annotated[str | None, typer.Option(help="Highest learning rate.")] = None,
    norm: options.NormOption = None,
    eps: options.EpsOption = None,
    mask: options.MaskOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    precision: Annotated[
        str | None, typer.Option(help="float32, bf16, or auto (bf16 on GPUs made for it).")
    ] = None,
    data_dir: options.DataDirOption = Path("data"),
    out: options.OutOption = Path("results"),
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from this run's weights; a last layer that does not fit is made anew.",
            autocompletion=completion.runs,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A trained run to learn from, by id or path; repeat for a second one.",
            autocompletion=completion.runs,
        ),
    ] = None,
    extra_data: Annotated[
        str | None,
        typer.Option(
            help="A second data set that fills half of each batch (train.extra_share).",
            autocompletion=completion.datasets,
        ),
    ] = None,
    labeller: Annotated[
        str | None,
        typer.Option(
            help="The run whose predictions label the extra data.",
            autocompletion=completion.runs,
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="The same code in seconds: a few digits, a few epochs."),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Follow the training there, too: tensorboard, or wandb:project=NAME,mode=offline; "
            "repeat.",
            autocompletion=completion.logs,
        ),
    ] = None,
    name: options.NameOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with this interrupted run, with the settings it was started with.",
            autocompletion=completion.runs,
        ),
    ] = None,
    set_: options.SetOption = None,
    json_: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Train a model with a defense; print the folder that holds it.

    Settings come from the data set's defaults, then --preset, then the flags.

    \b
    advbench train trades                                digits, in seconds
    advbench train pgd-at+awp --dataset cifar10 --model wrn-28-10
    advbench train --preset trades-table5-mnist --data-dir ~/data
    advbench train --preset awp-table2-trades-awp --smoke     does it run?
    advbench train trades --log tensorboard
    advbench train --task metric est                     embeddings, for advbench retrieve
    """
    from robustbench_cli.cli.logged_display import logged_display
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.components import component_table
    from robustbench_cli.commands.parent_runs import ParentNames
    from robustbench_cli.commands.training_task import resume_run, training_task
    from robustbench_cli.core.registry import Spec
    from robustbench_cli.training.logs import LOGS

    logs = [LOGS.build(Spec.parse(text)) for text in log or []]
    for each in logs:
        each.check()
    named = ParentNames(init=init, labeller=labeller, teachers=tuple(teacher or ()))
    workspace = Workspace(out=out, data_dir=data_dir, device=device)
    chosen = training_task(options.given(task=task, preset=preset))
    typed = options.given(
        task=task,
        defense=chosen.defense(defense) if defense is not None else None,
        dataset=component_table("dataset", dataset) if dataset is not None else None,
        model=component_table("model", model) if model is not None else None,
        extra=component_table("extra", extra_data) if extra_data is not None else None,
        train=options.given(epochs=epochs, batch_size=batch_size, lr=lr) or None,
        threat=options.given(norm=norm, eps=eps, mask=mask) or None,
        embedding={"split_classes": True} if split_classes else None,
        parents=named.parents(out) or None,
        seed=seed,
        precision=precision,
        preset=preset,
    )
    if resume is not None:
        if typed or set_ or name or smoke:
            raise UserError(
                "--resume goes on with the settings of the run; other settings cannot be given"
            )
        how = _how_to_resume(resume, workspace)
        with logged_display(progress_display(quiet), logs) as display, options.interruptible(how):
            folder = resume_run(resume, workspace, display)
        options.print_result(folder, as_json=json_)
        return
    config = chosen.configure(typed, set_ or [], smoke=smoke)
    run_id = name or chosen.new_id(config)
    how, record = _how_to_resume(run_id, workspace), out / run_id / "run.json"
    with (
        logged_display(progress_display(quiet), logs) as display,
        options.interruptible(how, record),
    ):
        if smoke and (substitutes := chosen.substitutes(typed)):
            display.note(f"--smoke: {', '.join(substitutes)}")
        folder = chosen.start(config, workspace, display, command=sys.argv[1:], run_id=run_id)
    options.print_result(folder, as_json=json_)


def _how_to_resume(run: str, workspace: Workspace) -> str:
    """Return how to go on with an interrupted run, with the folders that are not the defaults."""
    defaults = {"out": Path("results"), "data-dir": Path("data")}
    given = {"out": workspace.out, "data-dir": workspace.data_dir}
    more = "".join(f" --{key} {path}" for key, path in given.items() if path != defaults[key])
    return f"what is done is kept. Go on with: advbench train --resume {run}{more}"
