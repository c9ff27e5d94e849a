"""Layers of settings, merged before they are validated: defaults < preset < command line.

Settings are nested tables, as TOML files have them.  A *component* (model, dataset, optimizer,
schedule) is a table ``{"name": ..., parameters}``; ``defense`` and ``attack`` are tables of such
tables, one per part, in the order written.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from robustbench_cli.core.errors import UserError, hint

ConfigTable = dict[str, Any]
"""Settings by section and key, as read or typed: not validated yet, or as records keep them."""

PART_SECTIONS = ("defense", "attack")
"""Sections that hold several components, by label."""
COMPONENT_SECTIONS = ("model", "dataset", "optimizer", "schedule", "extra")
"""Sections that hold one component."""


def merge_layers(*layers: Mapping[str, Any]) -> ConfigTable:
    """Return tables merged key by key: later layers win.

    A component that changes its name drops the parameters of the one before; naming the same
    one keeps them.  For ``defense`` and ``attack`` the last layer that lists parts decides which
    there are.  A radius goes with its norm: a layer that changes the norm drops it.
    """
    result: ConfigTable = {}
    for layer in layers:
        for section, value in layer.items():
            before = result.get(section, {})
            if section in PART_SECTIONS:
                result[section] = {
                    label: _component(_named(before, part, label), part)
                    for label, part in value.items()
                }
            elif section in MERGE_RULES:
                result[section] = MERGE_RULES[section](before, value)
            else:
                result[section] = value
    return result


def apply_settings(values: ConfigTable, changes: Mapping[str, Any]) -> ConfigTable:
    """Return ``values`` with single settings replaced, as ``--set`` does.

    Raises:
        UserError: it names a part of a defense that is not there.
    """
    result = merge_layers(values, {k: v for k, v in changes.items() if k not in PART_SECTIONS})
    for section in {*PART_SECTIONS} & {*changes}:
        known = result.get(section, {})
        for label, part in changes[section].items():
            if label not in known:
                raise UserError(f"--set {section}.{label}: no such part{hint(label, known)}")
            known[label] = {**known[label], **part}
    return result


def _component(before: Mapping[str, Any], after: Mapping[str, Any]) -> ConfigTable:
    same = after.get("name", before.get("name")) == before.get("name")
    return {**before, **after} if same else dict(after)


def _threat(before: Mapping[str, Any], after: Mapping[str, Any]) -> ConfigTable:
    norms = [str(table.get("norm", "Linf")).lower() for table in (before, after)]
    changed = "norm" in after and "eps" not in after and norms[0] != norms[1]
    return {**{k: v for k, v in before.items() if not (changed and k == "eps")}, **after}


def _named(parts: Mapping[str, Any], wanted: Mapping[str, Any], label: str) -> ConfigTable:
    """Return the part that ``wanted`` refines: the same component, under any label."""
    name = wanted.get("name", label)
    same = (p for key, p in parts.items() if p.get("name", key) == name)
    return {"name": name, **next(same, {})}


MERGE_RULES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], ConfigTable]] = {
    **dict.fromkeys(COMPONENT_SECTIONS, _component),
    "threat": _threat,
    "train": lambda before, after: {**before, **after},
    "embedding": lambda before, after: {**before, **after},
}
"""How each section of a later layer is merged into that of an earlier one."""


def _shaped(values: ConfigTable, where: str) -> ConfigTable:
    """Return the values; raise ``UserError`` where a section is no table or a setting is one."""
    for section, value in values.items():
        table = isinstance(value, Mapping)
        parts = value.values() if section in PART_SECTIONS and table else ()
        if section in (*PART_SECTIONS, *MERGE_RULES) and not (table and all(map(_is_table, parts))):
            raise UserError(
                f"{where}: {section!r} holds settings, got {value!r}; write {section}.KEY=VALUE "
                f"or a table [{section}]"
            )
        if table and section not in (*PART_SECTIONS, *MERGE_RULES):
            raise UserError(f"{where}: there is no section {section!r}{hint(section, SECTIONS)}")
    return values


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


SECTIONS = (*PART_SECTIONS, *MERGE_RULES)
"""All sections; everything else is a single setting."""


def read_preset(path: Path) -> ConfigTable:
    """Return a preset's tables, with the names of its components filled in.

    Raises:
        UserError: the file is absent or damaged; the message names it, and the line.
    """
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"preset {str(path)!r} does not exist") from None
    except OSError as error:
        raise UserError(f"preset {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"preset {str(path)!r} is not valid TOML: {error}") from None
    if _is_table(values.get("source")):
        del values["source"]  # says where the settings are from, and is none
    _shaped(values, f"preset {str(path)!r}")
    for section in PART_SECTIONS:
        for label, part in values.get(section, {}).items():
            part.setdefault("name", label)
    return {**values, "preset": path.stem}


def parse_settings(pairs: Iterable[str]) -> ConfigTable:
    """Return ``["train.lr=0.05", "seed=1"]`` as nested tables, with values as text.

    Raises:
        UserError: a pair has no ``=``, or a section is given a value.
    """
    values: ConfigTable = {}
    for pair in pairs:
        key, eq, value = pair.partition("=")
        if not eq or not key.strip():
            raise UserError(f"--set {pair!r}: expected key=value, e.g. --set train.lr=0.05")
        *parents, leaf = key.strip().split(".")
        table = values
        for name in parents:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {pair}: {name!r} was given a value before")
        table[leaf] = _literal(value.strip())
    return _shaped(values, "--set")


def _literal(text: str) -> Any:
    """Return lists and booleans as TOML reads them; everything else stays text."""
    if text.startswith("[") or text in ("true", "false"):
        try:
            return tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            return text
    return text
