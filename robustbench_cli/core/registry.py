"""Registries from names to components, such as attacks, defenses, models and data sets.

A component is a frozen dataclass of hyper-parameters.  The decorator ``@ATTACKS.register("name")``
is all that is needed to add one: on first use the registry imports every module of its package.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import AllowInfNan, BeforeValidator, Field, TypeAdapter, ValidationError

from robustbench_cli.core.errors import UserError, hint

_T = TypeVar("_T")
C = TypeVar("C", bound=type)


def _number(value: object) -> object:
    """Turn a text such as ``8/255`` into a float; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        return value  # the validator reports it


Number = Annotated[float, BeforeValidator(_number), AllowInfNan(False)]
"""A finite float that may be written as a fraction, ``8/255``; JSON could not record infinity."""
Seed = Annotated[int, Field(ge=0)]
LARGEST_INTEGER = 2**31 - 1
"""The largest whole number that a component takes: more steps or examples than any run has."""
"""A random seed."""


@dataclass(frozen=True)
class Spec:
    """A component's name and the parameters that were given, e.g. ``pgd:steps=50``."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """Values by parameter, not validated yet; the key "" holds a positional value."""
    label: str = ""
    """The text as the user wrote it, which tells two uses of one component apart."""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Parse ``name:key=value,key=value`` or ``name:value`` (a positional parameter).

        Raises:
            UserError: no name, or a part that is not ``key=value``.
        """
        name, _, tail = text.strip().partition(":")
        if not name:
            raise UserError(f"{text!r}: expected a name, as in 'pgd:steps=50'")
        params: dict[str, str] = {}
        for pair in filter(None, re.split(r",(?=[a-z_][a-z0-9_]*=)", tail)):
            key, eq, value = pair.partition("=")
            if eq and re.fullmatch(r"[a-z_][a-z0-9_]*", key.strip()):
                params[key.strip()] = value.strip()
            elif not params:
                params[""] = pair  # the component's positional parameter
            else:
                raise UserError(f"{text!r}: expected key=value, got {pair!r}")
        return cls(name.lower(), params, text.strip())


@dataclass(frozen=True)
class Entry:
    """One registered component and the other ways to write its name (see ``register``)."""

    cls: type
    aliases: tuple[str, ...] = ()
    pattern: str | None = None
    positional: str | None = None


