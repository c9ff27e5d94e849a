"""Reading source text gives what importing it gives, and costs less."""

import importlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt

from robustbench_cli.config import catalogue, presets
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number

ROOT = Path(__file__).parents[2]


def registry(kind):
    place, name = catalogue.REGISTRIES[kind]
    return getattr(importlib.import_module(f"robustbench_cli.{place.replace('/', '.')}"), name)


@pytest.mark.parametrize("kind", catalogue.REGISTRIES)
def test_everything_registered_is_found_and_nothing_else(kind):
    known = registry(kind)
    found = catalogue.scan(kind)
    assert [item.name for item in found] == known.names()
    for item in found:
        entry = known.entry(item.name)
        assert (item.aliases, item.pattern, item.positional) == (
            entry.aliases,
            entry.pattern,
            entry.positional,
        )
        assert item.path == Path(sys.modules[entry.cls.__module__].__file__)
        assert item.summary
        assert not item.summary.endswith(".")


def test_a_defense_is_an_objective_or_a_modifier():
    from robustbench_cli.defenses import Modifier, Objective

    classes = {"objective": Objective, "modifier": Modifier}
    for item in catalogue.scan("defenses"):
        assert issubclass(registry("defenses").entry(item.name).cls, classes[item.group])


def test_presets_and_suites_are_those_that_can_be_loaded():
    assert [item.name for item in catalogue.scan("presets")] == presets.preset_names()
    assert [item.name for item in catalogue.scan("suites")] == presets.preset_names("suites")
    assert all(item.summary for kind in ("presets", "suites") for item in catalogue.scan(kind))


def test_a_method_s_paper_and_link_are_found():
    (pgd,) = (item for item in catalogue.scan("attacks") if item.name == "pgd")
    assert pgd.paper == "Projected gradient descent (Madry et al., 2018)"
    assert pgd.links == ("https://arxiv.org/abs/1706.06083",)


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_a_scan_is_quick(kind):
    spent = []
    for _ in range(3):
        catalogue._members.cache_clear()  # what another command would find
        began = time.process_time()
        catalogue.scan(kind)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.2


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from robustbench_cli.config import catalogue as c;"
        "[c.scan(kind) for kind in c.KINDS];"
        "sys.exit(str({'torch', 'pydantic', 'rich', 'typer'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr.strip() == ""


def test_an_unknown_kind_is_an_error_with_the_nearest():
    with pytest.raises(UserError, match="unknown kind 'atacks'; did you mean 'attacks'"):
        catalogue.scan("atacks")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "bad.py cannot be read"),
        ("\0", "bad.py cannot be read"),
        ("@ATTACKS.register(NAME)\nclass A: ...\n", "bad.py, line 1"),
        ("@ATTACKS.register()\nclass A: ...\n", "bad.py, line 1"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(tmp_path, text, said):
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "bad.py").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        catalogue.scan("attacks", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_new_file_is_all_it_takes(tmp_path):
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "__init__.py").write_text("class Modifier: ...\n")
    (tmp_path / "defenses" / "own.py").write_text(
        '"""Own (Me et al., 2026), https://example.org/own.\n\nMore."""\n'
        "class Base(defenses.Modifier[int]): ...\n"
        "@DEFENSES.register('own', aliases=('mine',), positional='x')\n"
        "@dataclass\n"
        'class Own(Base):\n    """Do ``it`` as Me et al. did. Then rest."""\n'
    )
    (item,) = catalogue.scan("defenses", tmp_path)
    assert item == catalogue.Item(
        kind="defenses",
        name="own",
        aliases=("mine",),
        summary="Do it as Me et al. did",
        group="modifier",
        paper="Own (Me et al., 2026)",
        links=("https://example.org/own",),
        positional="x",
        path=tmp_path / "defenses" / "own.py",
    )


@pytest.mark.parametrize(
    ("kind", "name", "spellings"),
    [
        ("attacks", "pgd", ["pgd<steps>"]),
        ("attacks", "bim", ["i-fgsm", "bim<steps>"]),
        ("models", "wrn", ["wrn<depth>-<width>"]),
        ("defenses", "pgd-at", ["at", "madry"]),
    ],
)
def test_other_spellings_are_shown(kind, name, spellings):
    (item,) = (item for item in catalogue.scan(kind) if item.name == name)
    assert item.spellings() == spellings


def test_a_name_is_known_in_every_spelling():
    (wrn,) = (item for item in catalogue.scan("models") if item.name == "wrn")
    assert all(map(wrn.means, ("wrn", "wrn-28-10", "wide-resnet-34-20")))
    assert not wrn.means("wrn-28")


@dataclass(frozen=True)
class Parent:
    steps: Annotated[int, Field(ge=1)] = 20
    """How many."""
    share: Annotated[Number, Field(gt=0, le=1)] = 0.25
    """Of what ``steps``
    are."""
    start: str = ""
    """Anything."""


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    steps: Annotated[int, Field(ge=1)] = 10
    start: Literal["clean", "uniform"] = "clean"
    """Where."""
    width: PositiveInt | None = None
    marks: tuple[Annotated[Number, Field(ge=0)], ...] = (0.5, 0.75)
    on: bool = False
    path: str


def test_parameters_are_explained():
    found = [(p.name, p.type, p.default, p.meaning) for p in catalogue.parameters(Child)]
    assert sorted(found) == [
        ("marks", "list of number >= 0", "[0.5, 0.75]", ""),
        ("on", "true | false", "false", ""),
        ("path", "text", "required", ""),
        ("share", "number > 0, <= 1", "0.25", "Of what steps are"),
        ("start", "clean | uniform", "clean", "Where"),
        ("steps", "int >= 1", "10", "How many"),
        ("width", "int > 0 | none", "none", ""),
    ]
