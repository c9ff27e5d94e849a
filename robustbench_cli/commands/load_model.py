"""The model of an evaluation: a training run's, or one of the user's own."""

from dataclasses import dataclass, replace
from pathlib import Path

from robustbench_cli.audit._probe import copier
from robustbench_cli.commands import components
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import EvalConfig, spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.data.shape import shape_of
from robustbench_cli.defenses import Recipe
from robustbench_cli.models import MODELS, Classifier
from robustbench_cli.models.foreign import load_foreign
from robustbench_cli.models.weights import digest, load_weights
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Checkpoint
from robustbench_cli.runs.settings import DamagedRecord


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The options of the command line that name the model."""

    run: str | None = None
    checkpoint: str | None = None
    model: str | None = None
    weights: Path | None = None
    dataset: str | None = None


def find_model(choice: Choice, workspace: Workspace) -> tuple[Subject, ConfigTable]:
    """The model, and the configuration that an evaluation of it starts from.

    Raises:
        UserError: no such run or model, or weights that are damaged or do not fit.
    """
    if choice.model is None:
        if choice.weights is not None:
            raise UserError("--weights goes with --model; a run has weights of its own")
        return _from_run(folders.find_run(choice.run, workspace.out, "train"), choice.checkpoint)
    if choice.run is not None:
        raise UserError("--run and --model name two models; give one of them")
    if choice.checkpoint is not None:
        raise UserError("--checkpoint goes with --run; a model has its --weights")
    return _foreign(choice.model, choice, workspace)


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


def deployed(subject: Subject, config: EvalConfig) -> Subject:
    """The same weights in the trim that an evaluation asks for, with what is to be said of that."""
    if not config.defense:
        return subject
    recipe = Recipe.build(specs_of(config.defense))
    recipe.deploy(subject.model)  # type: ignore[arg-type]
    said = [text for part in recipe.parts if part.deployed for text in part.warnings()]
    return replace(subject, notes=(*subject.notes, *said))


def _foreign(text: str, choice: Choice, workspace: Workspace) -> tuple[Subject, ConfigTable]:
    if choice.dataset is None:
        raise UserError("--model needs --dataset: say on which images to attack it")
    dataset_table = components.component_table("dataset", choice.dataset)
    dataset = DATASETS.build(spec_of(dataset_table))
    base: ConfigTable = {"dataset": dataset_table, "defense": {}}
    if ".py:" in text or text.endswith(".py"):
        model = load_foreign(text, choice.weights)
        # The file decides what the tensors do, the tensors whether it is the same net again.
        source = records.sha256(Path(text.rpartition(":")[0]).expanduser())
        known = f"{digest(model)}+{source}"
        # A copy in memory would share what the file keeps in globals: it is run again.
        fresh = copier(model, lambda: load_foreign(text, choice.weights))
        subject = Subject(model=model, name=text, weights=known, copy=fresh)
        return subject, base | {"model": {"name": text}}
    table = components.component_table("model", text)
    if choice.weights is None:
        if not MODELS.accepts(table["name"], "pretrained"):
            raise UserError(f"--model {text} has no weights of its own: add --weights FILE")
        table |= {"pretrained": True, "new_head": False}
    config = MODELS.build(spec_of(table))
    # Channel statistics are part of a registered model; its weights file holds them, too.
    shape = shape_of(dataset, dataset.load("train", workspace.data_dir))
    network = config.build(shape)
    if choice.weights is not None:
        config.read(network, choice.weights)
    described = MODELS.describe(config)
    return Subject(model=network, name=text, weights=digest(network)), base | {"model": described}
