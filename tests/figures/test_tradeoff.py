"""Clean against robust accuracy: points, curves, labels and notes."""

import json
import math
from pathlib import Path

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.registry import Spec
from robustbench_cli.figures import FIGURES, Feedback, Material, _style
from robustbench_cli.figures._scatter import paint_tradeoff
from robustbench_cli.report.columns import WORST
from robustbench_cli.runs.outcomes import Checkpoint

ROOT = Path(__file__).parents[2]
REAL = ROOT / "results" / "reference" / "at-family-digits"
PGD, CW, FGSM = ({"name": name} for name in ("pgd", "cw", "fgsm"))


@pytest.fixture
def recipe(trained):
    """Return a maker of TRADES training records; ``beta`` and ``steps`` as the record has them."""

    def make(subject, seed=0, *, beta=6.0, steps=10, **changes):
        part = {"name": "trades", "beta": beta, "steps": steps, "start": "gauss"}
        return trained(subject, seed, defense={"trades": part}, **changes)

    return make


@pytest.fixture
def draw(kept, tmp_path):
    """Write the records; return the panels that a figure would draw, and its notes."""

    def read(*runs, kind="tradeoff", names=(), results=tmp_path):
        kept(tmp_path, *runs)
        notes = []
        feedback = Feedback(note=notes.append)
        material = Material(
            names=names, results=results, numbers=tmp_path / "none", feedback=feedback
        )
        return FIGURES.build(Spec.parse(kind)).prepare(material).args[0], notes

    return read


def called(panels):
    """Return the names and labels of every curve of the only panel."""
    (panel,) = panels
    return [(curve.name, curve.labels) for curve in panel.curves]


def test_a_curve_follows_its_parameter_and_the_default_counts(recipe, evaluated, draw):
    made = [
        *(recipe("trades:beta=10", beta=10.0), recipe("trades")),
        *(recipe("trades:beta=0.5", beta=0.5), recipe("pgd-at", steps=7)),
    ]
    judged = [
        evaluated(run, {"pgd20": (PGD, correct)}, clean=clean)
        for run, clean, correct in zip(made, (80, 85, 90, 88), (56, 53, 40, 45), strict=True)
    ]
    panels, notes = draw(*made, *judged)
    assert called(panels) == [("trades", ("beta=0.5", "beta=6", "beta=10")), ("pgd-at", ())]
    curve = panels[0].curves[0]
    assert [cell.mean for cell in curve.clean] == pytest.approx([0.9, 0.85, 0.8])
    assert [cell.mean for cell in curve.robust] == pytest.approx([0.4, 0.53, 0.56])
    assert panels[0].title == "mnist, Linf 0.3, n 100"
    assert not notes


def test_points_are_means_and_bars_deviations_over_seeds(recipe, evaluated, draw):
    pytest.importorskip("matplotlib")
    made = [recipe("trades", seed) for seed in (0, 1)]
    numbers = zip(made, (90, 94), (40, 50), strict=True)
    judged = [evaluated(run, {"pgd20": (PGD, y)}, clean=x) for run, x, y in numbers]
    panels, _ = draw(*made, *judged)
    page = paint_tradeoff(panels)
    (bars,) = page.axes[0].containers
    point, _, (across, up) = bars
    assert point.get_xydata().tolist() == [[92, 45]]
    (left, right), (below, above) = across.get_segments()[0], up.get_segments()[0]
    # Of two values the sample deviation is their distance over the root of two.
    assert right - left == pytest.approx([2 * 4 / math.sqrt(2), 0])
    assert above - below == pytest.approx([0, 2 * 10 / math.sqrt(2)])
    assert page.legends[0].get_title().get_text() == "bars: ± standard deviation over seeds"
    single, _ = draw(results=REAL, names=("trades-s0-eval",))
    assert not paint_tradeoff(single).legends[0].get_title().get_text()


