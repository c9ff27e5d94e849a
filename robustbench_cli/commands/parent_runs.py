"""The runs that a training run builds on: initial weights, teachers, and a labeller."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from robustbench_cli.commands import components
from robustbench_cli.commands.load_model import restore
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import TrainConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import UNLABELLED, Split
from robustbench_cli.defenses import Recipe
from robustbench_cli.models import Classifier, Shape
from robustbench_cli.models.layout import laid_out
from robustbench_cli.runs import folders, records

INIT, LABELLER, TEACHER = "init", "labeller", "teacher"
LABELLED_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class ParentNames:
    """The runs that the command line names, each by id or path."""

    init: str | None = None
    labeller: str | None = None
    teachers: tuple[str, ...] = ()

    def parents(self, out: Path) -> ConfigTable:
        """Return the runs by role, as a configuration keeps them: id or path, and sha256.

        Raises:
            UserError: there is no such run, or it has no weights yet.
        """
        roles = {INIT: self.init, LABELLER: self.labeller}
        roles |= {f"{TEACHER}{i or ''}": name for i, name in enumerate(self.teachers)}
        return {role: _identity(name, out) for role, name in roles.items() if name is not None}


def _identity(name: str, out: Path) -> dict[str, str]:
    folder = folders.find_run(name, out, "train")
    run = records.read(folder)
    if run.kind != "train" or run.checkpoint is None:
        raise UserError(f"run {name!r} has no trained weights (kind {run.kind!r}, {run.status})")
    elsewhere = folder.resolve().parent != out.resolve()
    return {"run": str(folder) if elsewhere else run.id, "weights": run.checkpoint.sha256}


@dataclass(frozen=True, kw_only=True)
class ParentNetworks:
    """The networks of those runs by role, in evaluation mode, as evaluations see them."""

    by_role: Mapping[str, Classifier]

    @property
    def teachers(self) -> tuple[Classifier, ...]:
        """The teachers, in the order in which they were named."""
        return tuple(net for role, net in self.by_role.items() if role.startswith(TEACHER))

    def start(self, model: Classifier) -> None:
        """Copy the weights of the run to start from into ``model``; another last layer stays.

        Raises:
            UserError: the bodies differ.
        """
        if INIT not in self.by_role:
            return
        given, own = self.by_role[INIT].state_dict(), model.state_dict()
        shapes = [{k: v.shape for k, v in state.items()} for state in (given, own)]
        odd = {k for k in {*given} | {*own} if shapes[0].get(k) != shapes[1].get(k)}
        strange = sorted(k for k in odd if not k.startswith("head."))
        if strange:
            raise UserError(
                f"--init: that run has another architecture ({strange[0]!r} differs); only the "
                "last layer may"
            )
        heads = {k for k in own if k.startswith("head.")} if odd else set()
        model.load_state_dict({**own, **{k: v for k, v in given.items() if k not in heads | odd}})

    def labelled(self, split: Split, classes: tuple[str, ...], where: torch.device) -> Split:
        """Return ``split`` with the labeller's predictions on its images as labels.

        Args:
            split: images (N, C, H, W) in [0, 1]; its own labels are not used.
            classes: the names of the labeller's classes.
            where: the device to predict on.
        """
        net = self.by_role[LABELLER]
        rows = torch.split(torch.arange(len(split)), LABELLED_AT_ONCE)
        with torch.no_grad():
            answers = [net(split.images(part).to(where)).argmax(1).cpu() for part in rows]
        return replace(split, y=torch.cat(answers), classes=classes)


def load_parents(
    parents: ConfigTable, out: Path, shape: Shape, where: torch.device
) -> ParentNetworks:
    """Load the networks that a configuration names.

    Raises:
        UserError: a run is gone, its weights are not the recorded ones, or it is for other images.
    """
    return ParentNetworks(
        by_role={role: _network(role, known, out, shape, where) for role, known in parents.items()}
    )


def _network(
    role: str, known: Mapping[str, str], out: Path, shape: Shape, where: torch.device
) -> Classifier:
    folder = folders.find_run(known["run"], out, "train")
    run = records.read(folder)
    if run.checkpoint is None or run.checkpoint.sha256 != known["weights"]:
        raise UserError(
            f"--{role} {known['run']}: its weights are not the ones this run began with"
        )
    own = components.shape_from_record(run.settings.shape)
    wanted, given = ((s.channels, s.height, s.width, s.classes) for s in (shape, own))
    if wanted[:3] != given[:3] or (wanted != given and role != INIT):
        raise UserError(
            f"--{role} {known['run']} is for images and classes {given}, this run has {wanted}"
        )
    return laid_out(restore(run, folder), where).eval().requires_grad_(False)


def without_labels(split: Split) -> Split:
    """Return the same images, all with the label of unlabelled ones."""
    return replace(split, y=torch.full_like(split.y, UNLABELLED))


def check_parents(recipe: Recipe, config: TrainConfig) -> None:
    """Raise ``UserError`` unless the defense gets the teachers and the labels that it needs."""
    objective = recipe.objective
    count = sum(role.startswith(TEACHER) for role in config.parents)
    if count != objective.teachers:
        raise UserError(
            f"this defense learns from {objective.teachers} teacher(s), {count} given; name each "
            "with --teacher RUN"
        )
    bare = config.extra and config.train.extra_labels == "none" and LABELLER not in config.parents
    if bare and not all(part.unlabelled for part in recipe.parts):
        raise UserError(
            "this defense needs a label for every example: name a --labeller, or "
            "train.extra_labels=own"
        )
