"""Where presets and suites live: TOML files shipped with the package, or the user's own."""

from pathlib import Path
from typing import Any

from robustbench_cli.errors import UserError, hint


def folder(package: Path = Path(__file__).parent) -> Path:
    """The shipped presets: inside an installed package, beside it in a checkout."""
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


def names(kind: str = "") -> list[str]:
    """The shipped presets, or with ``kind="suites"`` the evaluation suites."""
    return sorted(path.stem for path in (folder() / kind).glob("*.toml"))


def load(name: str, kind: str = "", above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A preset by name, or by the path of a TOML file, over the one it names as its ``base``.

    Args:
        above: the presets whose base this is.

    Raises:
        UserError: there is none, it is damaged, or it is a base of itself.
    """
    from robustbench_cli.config import merged, read_preset  # brings torch in; names do without

    if name in above:
        raise UserError(f"preset {name!r} is its own base: {' -> '.join((*above, name))}")
    path = Path(name) if name.endswith(".toml") else folder() / kind / f"{name}.toml"
    if not name.endswith(".toml") and not path.is_file():
        what = "suite" if kind else "preset"
        near = hint(name, names(kind), f"advbench list {what}s")
        raise UserError(f"unknown {what} {name!r}{near} (or give the path of a .toml file)")
    values = read_preset(path)
    base = values.pop("base", None)
    return merged(load(str(base), kind, (*above, name)), values) if base else values


def summary(name: str, kind: str = "") -> str:
    """The first comment line of a preset: what it is and where it comes from."""
    first = (folder() / kind / f"{name}.toml").read_text().splitlines()[0]
    return first.removeprefix("#").strip()