def test_recorded_runs_are_drawn_as_their_records_say(draw):
    names = tuple(f"{run}-s{seed}" for run in ("trades", "trades-beta1") for seed in (0, 1))
    panels, notes = draw(results=REAL, names=names)
    assert called(panels) == [("trades", ("beta=1", "beta=6"))]
    assert panels[0].column == WORST
    assert not notes
    (curve,) = panels[0].curves
    for place, run in enumerate(("trades-beta1", "trades")):
        files = [REAL / f"{run}-s{seed}-eval" / "run.json" for seed in (0, 1)]
        said = [json.loads(file.read_text()) for file in files]
        for cells, key in ((curve.clean, "clean_accuracy"), (curve.robust, "worst_case_accuracy")):
            assert cells[place].values == tuple(record[key] for record in said)
    chosen, _ = draw(results=REAL, names=names, kind="tradeoff:attack=pgd20")
    said = json.loads((REAL / "trades-s1-eval" / "run.json").read_text())
    assert chosen[0].column == "pgd20"
    assert chosen[0].curves[0].robust[1].values[1] == said["attacks"]["pgd20"]["correct"] / 100


@pytest.mark.parametrize(
    ("subject", "changes"),
    [
        ("trades:beta=1,steps=5", {"beta": 1.0, "steps": 5}),
        ("trades:beta=1", {"beta": 1.0, "train": {"epochs": 10, "lr": 0.1}}),
        ("trades:beta=1", {"beta": 1.0, "model": {"name": "lenet"}}),
        ("trades:beta=one", {"beta": "one"}),
        ("trades:beta=true", {"beta": True}),
    ],
)
def test_what_differs_in_more_than_one_number_is_no_curve(
    recipe, evaluated, draw, subject, changes
):
    made = [recipe("trades"), recipe(subject, **changes)]
    panels, _ = draw(*made, *(evaluated(run, {"pgd20": (PGD, 50)}) for run in made))
    assert [labels for _, labels in called(panels)] == [(), ()]


def test_a_point_is_on_one_curve_the_longest(recipe, evaluated, draw):
    made = [
        recipe("trades:steps=5", steps=5),
        *(recipe(f"trades:beta={beta}", beta=float(beta)) for beta in (1, 3, 9)),
        recipe("trades"),
        recipe("trades:steps=20", steps=20),
    ]
    panels, _ = draw(*made, *(evaluated(run, {"pgd20": (PGD, 50)}) for run in made))
    betas, steps = ("beta=1", "beta=3", "beta=6", "beta=9"), ("steps=5", "steps=20")
    # Both would be called trades.
    assert called(panels) == [("trades:beta=1", betas), ("trades:steps=5", steps)]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("trades:steps=10,beta={}", "trades:steps=10"),
        ("trades:beta={},steps=10", "trades:steps=10"),
        ("trades:steps=10,beta={}+awp:gamma=1", "trades:steps=10+awp:gamma=1"),
        ("trades:beta={}+awp", "trades+awp"),
    ],
)
def test_a_curve_is_called_what_its_points_share(recipe, evaluated, draw, subject, name):
    made = [recipe(subject.format(beta), beta=float(beta)) for beta in (1, 2)]
    panels, _ = draw(*made, *(evaluated(run, {"pgd20": (PGD, 50)}) for run in made))
    assert called(panels) == [(name, ("beta=1", "beta=2"))]


def test_comparable_rows_share_a_panel(recipe, evaluated, draw):
    made = [recipe("trades"), recipe("trades:beta=1", beta=1.0)]
    judged = [
        evaluated(made[0], {"pgd20": (PGD, 50)}),
        evaluated(made[0], {"pgd20": (PGD, 9)}, clean=9, n=10),
        evaluated(made[1], {"pgd20": (PGD, 50)}, eps=0.1),
    ]
    panels, _ = draw(*made, *judged)
    titles = [panel.title for panel in panels]
    assert titles == ["mnist, Linf 0.1, n 100", "mnist, Linf 0.3, n 100", "mnist, Linf 0.3, n 10"]
    assert [called([panel]) for panel in panels] == [
        [("trades:beta=1", ())],
        *[[("trades", ())]] * 2,
    ]


def test_models_are_told_apart(recipe, evaluated, draw):
    made = [recipe("trades"), recipe("trades:beta=1", beta=1.0, model={"name": "lenet"})]
    panels, _ = draw(*made, *(evaluated(run, {"pgd20": (PGD, 50)}) for run in made))
    assert [name for name, _ in called(panels)] == ["trades small-cnn", "trades:beta=1 lenet"]


