"""Names, patterns, parameters, and mistakes in them."""

import importlib
import math
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.config import catalogue
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.models import MODELS
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[2]
REGISTRIES = [ATTACKS, DATASETS, DEFENSES, MODELS, OPTIMIZERS, SCHEDULES]


@pytest.mark.parametrize(
    ("text", "name", "params"),
    [
        ("pgd100", "pgd", {"steps": "100"}),
        ("pgd-20", "pgd", {"steps": "20"}),
        ("PGD40:step=1/30", "pgd", {"steps": "40", "step": "1/30"}),
        ("cw20", "cw", {"steps": "20"}),
        ("mim20", "mim", {"steps": "20"}),
        ("bim10", "bim", {"steps": "10"}),
        ("aa", "autoattack", {}),
        ("pgd:steps=5,restarts=3", "pgd", {"steps": "5", "restarts": "3"}),
    ],
)
def test_names_carry_steps_as_the_papers_write_them(text, name, params):
    spec = ATTACKS.resolve(Spec.parse(text))
    assert (spec.name, dict(spec.params)) == (name, params)


def test_values_are_coerced_by_type():
    attack = ATTACKS.build(Spec.parse("pgd40:step=1/30,last_iterate=true,start=gauss"))
    assert (attack.steps, attack.step, attack.last_iterate) == (40, 1 / 30, True)
    assert MODELS.build(Spec.parse("wrn-28-10")).depth == 28


def test_a_positional_parameter_may_hold_separators():
    spec = DATASETS.resolve(Spec.parse("folder:/data/a=b,c,size=32"))
    assert dict(spec.params) == {"path": "/data/a=b,c", "size": "32"} or spec.params["size"] == "32"


@pytest.mark.parametrize(
    ("registry", "text", "message"),
    [
        (ATTACKS, "pdg20", "unknown attack 'pdg20'; did you mean 'pgd'"),
        (ATTACKS, "pgd:stpes=5", "has no parameter 'stpes'; did you mean 'steps'"),
        (ATTACKS, "pgd:steps=ten", "parameter 'steps'.*integer.*'ten'"),
        (ATTACKS, "pgd:steps=-5", "parameter 'steps'.*greater than or equal to 1.*'-5'"),
        (ATTACKS, "pgd0", "parameter 'steps'.*greater than or equal to 1"),
        (ATTACKS, "pgd:step=0", "parameter 'step'.*greater than 0"),
        (ATTACKS, "pgd20:step=2/255", "step is a fraction of eps"),
        (ATTACKS, "pgd:start=zero", "'clean', 'uniform', 'gauss' or 'radial'"),
        (ATTACKS, "pgd:20", "expected key=value, got '20'"),
        (ATTACKS, ":steps=3", "expected a name"),
        (DEFENSES, "tradse", "did you mean 'trades'"),
        (DEFENSES, "trades:beta=-1", "parameter 'beta'.*greater than or equal to 0"),
        (MODELS, "wrn-29-10", "29"),
    ],
)
def test_mistakes_are_named(registry, text, message):
    with pytest.raises(UserError, match=message) as caught:
        registry.build(Spec.parse(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_component_describes_itself_so_that_it_can_be_rebuilt(registry):
    for name in registry.names():
        entry = registry.entry(name)
        given = {entry.positional: "x"} if entry.positional else {}
        own = {"wrn": {"depth": 10, "width": 1}, "ensemble": {"of": "pgd"}}
        given = {**own, "spatial": {"mode": "random"}}.get(name, given)
        built = registry.build(Spec(name, given))
        table = registry.describe(built)
        assert table.pop("name") == name
        assert registry.build(Spec(name, table)) == built
        assert entry.cls.__doc__, name
        assert not entry.cls.__doc__.startswith(entry.cls.__name__ + "(")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="already"):
        ATTACKS.register("aa")(type("Other", (), {}))


@pytest.mark.parametrize("kind", catalogue.REGISTRIES)
def test_no_setting_is_infinite_because_no_record_could_hold_it(kind):
    module, name = catalogue.REGISTRIES[kind]
    place = f"robustbench_cli.{module.replace('/', '.')}"
    registry = getattr(importlib.import_module(place), name)
    for known in registry.names():
        cls = registry.entry(known).cls
        types = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            for bad in (math.inf, math.nan):
                for value in (bad, [0.1, bad]):
                    with pytest.raises(ValidationError):
                        TypeAdapter(types[field.name]).validate_python(value)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda each: each.kind)
def test_a_name_means_one_thing_whatever_is_imported(registry):
    """Patterns are tried among what is imported: none may match what is another one's name."""
    entries = {name: registry.entry(name) for name in registry.names()}
    for name, entry in entries.items():
        for spelling in (name, *entry.aliases):
            matching = {
                other
                for other, each in entries.items()
                if spelling in (other, *each.aliases)
                or (each.pattern and re.fullmatch(each.pattern, spelling))
            }
            assert matching == {name}, spelling


def test_a_name_imports_the_module_that_is_called_like_it():
    code = (
        "import sys; from robustbench_cli.attacks import ATTACKS;"
        "from robustbench_cli.core.registry import Spec;"
        "[ATTACKS.build(Spec.parse(text)) for text in ('pgd20', 'apgd-ce', 'fgsm', 'fab-t')];"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    there = {*done.stdout.split()}
    assert {f"robustbench_cli.attacks.{each}" for each in ("pgd", "apgd", "fgsm", "fab")} <= there
    assert not {f"robustbench_cli.attacks.{each}" for each in ("universal", "spatial", "ddn")} & (
        there
    )
