"""Attacks and settings as callers give them, checked and as records keep them."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeAlias

from robustbench_cli import masks
from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.commands.eval_config import chosen_attacks
from robustbench_cli.config import presets
from robustbench_cli.config.catalogue import typed
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import EvalConfig, spec_of, specs_of, validated
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat import Threat

AttackChoice: TypeAlias = str | Attack
"""An attack or a suite as the command line takes it, or an attack's dataclass."""


def build_choice(choice: AttackChoice | Sequence[AttackChoice]) -> dict[str, Attack]:
    """Return the attacks by label: as written, or for a dataclass as one would write it.

    Args:
        choice: ``"pgd20"``, ``"pgd:steps=50,restarts=2"``, the name or .toml file of a suite, a
            dataclass such as ``PGD(steps=50)``, or several of them.

    Raises:
        UserError: an unknown attack or parameter, one given twice, or none at all.
    """
    chosen: list[Any] = [choice]  # whatever it is: ``_attacks_of`` says what is none
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        chosen = list(choice)
    if not chosen:
        raise UserError('name an attack, e.g. attacks=["pgd20", "autoattack"]')
    attacks: dict[str, Attack] = {}
    for each in chosen:
        for label, attack in _attacks_of(each).items():
            if label in attacks:
                raise UserError(f"attack {label!r} is given twice; once is enough")
            attacks[label] = attack
    return attacks


def eval_config_of(
    attacks: dict[str, Attack],
    threat: Threat,
    *,
    batch_size: int,
    precision: str,
    seed: int,
    dataset: str = "",
    model: str = "",
    within: float | None = None,
    widen: bool = False,
    checks: bool = True,
    reject: ConfigTable | None = None,
    defend: ConfigTable | None = None,
) -> EvalConfig:
    """Return the configuration of an evaluation, as its record keeps it.

    Raises:
        UserError: a bad value; a threat with a mask that is unknown or bound to images already; or
            a parameter of an attack that no record can hold, because it is no number, text or list.
    """
    if type(threat) is not Threat:
        raise UserError(f'a threat is given as Threat("Linf", 8 / 255), got {threat!r}')
    tables = {label: ATTACKS.describe(attack) for label, attack in attacks.items()}
    for label, table in tables.items():
        try:
            json.dumps(table)
        except TypeError as error:
            raise UserError(f"attack {label!r} cannot be recorded: {error}") from None
    values = {
        "attack": tables,
        "dataset": {"name": dataset},
        "model": {"name": model},
        "threat": {
            "norm": threat.norm,
            "eps": float(threat.eps),
            "mask": masks.canonical(threat.mask),
        },
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
        "within": within,
        "widen": widen,
        "checks": checks,
        "reject": reject or {},
        "defend": defend or {},
    }
    return validated(EvalConfig, values)


def _attacks_of(choice: Any) -> dict[str, Attack]:
    if isinstance(choice, str):
        suite = choice.endswith(".toml") or choice in presets.files("suites")
        tables = chosen_attacks([], choice, {}) if suite else chosen_attacks([choice], None, {})
        return {spec.label: ATTACKS.build(spec) for spec in specs_of(tables)}
    if not isinstance(choice, Attack):
        raise UserError(
            f"an attack is a name such as 'pgd20' or a dataclass of robustbench_cli.attacks, got "
            f"{choice!r}"
        )
    table = ATTACKS.describe(choice)
    if table["name"] in ATTACKS.names():  # nothing checks a dataclass that is made in Python
        choice = ATTACKS.build(spec_of(table))
    return {_label(table, choice): choice}


def _label(table: ConfigTable, attack: Attack) -> str:
    """Return the name, and the parameters that are not their defaults."""
    usual = {field.name: field.default for field in fields(attack) if field.default is not MISSING}
    changed = ",".join(
        f"{key}={typed(value)}"
        for key, value in table.items()
        if key != "name" and (key not in usual or usual[key] != value)
    )
    return f"{table['name']}:{changed}" if changed else str(table["name"])
