"""The configuration of an evaluation: its data, its threat, its attacks, its sweep."""

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.certificates import CERTIFICATES, Certificate
from robustbench_cli.commands.components import recipe_tables, with_registered_names
from robustbench_cli.commands.targeted import check_targets, refuse_sweep
from robustbench_cli.commands.threat_config import resolve_threat
from robustbench_cli.config import presets
from robustbench_cli.config.layers import ConfigTable, apply_settings, merge_layers, parse_settings
from robustbench_cli.config.schema import EvalConfig, spec_of, specs_of, validated
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Number, Registry, Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import DEFENSES, Recipe
from robustbench_cli.report.columns import CLEAN

EVALUATION = ("threat", "dataset", "n", "batch_size", "seed", "precision")
"""Settings that ``--set`` may change in an evaluation; attacks are set by ``--attack``."""


def resolve_eval_config(base: ConfigTable, typed: ConfigTable, pairs: list[str]) -> EvalConfig:
    """Return the configuration of an evaluation: the trained run's < flags < ``--set``.

    Args:
        base: what the model brings along: dataset, model, defense and threat.
        typed: what flags said, by section.
        pairs: what ``--set`` said, as ``key=value``.

    Raises:
        UserError: a bad value, or a setting that is not an evaluation's to change.
    """
    changes = parse_settings(pairs)
    measured = changes.pop("defense", {})
    odd = [section for section in changes if section not in EVALUATION]
    if odd:
        raise UserError(
            f"--set {odd[0]}: an evaluation cannot change that; it takes {', '.join(EVALUATION)}"
        )
    values = apply_settings(merge_layers(base, typed), changes)
    if measured:
        values["defense"] = _deployed(values.get("defense", {}), measured)
    dataset = DATASETS.build(spec_of(values["dataset"]))
    values["dataset"] = DATASETS.describe(dataset)
    threat = values["threat"] = resolve_threat(values.get("threat", {}), dataset)
    values["sweep"] = _sweep(values.get("sweep", ""), threat)
    attacks = (ATTACKS.build(spec) for spec in specs_of(values["attack"]))
    values["attack"] = {
        label: ATTACKS.describe(attack)
        for label, attack in zip(values["attack"], attacks, strict=True)
    }
    values["certify"] = {
        spec.label: CERTIFICATES.describe(CERTIFICATES.build(spec))
        for spec in specs_of(values.get("certify", {}))
    }
    if values.get("defend"):
        for label, table in values["certify"].items():
            _check_behind_defenses(label, CERTIFICATES.build(spec_of(table, label)))
    options = {**values, "mask": threat.mask}
    options |= {"reject-class": "class" in values.get("reject", {})}
    options |= {"detector": "detector" in values.get("reject", {})}
    if values.get("defend") and options["detector"]:
        raise UserError(
            "--detector goes without --defend: it was fitted to a model without input defenses"
        )
    for option in ("sweep", "source", "mask", "reject-class", "detector"):
        if values["certify"] and options.get(option):
            raise UserError(f"--certify goes without --{option}, which is for attacks")
    return validated(EvalConfig, values)


def _check_behind_defenses(label: str, certificate: Certificate) -> None:
    """Refuse a certificate that proves nothing of a model behind input defenses."""
    if not certificate.behind_defenses:
        raise UserError(
            f"--certify {label} goes without --defend: it says nothing of a model behind input "
            "defenses"
        )


def _deployed(defense: ConfigTable, changes: ConfigTable) -> ConfigTable:
    """Return a trained defense with parameters replaced that act in evaluations only."""
    made = apply_settings({"defense": defense}, {"defense": changes})["defense"]
    for label, part in changes.items():
        free = DEFENSES.entry(made[label]["name"]).cls.deployed  # type: ignore[attr-defined]
        if odd := [key for key in part if key not in free]:
            only = f"; of {label} it takes {', '.join(free)}" if free else ""
            raise UserError(
                f"--set defense.{label}.{odd[0]}: an evaluation cannot change how a model was "
                f"trained{only}"
            )
    return recipe_tables(Recipe.build(specs_of(made)))


SWEPT: Mapping[str, Any] = {
    "eps": Annotated[list[Annotated[Number, Field(ge=0)]], Field(min_length=1)],
    "steps": Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)],
}
"""The settings that ``--sweep`` takes, with the type of their values."""


MOST_VALUES = 1000
"""The number of values that a sweep may have; each is an attack on every example."""


def _sweep(text: str, threat: Threat) -> ConfigTable:
    """Return ``eps=0,2/255,...,16/255`` as ``{"eps": [...]}``; dots continue the progression."""
    name, _, listed = text.partition("=")
    if not text:
        return {}
    if name not in SWEPT:
        raise UserError(f"--sweep {text!r}: sweep over {' or '.join(SWEPT)}{hint(name, SWEPT)}")
    try:
        values = _listed(listed.split(","))
        _check_length(len(values))
        swept = {name: TypeAdapter(SWEPT[name]).validate_python(values)}
    except UserError as error:
        raise UserError(f"--sweep {text[:60]!r}: {error}") from None
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"--sweep {text!r}: expected numbers, as in eps=0,2/255,...,16/255"
        ) from error
    try:
        for eps in filter(None, swept.get("eps", [])):
            replace(threat, eps=eps)
    except ValueError as error:
        raise UserError(str(error)) from None
    return swept


def _check_length(count: int) -> None:
    if count > MOST_VALUES:
        raise UserError(f"{count} values are too many; a sweep has at most {MOST_VALUES}")


