"""Recorded sweeps of chosen runs."""

import pytest

from robustbench_cli.core.registry import Spec
from robustbench_cli.figures import FIGURES, Feedback, Material

PGD = {"name": "pgd", "last_iterate": False}
LINF = {"norm": "Linf", "eps": 8 / 255}


@pytest.fixture
def curves(tmp_path):
    """Return the models that a figure would draw."""

    def read(kind, *names):
        notes = []
        feedback = Feedback(note=notes.append)
        material = Material(
            names=names, results=tmp_path, numbers=tmp_path / "none", feedback=feedback
        )
        paint = FIGURES.build(Spec(kind)).prepare(material)
        return [curve.model for panel in paint.args[0] for curve in panel.curves], notes

    return read


@pytest.fixture(autouse=True)
def records(trained, evaluated, kept, tmp_path):
    """Return two runs with a sweep over radii, one of them also over steps, and one run without."""
    one, two, bare = (trained(name, id=name, threat=LINF) for name in ("trades", "mart", "alp"))
    radii = {"pgd20@eps=0.1": (PGD, 50, {"eps": 0.1})}
    steps = {f"pgd@steps={k}": (PGD | {"steps": k}, 60) for k in (1, 10)}
    over_steps = evaluated(one, steps, sweep={"steps": [1, 10]}, id="over-steps")
    over_steps.config["attack"] = {"pgd": PGD}
    over_eps = [evaluated(run, radii, sweep={"eps": [0.1]}, id=f"e-{run.id}") for run in (one, two)]
    kept(tmp_path, one, two, bare, *over_eps, over_steps)


def test_without_names_every_sweep_is_drawn(curves):
    assert curves("eps") == (["trades", "mart"], [])
    assert curves("steps") == (["trades"], [])


def test_named_runs_only(curves):
    assert curves("eps", "mart") == (["mart"], [])
    assert curves("eps", "trades", "mart") == (["trades", "mart"], [])
    assert curves("eps", "e-trades") == (["trades"], [])  # an evaluation itself


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("eps", "advbench eval --run alp --attack pgd100 --sweep eps=0,2/255,...,16/255"),
        ("steps", "advbench eval --run alp --attack pgd --sweep steps=1,2,5,10,20,50,100"),
    ],
)
def test_a_run_without_a_sweep_gets_the_command_that_records_one(curves, kind, command):
    with pytest.raises(ValueError, match=f"no finished sweep over {kind} of alp; ") as caught:
        curves(kind, "alp")
    assert str(caught.value).endswith(f"record one: {command}")
    names, (note,) = curves(kind, "trades", "alp")
    assert names == ["trades"]
    assert note.endswith(command)