@pytest.fixture
def pair(recipe, evaluated):
    """Return two recipes that make no curve, with the accuracies measured of each, by attack."""

    def make(first, second):
        made = [recipe("trades", id="one"), recipe("mart", steps=7, beta=1.0, id="two")]
        tried = zip(made, (first, second), strict=True)
        judged = [evaluated(run, found, id=f"{run.id}-eval") for run, found in tried]
        return [*made, *judged]

    return make


def columns(panels):
    """Return the column on the axis of the only panel, and its values."""
    (panel,) = panels
    return panel.column, [round(100 * cell.mean) for c in panel.curves for cell in c.robust]


def test_worst_is_shown_where_all_met_the_same_attacks(pair, draw):
    both = {"pgd20": (PGD, 50), "cw20": (CW, 45)}
    assert columns(draw(*pair(both, both))[0]) == (WORST, [45, 45])


def test_elsewhere_it_is_the_strongest_attack_in_common(pair, draw):
    weak = {"fgsm": (FGSM, 70), "pgd20": (PGD, 50)}
    strong = {"fgsm": (FGSM, 60), "pgd20": (PGD, 55), "cw20": (CW, 30)}
    panels, notes = draw(*pair(weak, strong))
    assert columns(panels) == ("pgd20", [50, 55])
    assert not notes


def test_worst_compares_only_if_all_seeds_met_the_same_attacks(recipe, evaluated, draw):
    made = [recipe("trades", seed) for seed in (0, 1)]
    one = evaluated(made[0], {"fgsm": (FGSM, 70), "pgd20": (PGD, 50)})
    two = evaluated(made[1], {"fgsm": (FGSM, 60)})
    panels, notes = draw(*made, one, two)
    assert columns(panels) == ("fgsm", [65])
    assert not notes
    panels, notes = draw(kind="tradeoff:attack=pgd20")
    assert columns(panels) == ("pgd20", [50])
    assert notes == ["mnist, Linf 0.3, n 100: pgd20 not of all seeds: trades"]


def test_any_column_can_be_chosen(pair, draw):
    weak, strong = {"fgsm": (FGSM, 70)}, {"fgsm": (FGSM, 60), "cw20": (CW, 30)}
    made = pair(weak, strong)
    panels, notes = draw(*made, kind="tradeoff:attack=cw20")
    assert called(panels) == [("mart", ())]
    assert notes == ["mnist, Linf 0.3, n 100: left out, without cw20: trades"]
    assert columns(draw(kind="tradeoff:attack=worst")[0]) == (WORST, [70, 30])


def test_the_last_epoch_s_weights_are_not_mixed_in(recipe, evaluated, draw):
    best = recipe("trades", rule="best")
    last = Checkpoint(file="last", sha256="l", epoch=30, rule="last")
    kept = evaluated(best, {"pgd20": (PGD, 50)}, evaluated=best.checkpoint)
    late = evaluated(best, {"pgd20": (PGD, 20)}, clean=95, weights="l", evaluated=last)
    panels, _ = draw(best, kept, late)
    assert columns(panels) == (WORST, [50])
    (curve,) = panels[0].curves
    assert [cell.mean for cell in curve.clean] == [0.9]