def _listed(items: list[str]) -> list[str]:
    """Return the items with ``...`` replaced by the numbers between its neighbours."""
    if "..." not in items:
        return items
    at = items.index("...")
    if not 2 <= at < len(items) - 1:
        raise ValueError("... stands between two numbers and the last one")
    first, second, last = (Fraction(items[i]) for i in (at - 2, at - 1, at + 1))
    if not second > first:
        raise ValueError("the numbers must rise")
    step = second - first
    _check_length(math.ceil((last - second) / step))
    between = [second + step * i for i in range(1, math.ceil((last - second) / step))]
    return items[:at] + [str(value) for value in between] + items[at + 1 :]


def chosen_attacks(texts: list[str], suite: str | None, options: Mapping[str, Any]) -> ConfigTable:
    """Return the ``attack`` section for ``--attack`` and ``--suite``, labelled as written.

    Args:
        options: values for every attack that takes them: ``restarts``, ``eot``, ``last_iterate``.

    Raises:
        UserError: no attack, an unknown one, one given twice, or an option that none takes.
    """
    tables = _suite(suite) if suite else {}
    _add(ATTACKS, tables, texts)
    if not tables:
        raise UserError("name an attack, e.g. --attack pgd20 --attack cw20, or --suite paper")
    for option, value in options.items():
        tables = _with_option(ATTACKS, tables, option, value)
    return tables


def chosen_certificates(texts: list[str], options: Mapping[str, Any]) -> ConfigTable:
    """Return the ``certify`` section for ``--certify``, labelled as written.

    Args:
        options: values for every certificate that takes them: ``sigma``, ``n0``.

    Raises:
        UserError: an unknown certificate, one given twice, or an option that none takes.
    """
    tables: ConfigTable = {}
    _add(CERTIFICATES, tables, texts)
    for option, value in options.items():
        if not tables:
            raise UserError(f"--{option} belongs to a certificate: add --certify smoothing")
        if twice := [label for label, table in tables.items() if option in table]:
            raise UserError(f"--{option} {value}: {twice[0]!r} says it, too; once is enough")
        tables = _with_option(CERTIFICATES, tables, option, value)
    return tables


def _add(registry: Registry[Any], tables: ConfigTable, texts: list[str]) -> None:
    for text in texts:
        spec, label = registry.resolve(Spec.parse(text)), text.strip().lower()
        if label in tables:
            raise UserError(f"{registry.kind} {label!r} is given twice; once is enough")
        tables[label] = {"name": spec.name, **spec.params}


def _suite(name: str) -> ConfigTable:
    """Return the attacks of a suite; radius and n belong to the command and are refused."""
    found = presets.load_preset(name, "suites")
    odd = sorted({*found} - {"attack", "preset"})
    if odd or "attack" not in found:
        what = f"sets {odd[0]!r}" if odd else "names no attack"
        raise UserError(f"suite {name!r} {what}; a suite holds [attack.NAME] tables and no more")
    if taken := [label for label in found["attack"] if label.strip() in ("", CLEAN)]:
        raise UserError(
            f"suite {name!r} calls an attack {taken[0]!r}: name it, but not {CLEAN!r}, which "
            "stands for the images as they are"
        )
    attacks: ConfigTable = with_registered_names(found)["attack"]
    return attacks


def _with_option(
    registry: Registry[Any], tables: ConfigTable, option: str, value: object
) -> ConfigTable:
    """Set an option of every component that has it; the label shows it."""
    result: ConfigTable = {}
    for label, table in tables.items():
        if registry.accepts(table["name"], option):
            shown = f"{label}{',' if ':' in label else ':'}{option}={str(value).lower()}"
            result[shown] = {**table, option: value}
        else:
            result[label] = table
    if list(result) == list(tables):
        raise UserError(f"--{option.replace('_', '-')}: none of these {registry.kind}s takes it")
    return result


def build_attacks(config: EvalConfig, classes: int) -> dict[str, Attack]:
    """Build the configured attacks, by label.

    Raises:
        UserError: an unknown attack or parameter, one that does not go with the threat or with so
            few classes, or a sweep over steps of one that has none.
    """
    attacks = {spec.label: ATTACKS.build(spec) for spec in specs_of(config.attack)}
    for label in attacks:
        if "steps" in config.sweep and not ATTACKS.accepts(config.attack[label]["name"], "steps"):
            raise UserError(f"--sweep steps: attack {label!r} has no steps")
    if config.sweep:
        refuse_sweep(attacks)
    check_attacks(attacks, config.threat, classes)
    return attacks


def attacks_in(norm: str) -> list[str]:
    """Return the names of the attacks that work under threats of this norm."""
    return [name for name in ATTACKS.names() if norm in ATTACKS.build(Spec(name)).measures]


def check_attacks(attacks: Mapping[str, Attack], threat: Threat, classes: int) -> None:
    """Check that every attack goes with the threat and with the number of classes.

    Raises:
        UserError: another norm, a mask that an attack knows nothing of, too few classes, or a
            target that an attack cannot have.
    """
    check_targets(attacks, classes)
    norm = threat.norm
    for label, attack in attacks.items():
        if norm not in attack.measures:
            measured = " or ".join(attack.measures)
            raise UserError(
                f"attack {label!r} is an attack in {measured}, the threat is {norm}; a distance in "
                f"one norm says nothing about a radius in another: use --norm {attack.measures[0]}"
                + ("" if threat.is_ball else f", or {' or '.join(attacks_in(norm))}")
            )
        stages = attack.stages(threat, classes)
        if threat.mask and not all(stage.attack.maskable for stage in stages):
            raise UserError(
                f"attack {label!r} runs in code that knows of no mask: leave it or --mask out"
            )
        if classes < attack.needs:
            raise UserError(
                f"attack {label!r} uses the DLR loss, which needs at least "
                f"{attack.needs} classes; the data set has {classes}: use apgd-margin, or "
                "autoattack, which runs what is defined for so few"
            )
