"""Accuracies over the epochs of training, drawn from records."""

from dataclasses import replace
from pathlib import Path

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.figures.history import drops, mean_track, paint_history, track

ROOT = Path(__file__).parents[2]
LINF = {"norm": "Linf", "eps": 8 / 255}


def epochs(rates, **shares):
    """Return one row per epoch; ``shares`` gives the values of each column."""
    rows = zip(*shares.values(), strict=True)
    return [
        {"epoch": at, "lr": rate, **dict(zip(shares, row, strict=True))}
        for at, (rate, row) in enumerate(zip(rates, rows, strict=True), 1)
    ]


@pytest.fixture
def overfitted(trained):
    """Return a run whose held-out robust accuracy falls after the learning rate drops; epoch 3 is
    kept."""

    def make(subject="pgd-at", *, held="val", **changes):
        history = epochs(
            [0.1, 0.1, 0.01, 0.01],
            train_clean=[0.5, 0.6, 0.8, 0.9],
            train_robust=[0.3, 0.4, 0.6, 0.8],
            **{f"{held}_clean": [0.5, 0.6, 0.7, 0.75], f"{held}_robust": [0.3, 0.4, 0.5, 0.45]},
        )
        run = trained(subject, id=subject, threat=LINF, dataset={"name": "mnist"})
        kept = replace(run.checkpoint, epoch=3, rule="best")
        return replace(run, **{"history": history, "checkpoint": kept, **changes})

    return make


def test_what_a_record_says_is_what_is_drawn(overfitted):
    found = track(overfitted(), "pgd-at")
    assert found.lines["robust", "val"] == [(1, 0.3), (2, 0.4), (3, 0.5), (4, 0.45)]
    assert found.lines["clean", "train"] == [(1, 0.5), (2, 0.6), (3, 0.8), (4, 0.9)]
    assert (found.on, found.kept, found.drops) == ("val", 3, (2,))
    assert track(overfitted(held="test"), "pgd-at").on == "test"


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], (2, 4)),
        ([0.1, 0.01, 0.01, 0.001], (1, 3)),
        ([0.1, 0.1, 0.01], (2,)),
        ([0.1, 0.08, 0.05, 0.02, 0.001], ()),  # a cosine
        ([0.02, 0.1, 0.1, 0.1], ()),  # a warm-up
        ([0.1], ()),
    ],
)
def test_drops_of_the_learning_rate(rates, expected):
    assert drops(list(enumerate(rates, 1))) == expected


def test_epochs_without_a_measurement_are_left_out(overfitted):
    run = overfitted()
    run.history[1].update(val_robust=None)
    assert [epoch for epoch, _ in track(run, "x").lines["robust", "val"]] == [1, 3, 4]
    for row in run.history:
        row.update(dict.fromkeys(("train_clean", "train_robust", "val_clean", "val_robust")))
    with pytest.raises(UserError, match="run 'pgd-at' has measured no accuracies"):
        track(run, "x")


def test_curves_are_in_per_cent_and_the_kept_epoch_is_marked(overfitted):
    pytest.importorskip("matplotlib")
    page = paint_history([track(overfitted(), "a"), track(overfitted("trades"), "b")], "mnist")
    robust = page.axes[1]
    curves = [list(map(tuple, line.get_xydata())) for line in robust.get_lines()]
    assert curves.count([(1, 30), (2, 40), (3, 50), (4, 45)]) == 2
    assert curves.count([(3, 50)]) == 2  # the stars
    assert robust.get_ylabel() == "robust accuracy, PGD-10 (%)"
    (legend,) = page.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("a", "b", "training images", "held-out images", "kept epoch", "learning rate drop"),
    ]
    colours = {line.get_color() for line in robust.get_lines() if len(line.get_xydata()) == 4}
    assert len(colours) == 2


