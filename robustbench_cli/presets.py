"""Where presets and suites live: TOML files shipped with the package, or the user's own."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustbench_cli.errors import UserError, hint

Values = dict[str, Any]
"""What a file says, by section."""

NEEDS = {"extra-data": "npz:PATH", "init": "RUN", "teacher": "RUN"}
"""Options without which a preset may be no recipe, and what follows each."""


def folder(package: Path = Path(__file__).parent) -> Path:
    """The shipped presets: inside an installed package, beside it in a checkout."""
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


def names(kind: str = "") -> list[str]:
    """The shipped presets, or with ``kind="suites"`` the evaluation suites."""
    return sorted(path.stem for path in (folder() / kind).glob("*.toml"))


def load(name: str, kind: str = "") -> Values:
    """A preset by name, or by the path of a TOML file, over the one it names as its ``base``.

    Raises:
        UserError: there is none, it is damaged, or it is a base of itself.
    """
    from robustbench_cli.config import merged, read_preset  # brings torch in; the rest does without

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
        if each not in NEEDS:
            raise UserError(f"preset {name!r} needs {each!r}{hint(str(each), NEEDS)}")
    return wanted


def written(wanted: Iterable[str]) -> list[str]:
    """The same as they are typed: ``--init RUN``."""
    return [f"--{each} {NEEDS[each]}" for each in wanted]


def summary(name: str, kind: str = "") -> str:
    """The first comment line of a preset: what it is and where it comes from."""
    first = (folder() / kind / f"{name}.toml").read_text().splitlines()[0]
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
    own = name.endswith(".toml")
    path = Path(name) if own else folder() / kind / f"{name}.toml"
    if not own and not path.is_file():
        what = "suite" if kind else "preset"
        near = hint(name, names(kind), f"advbench list {what}s")
        raise UserError(f"unknown {what} {name!r}{near} (or give the path of a .toml file)")
    values = read(path)
    base = values.pop("base", None)
    return [*(_layers(str(base), kind, read, (*above, name)) if base else ()), values]
