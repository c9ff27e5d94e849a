"""Training by several processes that share every batch gives the updates of a single one."""

import runpy
from pathlib import Path

import pytest
import torch

from robustbench_cli.commands.train import _check_shared
from robustbench_cli.core.errors import UserError
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe, parse
from robustbench_cli.distributed.group import Shard

SCRIPT = Path(__file__).with_name("updates.py")

MEMBERS = {name: DEFENSES.entry(name).cls for name in DEFENSES.names()}
ALONE = [name for name, cls in MEMBERS.items() if cls.alone]


def quick(name):
    """Return the objective with two inner steps, or AWP from the first epoch."""
    known = {"steps": "2", "step": "0.5", "warmup": "0"}
    params = {key: known[key] for key in known if key in MEMBERS[name].__dataclass_fields__}
    return ":".join([name, ",".join(f"{k}={v}" for k, v in params.items())]).rstrip(":")


def recipes():
    """Return every objective, every modifier, and one recipe with several parts."""
    rest = [name for name in MEMBERS if name not in ALONE]
    objectives = [quick(name) for name in rest if issubclass(MEMBERS[name], Objective)]
    modifiers = [quick(name) for name in rest if issubclass(MEMBERS[name], Modifier)]
    return [*objectives, *(f"fast-at+{m}" for m in modifiers), "trades:steps=2+awp:warmup=0+he+ema"]


@pytest.fixture(scope="module")
def script():
    """Return what the script defines."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def updated(tmp_path_factory, script, two_processes):
    """Return the results of two processes, by recipe."""
    folder = tmp_path_factory.mktemp("updates")
    assert two_processes(lambda: script["update_all"](folder, recipes())) == [0, 0]
    return lambda text: torch.load(folder / f"{text}.pt")


@pytest.fixture(scope="module")
def alone(script):
    """Return the results of the same script in this single process."""
    return script["updated"]


@pytest.mark.parametrize("text", recipes())
def test_two_processes_make_the_updates_of_one(text, updated, alone):
    torch.testing.assert_close(updated(text), alone(text, Shard()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALONE)
def test_what_needs_a_whole_batch_says_so(name):
    recipe = Recipe.build(parse(name))
    with pytest.raises(UserError, match=f"{name} .* without torchrun"):
        _check_shared(recipe, Shard(0, 2))
    _check_shared(recipe, Shard())
