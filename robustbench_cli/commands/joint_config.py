"""The configuration of a joint attack: its domains, its attack, its threat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.min_max import MinMax
from robustbench_cli.commands import threat_config
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.layers import ConfigTable, merge_layers
from robustbench_cli.config.schema import JointConfig, spec_of, specs_of, validated
from robustbench_cli.core.domain_weights import first
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.transforms import TRANSFORMS


@dataclass(frozen=True, kw_only=True)
class JointOptions:
    """The settings of one ``joint`` command, as they were typed."""

    runs: Sequence[str | None]
    transforms: Sequence[str]
    attack: str
    """``min-max``, with parameters if there are any."""
    options: Mapping[str, Any]
    """Further parameters of the attack, by name."""
    settings: ConfigTable
    """Other settings of a ``JointConfig``, by name."""
    workspace: Workspace
    command: list[str]
    name: str | None = None


def resolve_joint_config(request: JointOptions) -> tuple[list[Subject], JointConfig]:
    """Return the models and the whole configuration.

    Raises:
        UserError: something is unknown, damaged or makes no sense.
    """
    found = [find_model(Choice(run=each), request.workspace) for each in request.runs]
    subjects, bases = [subject for subject, _ in found], [base for _, base in found]
    _same_images(subjects, bases, request.workspace)
    spec = ATTACKS.resolve(Spec.parse(request.attack))
    attack = ATTACKS.build(Spec(spec.name, {**spec.params, **request.options}, spec.label))
    if attack.target is not None:
        raise UserError("a joint attack has no target: its domains have labels of their own")
    transforms: ConfigTable = {}
    for text in request.transforms or ["identity"]:
        if (label := text.strip().lower()) in transforms:
            raise UserError(f"transform {label!r} is given twice; once is enough")
        transforms[label] = TRANSFORMS.describe(TRANSFORMS.build(Spec.parse(text)))
    dataset = DATASETS.build(spec_of(bases[0]["dataset"]))
    usual = {key: bases[0]["threat"][key] for key in ("norm", "eps")}
    values = merge_layers({"threat": usual}, request.settings)
    threat = threat_config.resolve_threat(values["threat"], dataset)
    if not threat.is_ball:
        raise UserError(
            f"a joint attack adds one change to every image within a ball, and {threat.norm} is "
            "none: use --norm Linf, L2 or L1"
        )
    values |= {
        "runs": {str(each.parent): each.weights for each in subjects},
        "transform": transforms,
        "attack": {spec.name: ATTACKS.describe(attack)},
        "dataset": DATASETS.describe(dataset),
        "threat": threat,
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


def build_joint_attack(config: JointConfig) -> MinMax:
    """Return the attack of a configuration.

    Raises:
        UserError: it is not min-max, there are fewer than two domains, or fixed weights are not as
            many as the domains.
    """
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