@pytest.fixture
def refused(tmp_path, capsys):
    """Run the command; return the line of its error."""
    pytest.importorskip("matplotlib")

    def run(*args):
        capsys.readouterr()
        out = tmp_path / "a.png"
        assert main(["plot", *args, "--results", str(tmp_path), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert not out.exists()
        return said.removeprefix("advbench: ").strip()

    return run


def test_mistakes_cost_one_line(pair, recipe, kept, refused, tmp_path):
    nothing = f"no finished evaluation in {str(tmp_path)!r}; make one: advbench eval --attack pgd20"
    assert refused("tradeoff") == nothing
    kept(tmp_path, *pair({"pgd20": (PGD, 50)}, {"cw20": (CW, 50)}), recipe("trades", id="bare"))
    assert refused("tradeoff:attack=pdg20") == "unknown column 'pdg20'; did you mean 'pgd20'?"
    assert refused("tradeoff:attack=clean") == "unknown column 'clean'; known: cw20, pgd20, worst"
    assert refused("tradeoff:atack=pgd20").endswith("did you mean 'attack'?")
    assert refused("tradeoff") == (
        "mnist, Linf 0.3, n 100: no attack was tried on all rows; choose one by attack=NAME: "
        "cw20, pgd20"
    )
    assert refused("tradeoff", "bare") == (
        "no finished evaluation of bare; make one: advbench eval --run bare --attack pgd20"
    )


def test_named_runs_only(pair, recipe, draw):
    made = pair({"pgd20": (PGD, 50)}, {"cw20": (CW, 50)})
    panels, notes = draw(*made, recipe("trades", id="bare"), names=("one", "bare"))
    assert called(panels) == [("trades", ())]
    assert notes == [
        "no finished evaluation of bare; make one: advbench eval --run bare --attack pgd20"
    ]
    assert called(draw(names=("two-eval",))[0]) == [("mart", ())]


@pytest.fixture
def page(recipe, evaluated, draw):
    """Return a laid-out page with one curve over beta, of these clean and robust accuracies."""
    mpl = pytest.importorskip("matplotlib")

    def make(betas, clean, robust):
        made = [recipe(f"trades:beta={beta}", beta=beta) for beta in betas]
        panels, _ = draw(
            *made,
            *(
                evaluated(run, {"pgd20": (PGD, y)}, clean=x)
                for run, x, y in zip(made, clean, robust, strict=True)
            ),
        )
        with mpl.rc_context(_style.STYLE):
            page = paint_tradeoff(panels)
            page.draw_without_rendering()
        return page

    return make


@pytest.mark.parametrize("robust", [(100, 50, 0), (98, 97, 2), (0, 50, 100), (50, 50, 50)])
def test_no_label_meets_the_frame_or_leaves_the_page(page, robust):
    drawn = page((0.125, 1.0, 1000.0), (0, 60, 100), robust)
    (axes,) = drawn.axes
    assert {text.get_text() for text in axes.texts} == {"beta=0.125", "beta=1", "beta=1000"}
    frame, title = axes.get_window_extent(), axes.title.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.x0 > frame.x0
        assert box.y0 > frame.y0
        assert box.x1 < drawn.bbox.x1
        assert box.y1 < title.y0
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        assert all(0 <= tick <= 100 for tick in axis.get_ticklocs() if low <= tick <= high)


def test_labels_in_a_crowd_do_not_cover_each_other(page):
    betas = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0)
    drawn = page(betas, (91, 90, 88, 87, 87, 83, 82, 82), (27, 38, 42, 45, 44, 50, 51, 51))
    texts = drawn.axes[0].texts
    says = [text.get_text() for text in texts]
    assert len(says) > len(betas) // 2
    assert {text.rpartition("=")[2] for text in says} <= {f"{beta:g}" for beta in betas}
    assert "beta=0.1" in says
    boxes = [text.get_window_extent().padded(-2) for text in texts]
    assert not any(box.count_overlaps(boxes[:place]) for place, box in enumerate(boxes))


def test_a_long_legend_stands_beside_the_panel_and_is_no_higher(recipe, evaluated, draw):
    mpl = pytest.importorskip("matplotlib")
    names = [
        f"pgd-at+method-{i} (train.epochs=20, train.lr={i}, train.select=best)" for i in range(29)
    ]
    made = [recipe(name, threat={"norm": "Linf", "eps": 0.3}, mark=name) for name in names]
    panels, _ = draw(*made, *(evaluated(run, {"pgd20": (PGD, 50)}) for run in made))
    with mpl.rc_context(_style.STYLE):
        page = paint_tradeoff(panels)
        page.draw_without_rendering()
    (legend,), (axes,) = page.legends, page.axes
    box, frame = legend.get_window_extent(), axes.get_window_extent()
    assert len(legend.get_texts()) == 29
    assert box.x0 > frame.x1
    assert box.x1 <= page.bbox.x1
    assert box.y0 >= page.bbox.y0
    assert frame.width > 0.3 * page.bbox.width
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(set(texts)) == 29
    assert max(len(line) for text in texts for line in text.splitlines()) <= _style.BROADEST


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_a_picture_is_made_without_torch(pair, kept, tmp_path, without_torch, ending, start):
    pytest.importorskip("matplotlib")
    kept(tmp_path, *pair({"pgd20": (PGD, 50)}, {"pgd20": (PGD, 40)}))
    out = tmp_path / f"a.{ending}"
    args = ["plot", "tradeoff", "--results", tmp_path, "--out", out]
    done = without_torch(*args)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert out.read_bytes().startswith(start)
