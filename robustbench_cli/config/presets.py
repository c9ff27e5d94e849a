"""Where presets and suites live: TOML files shipped with the package, or the user's own."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustbench_cli.core.errors import UserError, hint

Values = dict[str, Any]
"""What a file says, by section."""

REQUIRED_OPTIONS = {"extra-data": "npz:PATH", "init": "RUN", "teacher": "RUN"}
"""Options without which a preset may be no recipe, and what follows each."""


PACKAGE = Path(__file__).parents[1]


def folder(package: Path = PACKAGE) -> Path:
    """The shipped presets: inside an installed package, beside it in a checkout."""
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


SINGULAR = {"": "preset", "suites": "suite", "benches": "bench"}
"""What a file is called, by the subfolder that its kind has; presets have one per paper."""


def files(kind: str = "", package: Path = PACKAGE) -> dict[str, Path]:
    """The shipped presets by name, or with ``kind="suites"`` the evaluation suites."""
    paths = folder(package).glob(f"{kind or '*'}/*.toml")
    return {path.stem: path for path in sorted(paths) if kind or path.parent.name not in SINGULAR}


def preset_names(kind: str = "") -> list[str]:
    """The names of the shipped presets, or of another kind of file, in alphabetical order."""
    return sorted(files(kind))


def preset_file(name: str, kind: str = "") -> Path:
    """The file of a shipped preset.

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


def load_preset(name: str, kind: str = "") -> Values:
    """A preset by name, or by the path of a TOML file, over the one it names as its ``base``.

    Raises:
        UserError: there is none, it is damaged, or it is a base of itself.
    """
    from robustbench_cli.config.schema import (  # brings torch in; the rest does without
        merged,
        read_preset,
    )

    layers = _layers(name, kind, read_preset)
    for layer in layers:
        layer.pop("needs", None)  # of a command, not of a configuration
    return merged(*layers)


def needs(name: str) -> list[str]:
    """The options that a preset, or what it is based on, does not go without.

    Raises:
        UserError: there is no such preset or no such option.
    """
    layers = _layers(name, "", lambda path: tomllib.loads(path.read_text()))
    given: Any = next((layer["needs"] for layer in reversed(layers) if "needs" in layer), [])
    wanted = given if isinstance(given, list) else [given]
    for each in wanted:
        if each not in REQUIRED_OPTIONS:
            raise UserError(f"preset {name!r} needs {each!r}{hint(str(each), REQUIRED_OPTIONS)}")
    return wanted


def as_typed(wanted: Iterable[str]) -> list[str]:
    """The same as they are typed: ``--init RUN``."""
    return [f"--{each} {REQUIRED_OPTIONS[each]}" for each in wanted]


def preset_summary(name: str, kind: str = "") -> str:
    """The first comment line of a preset: what it is and where it comes from."""
    first = preset_file(name, kind).read_text().splitlines()[0]
    return first.removeprefix("#").strip()


def _layers(
    name: str, kind: str, read: Callable[[Path], Values], above: tuple[str, ...] = ()
) -> list[Values]:
    """What a preset's file says, after what its ``base`` says.

    Args:
        above: the presets whose base this is.
    """
    if name in above:
        raise UserError(f"preset {name!r} is its own base: {' -> '.join((*above, name))}")
    values = read(Path(name) if name.endswith(".toml") else preset_file(name, kind))
    base = values.pop("base", None)
    return [*(_layers(str(base), kind, read, (*above, name)) if base else ()), values]
