"""What a joint attack is asked to do: its domains, its attack, its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import torch
from pydantic import Field

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.min_max import MinMax
from robustbench_cli.commands import threat_config
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import (
    ConfigTable,
    Positive,
    merged,
    spec_of,
    specs_of,
    validated,
)
from robustbench_cli.core.domain_weights import first
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Seed, Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.transforms import TRANSFORMS


@dataclass(frozen=True, kw_only=True)
class JointOptions:
    """What one command asks for, as it was typed."""

    runs: Sequence[str | None]
    transforms: Sequence[str]
    attack: str
    """``min-max``, perhaps with parameters."""
    options: Mapping[str, Any]
    """More of them."""
    settings: ConfigTable
    """What else there is of a ``JointConfig``."""
    workspace: Workspace
    command: list[str]
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Everything that decides the outcome of a joint attack."""

    runs: dict[str, str]
    """The weights (sha256) of each run, by its id."""
    transform: ConfigTable
    images: Positive = 1
    """Neighbouring test images that share one perturbation."""
    attack: ConfigTable
    dataset: ConfigTable
    threat: Threat
    n: Annotated[int, Field(ge=0)] = 0
    """How many test images, from the first; 0: all."""
    batch_size: Positive = 256
    """Images under attack at a time; verdicts do not depend on it."""
    seed: Seed = 0

    @property
    def domains(self) -> list[str]:
        """Their names, in the order in which ``Joint`` counts them."""
        images = [f"image {i + 1}" for i in range(self.images)]
        several = [part for part in (images, self.runs, self.transform) if len(part) > 1]
        return [" ".join(names) for names in product(*several)]


def resolve_joint_config(asked: JointOptions) -> tuple[list[Subject], JointConfig]:
    """The models, and the whole configuration.

    Raises:
        UserError: something is unknown, damaged or makes no sense.
    """
    found = [find_model(Choice(run=each), asked.workspace) for each in asked.runs]
    subjects, bases = [subject for subject, _ in found], [base for _, base in found]
    _same_images(subjects, bases, asked.workspace)
    spec = ATTACKS.resolve(Spec.parse(asked.attack))
    attack = ATTACKS.build(Spec(spec.name, {**spec.params, **asked.options}, spec.label))
    transforms: ConfigTable = {}
    for text in asked.transforms or ["identity"]:
        if (label := text.strip().lower()) in transforms:
            raise UserError(f"transform {label!r} is given twice; once is enough")
        transforms[label] = TRANSFORMS.describe(TRANSFORMS.build(Spec.parse(text)))
    dataset = DATASETS.build(spec_of(bases[0]["dataset"]))
    usual = {key: bases[0]["threat"][key] for key in ("norm", "eps")}
    values = merged({"threat": usual}, asked.settings)
    values |= {
        "runs": {str(each.parent): each.weights for each in subjects},
        "transform": transforms,
        "attack": {spec.name: ATTACKS.describe(attack)},
        "dataset": DATASETS.describe(dataset),
        "threat": threat_config.resolve_threat(values["threat"], dataset),
    }
    return subjects, validated(JointConfig, values)


def _same_images(subjects: list[Subject], bases: list[ConfigTable], workspace: Workspace) -> None:
    names = [str(each.parent) for each in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"run {twice[0]!r} is given twice; once is enough")
    tables = [base["dataset"] for base in bases]
    seen = [DATASETS.build(spec_of(each)).load("test", workspace.data_dir) for each in tables]
    for name, table, split in zip(names, tables, seen, strict=True):
        if split.fingerprint() != seen[0].fingerprint():
            raise UserError(
                f"run {names[0]!r} is of {tables[0]['name']}, run {name!r} of {table['name']}: one "
                "image cannot fool both"
            )


def attack_of(config: JointConfig) -> MinMax:
    """The attack; raise ``UserError`` if it does not fit the domains."""
    (spec,) = specs_of(config.attack)
    attack = ATTACKS.build(spec)
    if not isinstance(attack, MinMax):
        raise UserError(f"a joint attack is min-max with its parameters, not {spec.name!r}")
    domains = len(config.domains)
    if domains < 2:
        raise UserError(
            "a joint attack needs two domains at least: several --run, several --transform, or "
            "--images 5"
        )
    first(attack.weights, torch.zeros(1, domains))
    return attack
