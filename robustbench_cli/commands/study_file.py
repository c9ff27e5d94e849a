"""A study as a file: defenses x seeds x attacks x data, and whatever else is to be run."""

import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from robustbench_cli.config import presets
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Seed

STUDIES = "studies"
"""The folder of the shipped studies, below the presets."""
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """What a study does on one data set: words for every command, and the runs to make."""

    __pydantic_config__ = _STRICT

    train: str = ""
    eval: str = ""
    only: tuple[str, ...] = ()
    """The names of the runs to make; none: all."""
    runs: dict[str, str] = field(default_factory=dict)
    """Words of single runs on this data set, in place of those in ``Study.runs``."""
    on_request: bool = False
    """True if it is left out unless ``--dataset`` names it."""


def _as_tables(value: Any) -> Any:
    """Return ``data = ["digits", "mnist"]`` as a table of empty tables."""
    return {name: {} for name in value} if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Study:
    """The contents of a study's file."""

    __pydantic_config__ = _STRICT

    seeds: tuple[Seed, ...] = (0, 1, 2)
    defenses: tuple[str, ...] = ()
    """Each is trained with every seed on all data: ``trades:beta=3+awp``."""
    attacks: tuple[str, ...] = ()
    """Each is run on every trained model: ``pgd20``."""
    train: str = ""
    """Words that follow every ``advbench train``."""
    eval: str = ""
    """Words that follow every ``advbench eval``."""
    columns: str = ""
    """The columns of its table, as after ``report --columns``; empty: all."""
    data: Annotated[dict[str, StudyData], BeforeValidator(_as_tables)]
    runs: dict[str, str] = field(default_factory=dict)
    """What follows ``advbench train``, by the name of the run; ``{name}`` stands for the id of
    another run, and ``{results}`` for the folder that holds them all."""
    steps: dict[str, str] = field(default_factory=dict)
    """Other commands by name, without ``advbench``, with the same placeholders as in ``runs``; the
    folder that a step fills has its name."""


def load_study(name: str) -> Study:
    """Return a study by its name, or by the path of a TOML file.

    The rows of its matrix are among its runs, and the attacks among its words for ``eval``.

    Raises:
        UserError: there is none, it is damaged, or it leaves open what to train or to attack with.
    """
    path = Path(name) if name.endswith(".toml") else presets.preset_file(name, STUDIES)
    if not path.is_file():
        raise UserError(f"there is no study file {name!r}; advbench study new {name} writes one")
    try:
        found = TypeAdapter(Study).validate_python(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"study {str(path)!r} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"study {str(path)!r}, {where}: {first['msg']}") from None
    try:
        return _unrolled(found)
    except UserError as error:
        raise UserError(f"study {str(path)!r}: {error}") from None


def _unrolled(study: Study) -> Study:
    """Return the study with its matrix written out as runs and words."""
    rows = _by_plain_name(study.defenses, "defenses")
    if twice := rows.keys() & study.runs.keys():
        raise UserError(f"{min(twice)!r} is among the defenses and among the runs")
    if not (rows or study.runs or study.steps):
        raise UserError('it trains nothing: add defenses = ["pgd-at", "trades"]')
    if not study.data:
        raise UserError('it has no data set: add data = ["digits"]')
    _by_plain_name([*study.data], "data")
    beside = [*study.runs, *study.steps, *(name for d in study.data.values() for name in d.runs)]
    if odd := [name for name in beside if plain_name(name) != name]:
        raise UserError(f"{odd[0]!r} is to name a folder: call it {plain_name(odd[0])!r}")
    attacks = shlex.join(word for each in study.attacks for word in ("--attack", each))
    words = " ".join(filter(None, (attacks, study.eval)))
    judged = all(words or each.eval for each in study.data.values())
    if (rows or study.runs) and not judged:
        raise UserError('it attacks with nothing: add attacks = ["pgd20"]')
    runs = {name: shlex.quote(defense) for name, defense in rows.items()}
    return replace(study, runs={**runs, **study.runs}, eval=words)


def _by_plain_name(texts: Sequence[str], section: str) -> dict[str, str]:
    """Return the texts by their names as folders; raise ``UserError`` where two have the same."""
    found: dict[str, str] = {}
    for text in texts:
        name = plain_name(text)
        if name in found:
            raise UserError(
                f"{section}: {found[name]!r} and {text!r} would share the folder {name!r}; name "
                "them apart, e.g. under [runs]"
            )
        found[name] = text
    return found


def plain_name(text: str) -> str:
    """Return a name that any file system takes: ``trades-beta-3+awp``, ``hf-photos``.

    Of a path only the last part is in it, so that nothing is nested.
    """
    kind, colon, rest = text.partition(":")
    path, comma, parameters = rest.partition(",")
    short = f"{kind}{colon}{Path(path).name}{comma}{parameters}" if "/" in path else text
    return re.sub(r"[^\w.+]+", "-", short).strip("-.+") or "study"


def study_title(name: str) -> str:
    """Return what the folder of a study is called."""
    return plain_name(Path(name).stem)


def read_seeds(typed: Sequence[str]) -> tuple[int, ...]:
    """Return the seeds that were typed, each once.

    Raises:
        UserError: a text is not a whole number.
    """
    wrong = [text for text in typed if not text.strip().isdecimal()]
    if wrong:
        raise UserError(f"--seeds: {wrong[0]!r} is no seed; give whole numbers, e.g. 0,1,2")
    return tuple(dict.fromkeys(map(int, typed)))


def with_seeds(study: Study, typed: Sequence[str]) -> Study:
    """Return the study with other seeds; raise ``UserError`` as ``read_seeds`` does."""
    return replace(study, seeds=read_seeds(typed))


def chosen_data(study: Study, typed: Sequence[str]) -> list[str]:
    """Return the data sets to go through: those that were typed, or else all but those that are
    run on request only.

    Raises:
        UserError: the study has no such data set, or each is on request.
    """
    for name in typed:
        if name not in study.data:
            raise UserError(f"this study has no data set {name!r}{hint(name, study.data)}")
    chosen = [*dict.fromkeys(typed)] or [
        name for name, data in study.data.items() if not data.on_request
    ]
    if not chosen:
        raise UserError(f"name a data set with --dataset: {', '.join(study.data)}")
    return chosen
