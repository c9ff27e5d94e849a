"""Presets, suites and studies: TOML files shipped with the package, or the user's own."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustbench_cli.config.layers import ConfigTable, merge_layers, read_preset
from robustbench_cli.core.errors import UserError, hint

REQUIRED_OPTIONS = {"extra-data": "npz:PATH", "init": "RUN", "teacher": "RUN"}
"""Options that a preset may require (its ``needs``), with the value that each takes."""
SOURCE_LINES = {
    "official": "What a preset follows: a script, a README, or a paper that has no script.",
    "departs": "What it does otherwise than that.",
    "unknown": "What its sources do not tell, and what stands in for it.",
}
"""The lines of a preset's section ``source``, about where its settings are from, with what each
says; the settings are the other sections."""

PACKAGE = Path(__file__).parents[1]


def folder(package: Path = PACKAGE) -> Path:
    """Return the folder of presets: inside an installed package, beside it in a checkout."""
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


SINGULAR = {"": "preset", "suites": "suite", "studies": "study"}
"""The word for a file, by the subfolder of its kind; presets have a folder per paper."""


def files(kind: str = "", package: Path = PACKAGE) -> dict[str, Path]:
    """Return the shipped presets by name, or with ``kind="suites"`` the evaluation suites."""
    paths = folder(package).glob(f"{kind or '*'}/*.toml")
    return {path.stem: path for path in sorted(paths) if kind or path.parent.name not in SINGULAR}


def preset_names(kind: str = "") -> list[str]:
    """Return the names of the shipped presets, or of another kind of file, sorted."""
    return sorted(files(kind))


def preset_file(name: str, kind: str = "") -> Path:
    """Return the file of a shipped preset.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    known = files(kind)
    if name not in known:
        near = hint(name, known, f"advbench list {kind or 'presets'}")
        raise UserError(
            f"unknown {SINGULAR[kind]} {name!r}{near} (or give the path of a .toml file)"
        )
    return known[name]


def load_preset(name: str, kind: str = "") -> ConfigTable:
    """Return a preset, by name or by the path of a TOML file, merged over its ``base``.

    Raises:
        UserError: there is none, it is damaged, or it is a base of itself.
    """
    layers = _layers(name, kind, read_preset)
    for layer in layers:
        layer.pop("needs", None)  # of a command, not of a configuration
    return merge_layers(*layers)


def preset_source(name: str) -> dict[str, str]:
    """Return what a preset says of its own settings, by the names of ``SOURCE_LINES``.

    A line that it does not have is that of its base; one that says nothing is left out.

    Raises:
        UserError: there is no such preset, or a line is none of these or no text.
    """
    found: dict[str, str] = {}
    for layer in _layers(name, "", _as_written):
        for line, said in layer.get("source", {}).items():
            if line not in SOURCE_LINES:
                raise UserError(f"preset {name!r}: source.{line}{hint(line, SOURCE_LINES)}")
            texts = [said] if isinstance(said, str) else said
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise UserError(f"preset {name!r}: source.{line} is a text, or several in a list")
            found[line] = "; ".join(texts)
    return {line: found[line] for line in SOURCE_LINES if found.get(line)}


def _as_written(path: Path) -> ConfigTable:
    """Return a preset's file with what is of no configuration, too."""
    return tomllib.loads(path.read_text())


def needs(name: str) -> list[str]:
    """Return the options that a preset, or its base, cannot do without.

    Raises:
        UserError: there is no such preset or no such option.
    """
    layers = _layers(name, "", _as_written)
    given: Any = next((layer["needs"] for layer in reversed(layers) if "needs" in layer), [])
    wanted = given if isinstance(given, list) else [given]
    for each in wanted:
        if each not in REQUIRED_OPTIONS:
            raise UserError(f"preset {name!r} needs {each!r}{hint(str(each), REQUIRED_OPTIONS)}")
    return wanted


def as_typed(wanted: Iterable[str]) -> list[str]:
    """Return options as they are typed: ``--init RUN``."""
    return [f"--{each} {REQUIRED_OPTIONS[each]}" for each in wanted]


def preset_summary(name: str, kind: str = "") -> str:
    """Return the first comment line of a preset: a description and its source."""
    first = preset_file(name, kind).read_text().splitlines()[0]
    return first.removeprefix("#").strip()


def _layers(
    name: str, kind: str, read: Callable[[Path], ConfigTable], above: tuple[str, ...] = ()
) -> list[ConfigTable]:
    """Return the contents of a preset's file, after those of its bases.

    Args:
        above: the presets whose base this is.
    """
    if name in above:
        raise UserError(f"preset {name!r} is its own base: {' -> '.join((*above, name))}")
    values = read(Path(name) if name.endswith(".toml") else preset_file(name, kind))
    base = values.pop("base", None)
    return [*(_layers(str(base), kind, read, (*above, name)) if base else ()), values]
