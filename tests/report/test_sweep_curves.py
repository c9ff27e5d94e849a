"""What sweeps become as lines, and the files that are drawn of them."""

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.figures._sweep_plot import MAX_LINES, _line_styles, draw
from robustbench_cli.report.sweep_curves import CurvePoint, SweepCurve, SweepPanel, panels

PGD20 = {"name": "pgd", "steps": 20, "last_iterate": False}
ELL = "\N{SCRIPT SMALL L}"
FGSM = {"name": "fgsm", "steps": 1, "last_iterate": False}


@pytest.fixture
def over_eps(evaluated):
    """A sweep over radii: parent, radius -> right answers."""

    def make(parent, correct, params=PGD20, label="pgd20", **more):
        points = {f"{label}@eps={e:g}": (params, c, {"eps": e}) for e, c in correct.items()}
        return evaluated(parent, points, sweep={"eps": list(correct)}, **more)

    return make


@pytest.fixture
def over_steps(evaluated):
    """A sweep over steps."""

    def make(parent, correct, params=PGD20, label="pgd20", **more):
        points = {f"{label}@steps={k}": (params | {"steps": k}, c) for k, c in correct.items()}
        run = evaluated(parent, points, sweep={"steps": list(correct)}, **more)
        run.config["attack"] = {label: params}
        return run

    return make


def read(panel):
    """Model and attack -> value: accuracy."""
    return {
        (curve.model, curve.attack): {point.at: point.mean for point in curve.points}
        for curve in panel.curves
    }


def test_a_curve_begins_at_the_clean_images(trained, over_eps):
    parent = trained()
    (panel,) = panels([parent, over_eps(parent, {0.2: 20, 0.1: 50}, clean=90)])
    assert read(panel) == {("trades", "pgd20"): {0.0: 0.9, 0.1: 0.5, 0.2: 0.2}}
    assert [point.at for point in panel.curves[0].points] == [0, 0.1, 0.2]
    assert panel.title == "mnist, Linf, n 100"


def test_seeds_are_joined(trained, over_eps):
    runs = []
    for seed, right in ((0, 50), (1, 54)):
        parent = trained(seed=seed)
        runs += [parent, over_eps(parent, {0: 90, 0.1: right})]
    (panel,) = panels(runs)
    (curve,) = panel.curves
    assert [point.mean for point in curve.points] == [0.9, 0.52]
    assert [point.std for point in curve.points] == [0, pytest.approx(0.0282843, abs=1e-7)]


def test_the_evaluation_s_own_radius_does_not_part_sweeps_over_radii(trained, over_eps):
    one, two = trained(), trained("mart")
    runs = [one, two, over_eps(one, {0.1: 50}, eps=0.3), over_eps(two, {0.1: 60}, eps=8 / 255)]
    (panel,) = panels(runs)
    assert list(read(panel)) == [("trades", "pgd20"), ("mart", "pgd20")]
    again = over_eps(one, {0.2: 30}, eps=0.2)
    (panel,) = panels([*runs, again])
    assert read(panel)["trades", "pgd20"] == {0: 0.9, 0.1: 0.5, 0.2: 0.3}


def test_steps_are_a_panel_of_their_own_at_one_radius(trained, over_eps, over_steps):
    parent = trained()
    radii, steps = over_eps(parent, {0.1: 50}), over_steps(parent, {50: 30, 1: 70}, eps=8 / 255)
    first, second = panels([parent, steps, radii])
    assert (first.over, second.over) == ("eps", "steps")
    assert read(second) == {("trades", "pgd"): {1: 0.7, 50: 0.3}}
    assert second.title == "mnist, Linf 8/255, n 100"


@pytest.mark.parametrize("changes", [{"n": 60, "clean": 50}, {"sha": "other"}, {"norm": "L2"}])
def test_what_cannot_be_compared_is_in_two_panels(trained, over_eps, changes):
    parent = trained()
    runs = [parent, over_eps(parent, {0.1: 50}), over_eps(parent, {0.1: 40}, **changes)]
    assert [len(panel.curves) for panel in panels(runs)] == [1, 1]


def test_a_line_for_each_attack_and_each_source(trained, over_eps):
    one, two = trained(), trained("standard")
    runs = [
        *(one, two),
        over_eps(one, {0.1: 50}),
        over_eps(one, {0.1: 60}, FGSM, "fgsm"),
        over_eps(one, {0.1: 80}, source=two),
    ]
    (panel,) = panels(runs)
    assert {attack: line[0.1] for (_, attack), line in read(panel).items()} == {
        "pgd20": 0.5,
        "fgsm": 0.6,
        "pgd20 from standard": 0.8,
    }


def test_the_last_epoch_s_weights_have_curves_of_their_own(trained, over_eps, tmp_path):
    pytest.importorskip("matplotlib")
    parent = trained(rule="best")
    parent = replace(parent, last=replace(parent.checkpoint, sha256="last", rule="last"))
    late = {"evaluated": parent.last, "weights": "last"}
    last = over_eps(parent, {0.1: 30}, clean=80, **late)
    (panel,) = panels([parent, last])
    assert read(panel) == {("trades", "pgd20 last"): {0: 0.8, 0.1: 0.3}}
    assert draw([panel], tmp_path / "p")
    best = over_eps(parent, {0.1: 50}, evaluated=parent.checkpoint)
    (panel,) = panels([parent, last, best])
    assert read(panel) == {
        ("trades", "pgd20"): {0: 0.9, 0.1: 0.5},
        ("trades", "pgd20 last"): {0: 0.8, 0.1: 0.3},
    }