def test_a_file_for_each_format(overfitted, kept, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    kept(tmp_path / "results", overfitted(), overfitted("trades"))
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        file = tmp_path / f"a{ending}"
        args = ["pgd-at", "trades", "--results", str(tmp_path / "results"), "--out", str(file)]
        assert main(["plot", "history", *args]) == 0
        said = capsys.readouterr()
        assert (said.out, said.err) == (f"{file}\n", "")
        assert file.read_bytes().startswith(start)


def test_seeds_are_joined_as_mean_and_band(overfitted, kept, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    first, second = overfitted(), overfitted()
    second = replace(second, id="other", seed=1, config={**first.config, "seed": 1})
    for row in second.history:
        row["val_robust"] += 0.1
    one, two = track(first, "a"), track(second, "a")
    assert mean_track([one]) is one
    joined = mean_track([one, two])
    assert joined.name == "a (2 seeds)"
    assert joined.seeds == (one, two)
    assert joined.drops == (2,)
    epochs, shares = zip(*joined.lines["robust", "val"], strict=True)
    assert epochs == (1, 2, 3, 4)
    assert shares == pytest.approx([0.35, 0.45, 0.55, 0.5])
    assert joined.spread["robust", "val"] == pytest.approx([0.1 / 2**0.5] * 4)
    page = paint_history([joined], "mnist")
    bands = page.axes[1].collections
    assert len(bands) == 2  # training and held-out images
    stars = [tuple(x[0]) for x in (i.get_xydata() for i in page.axes[1].lines) if len(x) == 1]
    assert stars == [pytest.approx((3, 50)), pytest.approx((3, 60))]
    # The command joins what differs in nothing but the seed, and says nothing of seeds elsewhere.
    kept(tmp_path / "results", first, second, overfitted("trades"))
    args = ["pgd-at", "other", "trades", "--results", str(tmp_path / "results")]
    assert main(["plot", "history", *args, "--out", str(tmp_path / "a.svg")]) == 0
    drawn = (tmp_path / "a.svg").read_text()
    assert "<!-- pgd-at (2 seeds) -->" in drawn
    assert "<!-- trades -->" in drawn
    assert not capsys.readouterr().err


def test_seeds_without_a_common_epoch_are_told(overfitted):
    first, second = (track(overfitted(), "a") for _ in range(2))
    late = {key: [(epoch + 9, share) for epoch, share in of] for key, of in second.lines.items()}
    with pytest.raises(UserError, match="the 2 seeds of 'a' share no measured epoch"):
        mean_track([first, replace(second, lines=late)])


def test_a_run_without_held_out_images_says_so_and_is_drawn(overfitted, kept, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = overfitted()
    for row in run.history:
        row.update(val_clean=None, val_robust=None)
    kept(tmp_path / "results", run)
    args = ["plot", "history", "--results", str(tmp_path / "results"), "--out"]
    assert main([*args, str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("run 'pgd-at' measured no held-out images")
    for way in ("--set train.validation=1000", "--set train.select=oracle"):
        assert way in said.err
    assert said.err.count("\n") == 1
    assert main([*args, str(tmp_path / "a.png"), "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_runs_of_different_settings_are_told_apart(overfitted, kept, tmp_path):
    pytest.importorskip("matplotlib")
    other = overfitted("trades")
    other.config["threat"] = {"norm": "L2", "eps": 0.5}
    kept(tmp_path / "results", overfitted(), other)
    args = ["pgd-at", "trades", "--results", str(tmp_path / "results")]
    # Texts of an SVG are outlines; glyphs are drawn after a comment that holds the text.
    assert main(["plot", "history", *args, "--out", str(tmp_path / "a.svg")]) == 0
    drawn = (tmp_path / "a.svg").read_text()
    assert "<!-- pgd-at (mnist, Linf 8/255) -->" in drawn
    assert "<!-- trades (mnist, L2 0.5) -->" in drawn


def test_a_record_that_lacks_its_threat_is_named(overfitted, kept, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = overfitted()
    run.config.pop("threat")
    kept(tmp_path / "results", run)
    assert main(["plot", "history", "--results", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert said == "advbench: run 'pgd-at' is damaged: its record has no 'threat'\n"


def test_an_evaluation_has_no_epochs(overfitted, evaluated, kept, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = overfitted()
    judged = evaluated(run, {"fgsm": ({"name": "fgsm"}, 50)}, id="judged")
    kept(tmp_path / "results", run, judged)
    assert main(["plot", "history", "judged", "--results", str(tmp_path / "results")]) == 2
    assert "run 'judged' is of kind 'eval'; name a training run" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["history", "steps"])
def test_figures_of_records_do_not_import_torch(
    overfitted, evaluated, kept, tmp_path, without_torch, kind
):
    pytest.importorskip("matplotlib")
    run, params = overfitted(), {"name": "pgd", "last_iterate": False}
    points = {f"pgd@steps={k}": (params | {"steps": k}, 50) for k in (1, 10)}
    swept = evaluated(run, points, sweep={"steps": [1, 10]})
    swept.config["attack"] = {"pgd": params}
    kept(tmp_path / "results", run, swept)
    args = ["plot", kind, "pgd-at", "--results", tmp_path / "results", "--out", tmp_path / "a.png"]
    done = without_torch(*args)
    assert done.returncode == 0, done.stderr
