"""Measures of ``advbench retrieve`` beside published ones: which, in which unit, what differs."""

from dataclasses import replace

import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS
from robustbench_cli.papers.compare import beside
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.retrieval_rows import ERS, attack_row, score_row

DML, TRADES = load_paper("robust-dml"), load_paper("trades")
EPS, STEP = 77 / 255, 3 / 77
EST = {"name": "est", "loss": "triplet", "margin": "auto", "miner": "random"}
EST |= {"steps": 32, "step": STEP}
FAITHFUL = {
    "defense": {"est": EST},
    "dataset": {"name": "fashion-mnist"},
    "model": {"name": "madry-cnn", "normalize": True, "hidden": 1024},
    "embedding": {"dim": 512, "unit": True, "per_class": 2},
    "threat": {"norm": "Linf", "eps": EPS},
    "train": {"epochs": 16, "limit": 0},
    "task": "metric",
}
CLEAN = {"R@1": 0.75, "R@2": 0.85, "mAP": 0.6, "mAP@R": 0.5, "mAP@10": 0.65, "mean distance": 0.9}
UNDER = {
    "ca+": {"CA+": 0.15},
    "tma": {"R@1": 0.2, "TMA": 0.9},
    "es": {"R@1": 0.3, "ES:D": 1.25, "ES:R": 0.5},
}
NO_SHARES = {"mean distance": "higher", "TMA": "lower", "ES:D": "lower", "ERS": "higher"}
COLLAPSED = "embeddings have collapsed: two of the gallery are 0.01 norms apart on average"


@pytest.fixture
def fashion(trained):
    """A maker of training records in robrank's setting; ``config`` replaces sections."""

    def make(subject="metric est", data="fashion-mnist", **config):
        return trained(subject, data=data, **{**FAITHFUL, **config})

    return make


@pytest.fixture
def found(evaluated):
    """A maker of records of retrieval, as ``advbench retrieve --attack es ...`` leaves them."""

    def make(run, *, under=UNDER, clean=CLEAN, eps=EPS, params=None, n=1000, **changes):
        tables = {
            label: {"name": label, "steps": 32, "step": STEP, "start": "clean", **(params or {})}
            for label in under
        }
        rows = {"clean": clean, **{attack_row(label, eps): each for label, each in under.items()}}
        rows |= changes.pop("more", {})
        notes = changes.pop("notes", {})
        measures = [
            Measure(
                of=of,
                name=name,
                value=value,
                n=n,
                better=NO_SHARES.get(name, "higher"),
                unit="" if name in NO_SHARES else "%",
                note=notes.get(name, ""),
            )
            for of, values in rows.items()
            for name, value in values.items()
        ]
        judged = evaluated(run, {}, worst=0, eps=eps, n=n, kind="retrieve", **changes)
        config = {**judged.config, "embedding": run.config.get("embedding", {})}
        config |= {"retrieve": {"norm": "Linf", "radii": [eps], "attacks": tables, "n": 0}}
        dataset = {**judged.dataset, "test_sha256": "f"}
        return replace(judged, config=config, dataset=dataset, measures=measures, checked=None)

    return make


def row(runs, method="EST (rc2f2d) / ptripletN", paper=DML, table="robrank"):
    """The numbers of one row, by what was measured."""
    pairs = beside(paper, paper.only(table), runs)
    return {pair.cell.metric: pair for pair in pairs if pair.cell.method == method}


def said(pair):
    return list(map(str, (*pair.training, *pair.attack)))


def test_measures_in_the_paper_s_setting_differ_in_nothing_and_have_its_unit(fashion, found):
    run = fashion()
    pairs = row([run, found(run)])
    ours = {name: pair.ours for name, pair in pairs.items() if pair.measured}
    # robrank prints recalls and precisions as shares, ranks in per cent, and two as they are.
    assert ours == {
        "R@1": 0.75, "R@2": 0.85, "mAP": 0.6, "mAP@R": 0.65,
        "CA+": 15.0, "TMA": 0.9, "ES:D": 1.25, "ES:R": 50.0,
    }  # fmt: skip
    for name in ours:
        assert said(pairs[name]) == [], name
        assert pairs[name].points == pytest.approx(ours[name] - float(pairs[name].cell.value))
    assert pairs["R@1"].points == pytest.approx(0.75 - 0.766)
    assert pairs["CA+"].points == pytest.approx(15 - 14.9)
    directions = {name: pairs[name].measured.better for name in ours}
    assert directions == {name: NO_SHARES.get(name, "higher") for name in ours}
    assert pairs["CA-"].measured is None
    assert pairs["NMI"].measured is None