def test_other_evaluations_are_no_curves(trained, evaluated, over_eps):
    parent = trained()
    usual = evaluated(parent, {"pgd20": (PGD20, 40)})
    assert panels([parent, usual]) == []
    half = over_eps(parent, {0.1: 50}, status="interrupted")
    assert panels([parent, usual, half]) == []
    assert panels([parent, over_eps(parent, {0.1: 50})], dataset="digits") == []


def panel(models=("trades",), attacks=("pgd20",), values=(0, 4 / 255, 8 / 255), **changes):
    """Falling lines."""
    curves = tuple(
        SweepCurve(
            model=model,
            attack=attack,
            points=tuple(
                CurvePoint(at=x, mean=0.9 - i / 10, std=0.02) for i, x in enumerate(values)
            ),
        )
        for model in models
        for attack in attacks
    )
    fields = {"over": "eps", "dataset": "mnist", "norm": "Linf", "eps": None, "n": 100}
    return SweepPanel(**{**fields, **changes}, curves=curves)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw; return all texts on the picture."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    made = []
    real = Figure.__init__
    monkeypatch.setattr(
        Figure,
        "__init__",
        lambda self, *args, **kw: (made.append(self), real(self, *args, **kw))[1],
    )

    def run(*found):
        files = draw(list(found), tmp_path / "curves")
        assert [file.name for file in files] == ["curves.png", "curves.svg", "curves.pdf"]
        ET.parse(files[1])
        return [text.get_text() for text in made[-1].findobj(Text) if text.get_text()]

    return run


def test_the_picture_names_what_it_shows(drawn):
    texts = drawn(panel(["trades", "standard"]), panel(over="steps", eps=0.3, values=(1, 10, 100)))
    assert texts.count("robust accuracy (%)") == 2
    assert {"trades, pgd20", "standard, pgd20"} < set(texts)
    assert {"mnist, Linf, n 100", "mnist, Linf 0.3, n 100", "steps"} < set(texts)
    assert "bands: ± standard deviation over seeds" in texts


@pytest.mark.parametrize(
    ("values", "norm", "label", "ticks"),
    [
        ((0, 2 / 255, 7 / 255), "Linf", f"radius ({ELL}∞, 1/255)", {"2", "7"}),
        ((0, 0.5 / 255, 1 / 255), "Linf", f"radius ({ELL}∞, 1/255)", {"0.5", "1"}),
        ((0, 0.1, 0.2), "Linf", f"radius ({ELL}∞)", {"0.1", "0.2"}),
        ((0, 64 / 255, 128 / 255), "L2", f"radius ({ELL}2)", {"0.251", "0.502"}),
    ],
)
def test_radii_are_in_the_unit_they_were_meant_in(drawn, values, norm, label, ticks):
    assert {label, *ticks} < set(drawn(panel(values=values, norm=norm)))


def test_ticks_that_would_overlap_are_left_out(drawn):
    texts = drawn(panel(over="steps", eps=0.3, values=(1, 5, 99, 100, 101, 1000)))
    assert {"1", "5", "99", "1000"} < set(texts)
    assert "101" not in texts


def test_many_lines_get_a_panel_for_each_attack(drawn):
    models = [f"model{i}" for i in range(MAX_LINES)]
    texts = drawn(panel(models, ["pgd20", "fgsm"]))
    assert {"pgd20: mnist, Linf, n 100", "fgsm: mnist, Linf, n 100"} < set(texts)
    assert [text for text in texts if text.startswith("model")] == models


def test_every_line_has_a_look_of_its_own():
    for models, attacks in ((20, 1), (1, 20), (7, 5)):
        many = panel([f"m{i}" for i in range(models)], [f"a{i}" for i in range(attacks)])
        looks = _line_styles(many.curves)
        assert len(set(looks.values())) == len(looks) == models * attacks


def test_names_cannot_break_a_picture(drawn):
    texts = drawn(panel(["_a$b$\n<c>&_{", "x" * 90]))
    assert " _a$b$ <c>&_{, pgd20" in texts


def test_the_same_numbers_make_the_same_files(drawn, tmp_path):
    import matplotlib as mpl

    names = ("curves.png", "curves.svg", "curves.pdf")
    drawn(panel())
    first = [(tmp_path / name).read_bytes() for name in names]
    with mpl.rc_context({"axes.grid": False, "font.size": 30}):  # a user's own style
        drawn(panel())
    assert [(tmp_path / name).read_bytes() for name in names] == first
    assert not re.search(rb"<dc:date>|20\d\d-\d\d", first[1])
    assert not list(tmp_path.glob(".*"))


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[plot\]' where"):
        draw([panel()], tmp_path / "curves")


def test_a_sweep_under_a_mask_is_drawn_by_itself(trained, evaluated, over_eps):
    run = trained()
    plain, masked = (over_eps(run, {0.1: right, 0.3: right - 20}) for right in (60, 80))
    threat = {**masked.config["threat"], "mask": "box:share=0.5"}
    masked = replace(masked, config={**masked.config, "threat": threat})
    found = panels([run, plain, masked])
    assert [panel.title for panel in found] == [
        "mnist, Linf, n 100",
        "mnist, Linf, mask box:share=0.5, n 100",
    ]
    assert [len(panel.curves) for panel in found] == [1, 1]
