"""The model of an evaluation: a training run's, or one of the user's own."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from robustbench_cli.commands import components
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.given_model import ModelOptions, given_subject
from robustbench_cli.commands.metric_config import refuse_metric
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import EvalConfig, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.defenses import Recipe
from robustbench_cli.models import Classifier
from robustbench_cli.models.weights import load_weights
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Checkpoint
from robustbench_cli.runs.settings import DamagedRecord
from robustbench_cli.training.checkpoint import load_tensors
from robustbench_cli.training.checkpointing import AIDS


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The options of the command line that name the model."""

    run: str | None = None
    checkpoint: str | None = None
    given: ModelOptions | None = None
    """A model of the user's own; None: a run's."""
    dataset: str | None = None


def find_model(choice: Choice, workspace: Workspace) -> tuple[Subject, ConfigTable]:
    """The model, and the configuration that an evaluation of it starts from.

    Raises:
        UserError: no such run or model, or weights that are damaged or do not fit.
    """
    if choice.given is None:
        return _from_run(folders.find_run(choice.run, workspace.out, "train"), choice.checkpoint)
    if choice.run is not None:
        raise UserError("--run and --model name two models; give one of them")
    if choice.checkpoint is not None:
        raise UserError("--checkpoint goes with --run; a model has its --weights")
    return given_subject(choice.given, choice.dataset, workspace.data_dir)


def _from_run(folder: Path, rule: str | None) -> tuple[Subject, ConfigTable]:
    run = records.read(folder)
    if run.kind != "train":
        raise UserError(f"run {run.id!r} is of kind {run.kind!r}; --run takes a training run")
    kept = weights_of(run, rule)
    unfinished = (
        f"run {run.id} has not finished ({run.status}): these are its weights after epoch "
        f"{kept.epoch}"
    )
    subject = Subject(
        model=restore(run, folder, kept),
        name=run.subject,
        weights=kept.sha256,
        parent=run.id,
        kept=kept,
        seed=run.seed,
        notes=(unfinished,) * (run.status != "ok"),
    )
    settings = run.settings
    base: ConfigTable = {"dataset": settings.dataset, "model": settings.model}
    base |= {"defense": settings.defense}
    # A mask is asked for, never inherited: what was trained under one may fall without it.
    threat = {"norm": settings.threat.norm, "eps": settings.threat.eps}
    return subject, base | {"threat": threat}


def kept_beside(choice: Choice, results: Path) -> dict[str, Tensor]:
    """The tensors that a training run's defense kept beside its weights.

    Empty where it kept none, and for a model of the user's own.

    Raises:
        UserError: there is no such run, or the file is damaged.
    """
    if choice.given is not None:
        return {}
    path = folders.find_run(choice.run, results, "train") / AIDS
    return load_tensors(path)[0] if path.is_file() else {}


def weights_of(run: records.Run, rule: str | None = None) -> Checkpoint:
    """The weights that a training run keeps by this rule; None: by the rule it was given.

    Raises:
        UserError: there are none.
    """
    if run.checkpoint is None:
        raise UserError(f"run {run.id!r} has kept no weights yet (status: {run.status})")
    known = {each.rule: each for each in (run.checkpoint, run.last) if each}
    if rule not in {None, *known}:
        raise UserError(f"--checkpoint {rule}: run {run.id!r} keeps {' and '.join(known)}")
    return known[rule] if rule else run.checkpoint


def restore(run: records.Run, folder: Path, kept: Checkpoint | None = None) -> Classifier:
    """The network that a training run kept, in evaluation trim.

    Args:
        kept: the weights to load; None: those that its own rule keeps.

    Raises:
        UserError: the checkpoint is missing, damaged, not the recorded one, or of another
            architecture.
    """
    refuse_metric(run.config, run.id)
    path = checked_file(run, folder, kept)
    try:
        model = components.build_model(
            {"model": run.settings.model, "defense": run.settings.defense},
            components.shape_from_record(run.settings.shape),
        )
        recipe = Recipe.build(specs_of(run.settings.defense))
    except DamagedRecord as error:
        raise DamagedRecord(str(folder / "run.json"), error.what) from None
    except UserError as error:
        raise DamagedRecord(str(folder / "run.json"), str(error)) from None
    load_weights(model, path)
    recipe.deploy(model)
    return model


def checked_file(run: records.Run, folder: Path, kept: Checkpoint | None = None) -> Path:
    """Return the file of a run's weights.

    Args:
        kept: the weights; None: those that the run's own rule keeps.

    Raises:
        UserError: it is missing, damaged, or not the recorded one.
    """
    kept = kept or weights_of(run)
    path = folder / kept.file
    if not path.is_file():
        raise UserError(f"checkpoint {str(path)!r} is missing: train the run again")
    if records.sha256(path) != kept.sha256:
        if run.status != "ok":  # killed between writing the weights and recording their hash
            raise UserError(
                f"run {run.id!r} was interrupted while it kept its weights: resume it, with "
                f"advbench train --resume {run.id}"
            )
        raise UserError(
            f"checkpoint {str(path)!r} is damaged or was replaced: its sha256 is not the recorded "
            "one"
        )
    return path


def deployed(subject: Subject, config: EvalConfig) -> Subject:
    """The same weights in the trim that an evaluation asks for, with what is to be said of that."""
    if not config.defense:
        return subject
    recipe = Recipe.build(specs_of(config.defense))
    recipe.deploy(subject.model)  # type: ignore[arg-type]
    said = [text for part in recipe.parts if part.deployed for text in part.warnings()]
    return replace(subject, notes=(*subject.notes, *said))