def test_robrank_s_average_precision_of_ten_places_is_no_other_one(fashion, found):
    run = fashion()
    without = {name: value for name, value in CLEAN.items() if name != "mAP@10"}
    pairs = row([run, found(run, clean=without)])
    assert pairs["mAP@R"].measured is None
    assert pairs["mAP"].ours == 0.6


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"train": {"epochs": 5, "limit": 2000}}, ["epochs 5 (16)", "training images 2000 (all)"]),
        ({"threat": {"norm": "Linf", "eps": 0.1}}, ["trained at eps 0.1 (77/255)"]),
        ({"embedding": {"dim": 128, "unit": True}}, ["embedding dim 128 (512)"]),
        ({"model": {"name": "madry-cnn", "hidden": 64}}, ["model hidden 64 (1024)"]),
        ({"defense": {"est": {**EST, "miner": "distance", "steps": 4, "step": 0.5}}},
         ["miner distance (random)", "steps 4 (32)", "step/eps 1/2 (3/77)"]),
    ],
)  # fmt: skip
def test_what_differs_in_training_is_told_of_every_measure(fashion, found, config, told):
    run = fashion(**config)
    pairs = row([run, found(run)])
    for name in ("R@1", "mAP@R", "CA+", "TMA"):
        assert said(pairs[name]) == told, name


@pytest.mark.parametrize(
    ("changes", "clean", "attacked"),
    [
        ({"params": {"steps": 8}}, [], ["steps 8 (32)"]),
        ({"params": {"step": 0.25}}, [], ["step/eps 1/4 (3/77)"]),
        ({"eps": 0.1}, [], ["eps 0.1 (77/255)"]),
        ({"n": 100}, ["queries 100 (1000)"], ["queries 100 (1000)"]),
    ],
)
def test_what_differs_in_the_attack_is_told(fashion, found, changes, clean, attacked):
    run = fashion()
    pairs = row([run, found(run, **changes)])
    assert said(pairs["R@1"]) == clean
    # A step is stated in pixel values, so that at another radius it is another share of it.
    steps = [text for text in said(pairs["ES:D"]) if "eps" not in changes or "step" not in text]
    assert steps == attacked


def test_embeddings_of_norm_1_stand_beside_the_rows_of_such_only(fashion, found):
    free = fashion(embedding={"dim": 512, "unit": False})
    runs = [free, found(free)]
    assert row(runs)["R@1"].measured is None
    assert said(row(runs, "EST (rc2f2d) / ptripletE")["R@1"]) == []
    assert row(runs, "EST (rc2f2d) / ptripletC")["R@1"].measured is None
    assert row(runs, "ACT (rc2f2p) / ptripletN")["R@1"].measured is None


def test_another_data_set_is_not_compared(fashion, found):
    run = fashion(data="mnist", dataset={"name": "mnist"})
    assert {pair.measured for pair in row([run, found(run)]).values()} == {None}


def test_a_measure_is_no_accuracy_and_an_accuracy_no_measure(trained, evaluated, found, fashion):
    trades = {"trades": {"name": "trades", "steps": 40, "step": 1 / 30, "beta": 6.0}}
    threat = {"norm": "Linf", "eps": 0.3}
    run = trained(defense=trades, dataset={"name": "mnist"}, threat=threat)
    odd = found(run, under={"fgsm": {"R@1": 0.2}}, eps=0.3)
    assert not any(pair.measured for pair in beside(TRADES, TRADES.cells, [run, odd]))
    plain = fashion()
    attack = {"name": "es", "steps": 32, "step": STEP}
    judged = evaluated(plain, {"es": (attack, 40)}, eps=EPS)
    assert {pair.measured for pair in row([plain, judged]).values()} == {None}


def test_seeds_are_joined_the_latest_of_each_whatever_else_a_run_measured(fashion, found):
    runs = [fashion(seed=seed) for seed in (0, 1)]
    old = found(runs[0], clean={**CLEAN, "R@1": 0.1})
    first = found(runs[0], clean={**CLEAN, "R@1": 0.7})
    # Clean images do not depend on the attacks and the radius that a run asked for besides.
    other = found(runs[1], clean={**CLEAN, "R@1": 0.8}, under={"es": {"ES:D": 1.75}}, eps=0.1)
    pairs = row([*runs, old, first, other])
    assert pairs["R@1"].ours == pytest.approx(0.75)
    assert pairs["R@1"].std == pytest.approx(0.005**0.5)
    assert pairs["R@1"].measured.accuracy.seeds == 2
    assert (pairs["ES:D"].ours, pairs["ES:D"].std) == (1.25, None)
    last = found(runs[1], under={"es": {"ES:D": 1.75}, "ca+": {"CA+": 0.25}})
    pairs = row([*runs, old, first, other, last])
    assert (pairs["ES:D"].ours, pairs["ES:D"].std) == (1.5, pytest.approx(0.125**0.5))
    assert (pairs["CA+"].ours, pairs["CA+"].std) == (20.0, pytest.approx(50**0.5))


