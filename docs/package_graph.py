"""The drawing of structure.md: the packages, what they hold, and what each imports."""

import ast
from functools import cache
from pathlib import Path

from marked_parts import table

PACKAGE = Path(__file__).parents[1] / "robustbench_cli"


@cache
def imports() -> dict[str, set[str]]:
    """Return the packages of the project, each with those that its files import."""
    names = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    found: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for path in (PACKAGE / name).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found[name] |= _named(node) & {*names} - {name}
    return found


def _named(node: ast.AST) -> set[str]:
    """Return the parts of ``robustbench_cli`` that an import statement names."""
    if not isinstance(node, ast.ImportFrom):
        return set()
    top, _, rest = (node.module or "").partition(".")
    if top != PACKAGE.name:
        return set()
    return {rest.split(".")[0]} if rest else {alias.name for alias in node.names}


@cache
def below(name: str) -> frozenset[str]:
    """Return all packages that a package needs, directly or by others."""
    direct = imports()[name]
    return frozenset(direct.union(*(below(other) for other in direct)))


def floor(name: str) -> int:
    """Return how high a package lies: one above the highest that it imports."""
    return 1 + max((floor(other) for other in imports()[name]), default=-1)


def floors() -> list[list[str]]:
    """Return the packages from the top to the ground, those of one height side by side."""
    heights = {name: floor(name) for name in imports()}
    return [
        sorted(name for name, height in heights.items() if height == wanted)
        for wanted in range(max(heights.values()), -1, -1)
    ]


def needed() -> list[tuple[str, str]]:
    """Return the imports without those that follow from others."""
    return [
        (name, other)
        for name, direct in imports().items()
        for other in sorted(direct)
        if not any(other in below(via) for via in direct - {other})
    ]


def drawing() -> str:
    """Return the graph in mermaid: an arrow for each import that does not follow from others."""
    lines = ["```mermaid", "flowchart TD"]
    for number, names in enumerate(floors()):
        lines += [f"  subgraph floor{number}[ ]", *(f"    {name}" for name in names), "  end"]
    lines += [f"  {name} --> {other}" for name, other in needed()]
    return "\n".join([*lines, "```"])


def packages() -> str:
    """Return the table of packages, from the top to the ground."""
    lines = []
    for name in (name for names in floors() for name in names):
        text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
        said = text.splitlines()[0].replace("``", "`")
        named = ", ".join(f"`{other}`" for other in sorted(imports()[name])) or "nothing"
        lines.append([f"`{name}`", said, named])
    return table(["package", "holds", "imports"], lines, left=3)
