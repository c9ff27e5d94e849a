"""The catalogue of everything there is to choose from, read from source text, not imported.

Lists and the shell's completion must not wait seconds for torch.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from robustbench_cli.config import presets
from robustbench_cli.core.errors import UserError, hint

_ROLES = {"Objective": "objective", "Modifier": "modifier"}
_URL = re.compile(r"https?://[^\s,;)>]*[^\s,;)>.]")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One component, preset, suite or study that a user can name."""

    kind: str
    name: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    """The first sentence of its description."""
    group: str = ""
    """``objective`` or ``modifier``, for a part of a defense."""
    paper: str = ""
    """Its publication: the first paragraph of the docstring that has the links."""
    links: tuple[str, ...] = ()
    pattern: str | None = None
    """A regular expression for other spellings, which include parameters: ``pgd100``."""
    positional: str | None = None
    """The parameter that ``name:value`` sets."""
    path: Path

    def means(self, name: str) -> bool:
        """Return whether ``name`` is a spelling of this item."""
        known = name in (self.name, *self.aliases)
        return known or bool(self.pattern and re.fullmatch(self.pattern, name))

    def spellings(self) -> list[str]:
        """Return other ways to write it; the first form of a pattern as ``pgd<steps>``."""
        form = re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", self.pattern or "")
        form = re.sub(r"\(\?:([^|)]*)[^)]*\)", r"\1", form)
        return [*self.aliases, *filter(None, [re.sub(r".\?", "", form)])]


def scan(kind: str, package: Path = presets.PACKAGE) -> list[Item]:
    """Return all items of one kind, sorted by name.

    Raises:
        UserError: an unknown kind, or a file that cannot be read.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{hint(kind, KINDS)}")
    return sorted(KINDS[kind](kind, package), key=lambda item: item.name)


def _registered(place: str, registry: str, kind: str, package: Path) -> tuple[Item, ...]:
    """Return the classes under ``@registry.register(...)`` in a module or a folder of modules."""
    folder = package.joinpath(*place.split("."))
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return _members(kind, registry, tuple((file, _content(file)) for file in files))


@lru_cache(maxsize=64)
def _members(kind: str, registry: str, sources: tuple[tuple[Path, bytes], ...]) -> tuple[Item, ...]:
    """Return what files with this content register; cached, for parsing takes much longer than
    reading.
    """
    modules = {file: _parsed(file, content) for file, content in sources}
    classes = [
        (file, node)
        for file, module in modules.items()
        for node in module.body
        if isinstance(node, ast.ClassDef)
    ]
    bases = {node.name: [_last_name(base) for base in node.bases] for _, node in classes}
    return tuple(
        _item(kind, file, modules[file], node, call, _role(node.name, bases))
        for file, node in classes
        for call in node.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{registry}.register"
    )


def _item(
    kind: str, file: Path, module: ast.Module, node: ast.ClassDef, call: ast.Call, group: str
) -> Item:
    meaning, source = ast.get_docstring(node) or "", ast.get_docstring(module) or ""
    try:
        name = ast.literal_eval(call.args[0])
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (ValueError, IndexError):
        raise UserError(
            f"{file}, line {call.lineno}: register() takes its name and options written out"
        ) from None
    cited = next((text for text in (meaning, source) if _URL.search(text)), "")
    return Item(
        kind=kind,
        name=name,
        aliases=tuple(options.get("aliases", ())),
        summary=_sentence(meaning),
        group=group,
        paper=_paragraph(cited),
        links=tuple(dict.fromkeys(_URL.findall(cited))),
        pattern=options.get("pattern"),
        positional=options.get("positional"),
        path=file,
    )


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _parsed(file: Path, content: bytes) -> ast.Module:
    try:
        return ast.parse(content, str(file))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _last_name(base: ast.expr) -> str:
    return ast.unparse(base).partition("[")[0].rpartition(".")[2]


def _role(name: str, bases: Mapping[str, list[str]]) -> str:
    """Return the group of the first known class among the ancestors, e.g. ``modifier``."""
    parents = bases.get(name, [])
    found = (_ROLES.get(parent) or _role(parent, bases) for parent in parents)
    return next(filter(None, found), "")


def _paragraph(text: str) -> str:
    """Return the first paragraph of a docstring in one line, without addresses."""
    plain = " ".join(text.partition("\n\n")[0].split()).replace("``", "")
    return re.sub(rf",?\s*{_URL.pattern}", "", plain).removesuffix(".")


def _sentence(text: str) -> str:
    """Return the first sentence of a docstring."""
    # A full stop ends a sentence where a capital follows: "et al., 2017" goes on.
    return re.split(r"\.\s+(?=[A-Z])", _paragraph(text), maxsplit=1)[0]


def _presets(folder: str, kind: str, package: Path) -> Iterator[Item]:
    """Return the TOML files of a kind: inside an installed package, or beside it in a checkout."""
    for file in presets.files(folder, package).values():
        try:
            first = file.read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read: {error}") from None
        said = _sentence(first.lstrip("# ")) if first.startswith("#") else ""
        yield Item(kind=kind, name=file.stem, summary=said, path=file)


REGISTRIES: Mapping[str, tuple[str, str]] = {
    "defenses": ("defenses", "DEFENSES"),
    "metric-defenses": ("metric_learning", "METRIC_DEFENSES"),
    "attacks": ("attacks", "ATTACKS"),
    "retrieval-attacks": ("metric_learning.retrieval", "RETRIEVAL_ATTACKS"),
    "input-defenses": ("input_defenses", "INPUT_DEFENSES"),
    "views": ("views", "VIEWS"),
    "masks": ("masks", "MASKS"),
    "transforms": ("transforms", "TRANSFORMS"),
    "certificates": ("certificates", "CERTIFICATES"),
    "detectors": ("detectors", "DETECTORS"),
    "explanations": ("explanations", "EXPLANATIONS"),
    "generators": ("generators", "GENERATORS"),
    "models": ("models", "MODELS"),
    "sources": ("models.sources", "SOURCES"),
    "datasets": ("data", "DATASETS"),
    "optimizers": ("optim", "OPTIMIZERS"),
    "schedules": ("optim", "SCHEDULES"),
    "figures": ("figures", "FIGURES"),
    "checks": ("audit", "CHECKS"),
    "logs": ("training.logs", "LOGS"),
    "launchers": ("commands.launchers", "LAUNCHERS"),
}
"""The package and the name of the registry of each kind of component."""

KINDS: Mapping[str, Callable[[str, Path], Iterable[Item]]] = {
    **{kind: partial(_registered, *where) for kind, where in REGISTRIES.items()},
    "presets": partial(_presets, ""),
    "suites": partial(_presets, "suites"),
    "studies": partial(_presets, "studies"),
}
"""The kinds that ``advbench list`` shows, in that order, each with the function that reads it."""


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter, with its type and its default as text."""

    name: str
    type: str
    default: str
    meaning: str