class Registry(Generic[_T]):
    """Components of one kind, found by importing every module of ``package``."""

    def __init__(self, kind: str, package: str) -> None:
        """Create an empty registry; nothing is imported yet.

        Args:
            kind: what a component is called in messages, e.g. "attack".
            package: the dotted name of the package with the components.
        """
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(
        self,
        name: str,
        *,
        aliases: tuple[str, ...] = (),
        pattern: str | None = None,
        positional: str | None = None,
    ) -> Callable[[C], C]:
        """Return a decorator that adds a dataclass under ``name``.

        Args:
            aliases: other names for it, e.g. ``("aa",)``.
            pattern: a regular expression whose named groups become parameters, so that
                ``pgd100`` can mean ``pgd:steps=100``.
            positional: the parameter that ``name:value`` sets, e.g. ``"path"``.

        Raises:
            ValueError: when the decorator is applied and one of the names is taken.
        """

        def add(cls: C) -> C:
            taken = {n: e.cls for known, e in self._entries.items() for n in (known, *e.aliases)}
            for each in (name, *aliases):
                if each in taken:
                    raise ValueError(f"{self.kind} {each!r} is already {taken[each]!r}")
            cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
            self._entries[name] = Entry(cls, aliases, pattern, positional)
            return cls

        return add

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order, without aliases."""
        self._load()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Return the entry that ``name``, an alias or a pattern stands for.

        Raises:
            UserError: an unknown name; the message suggests the nearest one.
        """
        return self._find(name)[1]

    def accepts(self, name: str, parameter: str) -> bool:
        """Return True if the component called ``name`` has this parameter."""
        return parameter in [f.name for f in fields(self.entry(name).cls)]

    def resolve(self, spec: Spec) -> Spec:
        """Return the spec under its registered name, with pattern and position as parameters.

        Raises:
            UserError: an unknown name, a positional value that the component does not take, or a
                parameter that is given twice.
        """
        name, entry, read = self._find(spec.name)
        given = dict(spec.params)
        if "" in given:
            value = given.pop("")
            if entry.positional is None:
                wanted = ", ".join(f.name for f in fields(entry.cls)) or "no parameters"
                raise UserError(
                    f"{self.kind} {spec.label!r}: expected key=value, got {value!r}; "
                    f"it has {wanted}"
                )
            given[entry.positional] = value
        twice = sorted({*read} & {*given})
        if twice:
            raise UserError(f"{self.kind} {spec.label!r} gives {twice[0]!r} twice")
        return Spec(name, {**read, **given}, spec.label)

    def build(self, spec: Spec) -> _T:
        """Return the component with validated parameters.

        Raises:
            UserError: an unknown name or parameter, or a value that is not allowed.
        """
        spec = self.resolve(spec)
        cls = self._entries[spec.name].cls
        try:
            built = cast("_T", _validator(cls).validate_python(dict(spec.params)))
        except ValidationError as error:
            raise UserError(_explain(self.kind, spec.name, cls, error)) from None
        for each in fields(cls):
            value = getattr(built, each.name)
            if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
                raise UserError(
                    f"{self.kind} {spec.name!r}, parameter {each.name!r}: at most "
                    f"{LARGEST_INTEGER}, got {value}"
                )
        return built

    def name_of(self, component: Any) -> str:
        """Return the registered name of a component's class, else the class's own name."""
        names = (n for n, entry in self._entries.items() if entry.cls is type(component))
        return next(names, type(component).__name__)

    def describe(self, component: Any) -> dict[str, Any]:
        """Return the name and all parameters with their values, as records store them.

        A class may name parameters in ``omitted_at_default``: then records in which they are not
        set are those of versions that did not have them.
        """
        omitted = getattr(component, "omitted_at_default", ())
        usual = {each.name: each.default for each in fields(component) if each.name in omitted}
        given = asdict(component).items()
        table = {key: value for key, value in given if key not in usual or value != usual[key]}
        return {"name": self.name_of(component), **table}

    def _find(self, name: str) -> tuple[str, Entry, dict[str, str]]:
        found = self._known(name)
        if found is None:
            self._import_likely(name)
            found = self._known(name)
        if found is None:
            self._load()
            found = self._known(name)
        if found is not None:
            return found
        every_name = [n for known, e in self._entries.items() for n in (known, *e.aliases)]
        # Compare without trailing digits, which are a pattern's steps: pdg20 is meant to be pgd.
        plain = name.rstrip("0123456789-")
        near = hint(plain or name, every_name, f"advbench list {self.kind}s")
        raise UserError(f"unknown {self.kind} {name!r}{near}")

    def _known(self, name: str) -> tuple[str, Entry, dict[str, str]] | None:
        """Return what a name means among the components that are imported; no two share one."""
        if name in self._entries:
            return name, self._entries[name], {}
        for known, entry in self._entries.items():
            if name in entry.aliases:
                return known, entry, {}
            match = entry.pattern and re.fullmatch(entry.pattern, name)
            if match:
                return known, entry, {k: v for k, v in match.groupdict().items() if v is not None}
        return None

    def _import_likely(self, name: str) -> None:
        """Import the module that is called like the component, or like the beginning of its name.

        To import them all takes longer than most commands run.
        """
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        there = {each.name for each in pkgutil.iter_modules(getattr(package, "__path__", []))}
        words = re.findall(r"[a-z]+|[0-9]+", name)
        for count in range(len(words), 0, -1):
            module = "_".join(words[:count])
            if module in there:
                importlib.import_module(f"{self.package}.{module}")
                return

    def _load(self) -> None:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", []), ""):
                if not module.name.startswith("_"):  # code that members share
                    importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True


@cache
def _validator(cls: type[_T]) -> TypeAdapter[_T]:
    """Return the validator of a dataclass; cached, as building it takes longer than using it."""
    return TypeAdapter(cls)


def _explain(kind: str, name: str, cls: type, error: ValidationError) -> str:
    """Return the first of a validator's errors as one line in the words of the command line."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "unexpected_keyword_argument":
        known = [f.name for f in fields(cls)]
        return f"{kind} {name!r} has no parameter {key!r}{hint(key, known)}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{kind} {name!r}: {message}"
    return f"{kind} {name!r}, parameter {key!r}: {message}, got {first['input']!r}"