def test_what_collapse_loses_is_withheld_with_its_reason_and_the_rest_is_marked(fashion, found):
    run, other = fashion(), fashion(seed=1)
    fell = {"clean": CLEAN, "under": {"es": {"ES:D": None, "ES:R": 0.5}}}
    marks = dict.fromkeys((*CLEAN, "ES:D", "ES:R"), COLLAPSED)
    one = row([run, found(run, notes=marks, **fell)])
    assert (one["ES:D"].ours, one["ES:D"].points) == (None, None)
    assert one["ES:D"].trust.state == "withheld"
    assert (one["ES:R"].ours, one["ES:R"].trust) == (50.0, None)
    assert one["ES:D"].measured.notes == one["ES:R"].measured.notes == (COLLAPSED,)
    # The mean over the seeds that have not collapsed would be one of chosen seeds.
    both = row([run, other, found(run, notes=marks, **fell), found(other)])
    assert both["ES:D"].ours is None
    assert both["ES:D"].measured.notes == (COLLAPSED,)
    assert both["R@1"].measured.notes == (COLLAPSED,)


def published_on_fashion():
    """Zhou and Patel's table, as if its birds were the images of Fashion-MNIST."""
    sets = DML.words.datasets
    words = replace(DML.words, datasets={**sets, "CUB": sets["Fashion-MNIST"]})
    cells = [cell for cell in DML.only("CVPR 2022") if cell.dataset == "CUB"]
    return replace(DML, words=words, cells=tuple(cells))


def test_zhou_and_patel_print_every_share_in_per_cent_and_the_score_up_to_100(fashion, found):
    run, eps = fashion(), 8 / 255
    more = {score_row(eps): {"R@1": 0.05, "ERS": 0.31}}
    judged = found(run, eps=eps, more=more)
    pairs = row([run, judged], "EST[R], eta=8", published_on_fashion(), "CVPR 2022")
    ours = {name: pair.ours for name, pair in pairs.items() if pair.measured}
    assert ours == {
        "R@1": 75.0, "R@2": 85.0, "mAP": 60.0, "CA+": 15.0, "TMA": 0.9, "ES:D": 1.25,
        "ES:R": 50.0, "ERS": 31.0,
    }  # fmt: skip
    assert pairs["ERS"].measured.params == {
        "name": ERS, "steps": 32, "step": STEP, "start": "clean",
    }  # fmt: skip
    tables = judged.config["retrieve"]["attacks"]
    mixed = {**tables, "es": {**tables["es"], "steps": 8}}
    config = {**judged.config, "retrieve": {**judged.config["retrieve"], "attacks": mixed}}
    pairs = row([run, replace(judged, config=config)], "EST[R], eta=8", published_on_fashion(),
                "CVPR 2022")  # fmt: skip
    assert pairs["ERS"].measured.params["steps"] == "32, 8"


def test_nothing_but_a_share_is_printed_in_per_cent():
    """The files say so by hand; the attacks know it of their measures."""
    units = {
        name: scale.unit
        for attack in RETRIEVAL_ATTACKS.names()
        for name, scale in RETRIEVAL_ATTACKS.entry(attack).cls.scales.items()
    }
    assert {name for name, unit in units.items() if unit == ""} == {"TMA", "ES:D"}
    for cell in DML.cells:
        meaning = DML.meaning(cell)
        if meaning.metric.counts == "retrieved" and cell.attack and cell.attack != "ERS":
            assert meaning.recorded == cell.metric
            assert meaning.unit == units[meaning.recorded], cell
            assert all(spec.name in RETRIEVAL_ATTACKS.names() for spec in meaning.attacks)
            (spec,) = meaning.attacks
            assert meaning.recorded in RETRIEVAL_ATTACKS.entry(spec.name).cls.scales
    for paper in (DML, TRADES):
        for metric in paper.words.metrics.values():
            assert bool(metric.recorded) == (metric.counts == "retrieved")


def test_a_row_of_an_attack_that_the_record_does_not_have_is_damage(fashion, found):
    run = fashion()
    odd = replace(found(run), id="odd", measures=[Measure(of="gtm", name="R@1", value=0.5, n=9)])
    with pytest.raises(UserError, match=r"^run 'odd' is damaged: its record has no attack 'gtm'$"):
        row([run, odd])


def test_records_that_do_not_count(fashion, found):
    run = fashion()
    begun, foreign = found(run, status="started"), found(run, weights="another")
    assert {pair.measured for pair in row([run, begun, foreign]).values()} == {None}