def parameters(cls: type) -> list[Parameter]:
    """Return the hyper-parameters of a component's class, in order."""
    types, meanings = get_type_hints(cls, include_extras=True), _meanings(cls)
    return [
        Parameter(
            field.name,
            _type(types[field.name]),
            "required" if field.default is MISSING else typed(field.default),
            meanings.get(field.name, ""),
        )
        for field in fields(cls)
    ]


def typed(value: object) -> str:
    """Return a value as a user would type it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(typed, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _meanings(cls: type) -> dict[str, str]:
    """Return the docstring of each field, its own or the inherited one."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        found |= _own_meanings(each)
    return found


@lru_cache(maxsize=1024)
def _own_meanings(cls: type) -> dict[str, str]:
    """Return the docstrings of the fields in a class's own source, which Python is slow to find."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    return {
        ast.unparse(field.target): _paragraph(ast.literal_eval(below.value))
        for field, below in pairwise(getattr(node, "body", []))
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


_WORDS = {int: "int", float: "number", bool: "true | false", str: "text", NoneType: "none"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _type(annotation: Any) -> str:
    """Return a type with its bounds, ``int >= 1``, from the annotation that validates it."""
    first, *rest = get_args(annotation) or (annotation,)
    if get_origin(annotation) is Annotated:
        limits = [each for extra in rest for each in getattr(extra, "metadata", [extra])]
        pairs = [(sign, getattr(x, key, None)) for x in limits for key, sign in _BOUNDS.items()]
        bounds = ", ".join(f"{sign} {bound:g}" for sign, bound in pairs if bound is not None)
        return f"{_type(first)} {bounds}".strip()
    if get_origin(annotation) is tuple:
        return f"list of {_type(first)}"
    words = [_type(each) for each in (first, *rest)] if rest else [_WORDS.get(first, str(first))]
    return " | ".join(words)
