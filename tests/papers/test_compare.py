"""Which of our numbers stands beside a published one, and what is said to differ."""

from dataclasses import replace

import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.papers.compare import beside
from robustbench_cli.papers.differences import data_differences
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.runs.outcomes import Detection, Proof, Within

PAPERS = ("trades", "rst", "robust-overfitting", "awp", "lbgat", "tla", "he", "sok-certified")
TRADES, RST, RICE, AWP, LBGAT, TLA, HE, SOK = map(load_paper, PAPERS)

INNER = {"steps": 40, "step": 1 / 30, "beta": 6.0}
FAITHFUL = {
    "defense": {"trades": {"name": "trades", **INNER}},
    "dataset": {"name": "mnist"},
    "threat": {"norm": "Linf", "eps": 0.3},
    "train": {"epochs": 100, "limit": 0},
}
PGD = {
    "name": "pgd",
    "steps": 40,
    "step": 1 / 30,
    "start": "uniform",
    "restarts": 1,
    "last_iterate": True,
}
WHOLE = {"dataset": {"name": "mnist", "test": 100, "test_sha256": "f"}}


def numbers(paper, runs, table, **wanted):
    """The numbers of a table, by attack, in rows with these texts."""
    cells = [
        cell
        for cell in paper.only(table)
        if all(getattr(cell, column) == text for column, text in wanted.items())
    ]
    return {pair.cell.attack or "clean": pair for pair in beside(paper, cells, runs)}


def mnist(runs, method="TRADES 1/lambda=6", norm="Linf"):
    return numbers(TRADES, runs, "5", dataset="MNIST", method=method, norm=norm)


def said(pair):
    return list(map(str, (*pair.training, *pair.attack)))


def test_a_run_in_the_paper_s_setting_differs_in_nothing(trained, evaluated):
    run = trained(**FAITHFUL)
    found = mnist([run, evaluated(run, {"pgd40": (PGD, 95)}, clean=99, **WHOLE)])
    clean, pgd = found["clean"], found["FGSM^40 (PGD)"]
    assert (clean.ours, round(clean.points, 9)) == (99.0, -0.48)
    assert (pgd.ours, round(pgd.points, 9)) == (95.0, -1.07)
    assert said(clean) == said(pgd) == []
    assert pgd.measured.trained.id == run.id


def test_the_number_of_steps_may_differ_and_is_told(trained, evaluated):
    run = trained(**FAITHFUL)
    found = mnist([run, evaluated(run, {"pgd40": (PGD, 95)}, **WHOLE)])
    assert said(found["FGSM^1000 (PGD)"]) == ["steps 40 (1000)"]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"train": {"epochs": 6, "limit": 500}}, ["epochs 6 (100)", "training images 500 (all)"]),
        ({"threat": {"norm": "Linf", "eps": 8 / 255}}, ["trained at eps 8/255 (0.3)"]),
        ({"threat": {"norm": "Linf", "eps": 0.3, "mask": "border:width=2"}},
         ["trained with mask border:width=2 (none)"]),
        ({"model": {"name": "wrn", "depth": 16, "width": 4}},
         ["model wrn:depth=16,width=4 (CNN [CW17]: 4 conv + 3 fc)"]),
        ({"defense": {"trades": {"name": "trades", **INNER, "beta": 3.0, "step": 0.3}}},
         ["beta 3 (6)", "step/eps 3/10 (1/30)"]),
        ({"rule": "oracle"}, ["epoch kept best on test (not said)"]),
    ],
)  # fmt: skip
def test_what_differs_in_training_is_told(trained, evaluated, config, told):
    run = trained(**{**FAITHFUL, **config})
    found = mnist([run, evaluated(run, {"pgd40": (PGD, 95)}, **WHOLE)])
    assert said(found["FGSM^40 (PGD)"]) == said(found["clean"]) == told


@pytest.mark.parametrize(
    ("params", "changes", "told"),
    [
        ({"step": 0.25}, {}, ["step/eps 1/4 (1/30)"]),
        ({"last_iterate": False}, {}, ["iterate any (last)"]),
        ({"restarts": 5}, {}, ["restarts 5 (1)"]),
        ({"start": "clean"}, {}, ["start clean (uniform)"]),
        ({}, {"eps": 0.2}, ["eps 0.2 (0.3)"]),
        ({}, {"n": 50}, ["images 50 (100)"]),
    ],
)
def test_what_differs_in_the_attack_is_told(trained, evaluated, params, changes, told):
    run = trained(**FAITHFUL)
    judged = evaluated(run, {"pgd": ({**PGD, **params}, 40)}, clean=48, **{**WHOLE, **changes})
    assert said(mnist([run, judged])["FGSM^40 (PGD)"]) == told


def test_a_part_of_an_attack_stands_beside_nothing(trained, evaluated):
    """Members that saw a sample, a budget that ran out, fewer classes: another attack."""
    run = trained(**FAITHFUL)
    judged = evaluated(run, {"pgd40": (PGD, 95)}, clean=99, **WHOLE)
    part = {label: replace(each, variant="within 1") for label, each in judged.attacks.items()}
    found = mnist([run, replace(judged, attacks=part)])
    assert found["FGSM^40 (PGD)"].measured is None
    assert found["clean"].ours == 99.0


def test_a_mask_is_told_of_robust_accuracies(trained, evaluated):
    run = trained(**FAITHFUL)
    judged = evaluated(run, {"pgd": (PGD, 95)}, clean=99, **WHOLE)
    masked = {**judged.config["threat"], "mask": "border:width=2"}
    judged = replace(judged, config={**judged.config, "threat": masked})
    found = mnist([run, judged])
    assert said(found["FGSM^40 (PGD)"]) == ["mask border:width=2 (none)"]
    assert said(found["clean"]) == []


def test_a_copy_of_the_data_is_told_and_other_data_is_not_compared(trained, evaluated):
    def cifar(path, shape=(3, 32, 32, 10)):
        sizes = dict(zip(("channels", "height", "width", "classes"), shape, strict=True))
        data = {"name": "hf", "path": path}
        run = trained(**{**FAITHFUL, "dataset": data})
        run = replace(run, dataset={"name": "hf", "shape": sizes})
        judged = evaluated(run, {"pgd20": (PGD, 50)}, n=100)
        judged = replace(judged, config={**judged.config, "dataset": data})
        row = {"dataset": "CIFAR-10", "method": "TRADES 1/lambda=6"}
        return numbers(TRADES, [run, judged], "5", **row)["clean"]

    assert "data hf:cifar10-jpeg (cifar10)" in said(cifar("somewhere/cifar10-jpeg"))
    assert cifar("somewhere/cifar100").measured is None
    assert cifar("somewhere/flowers").measured is None
    assert cifar("somewhere/cifar10", (3, 64, 64, 10)).measured is None


def test_a_part_of_the_test_images_is_told(trained, evaluated):
    run = trained(**{**FAITHFUL, "data": "cifar10"})
    judged = evaluated(run, {"pgd20": (PGD, 50)}, n=100)
    part = {"classes": ["cat", "dog"], "balanced": False, "shuffle": None}
    judged = replace(judged, config={**judged.config, "subset": part})
    found = data_differences(TRADES.words.datasets["CIFAR-10"], run, judged)
    assert list(map(str, found)) == ["data cifar10 (classes cat, dog) (cifar10)"]


def test_the_same_pixels_are_the_same_data_wherever_they_are_from(trained, evaluated):
    mark = TRADES.words.datasets["MNIST"].test_sha256
    data = {"name": "hf", "path": "digits"}
    run = trained(**{**FAITHFUL, "dataset": data})
    run = replace(run, dataset={"name": "hf", "test_sha256": mark})
    judged = evaluated(run, {"pgd": (PGD, 95)}, **{"dataset": {"name": "hf", "test_sha256": mark}})
    judged = replace(judged, config={**judged.config, "dataset": data})
    assert said(mnist([run, judged])["clean"]) == []


def test_other_methods_data_norms_and_attacks_are_not_compared(trained, evaluated):
    at = {"defense": {"pgd-at": {"name": "pgd-at", "steps": 40, "step": 1 / 30}}}
    both = {"defense": {**FAITHFUL["defense"], "awp": {"name": "awp", "gamma": 0.005}}}
    far = {"threat": {"norm": "L2", "eps": 2.0}}
    fed = {"extra": {"name": "hf", "path": "tiny"}}
    begun = {"parents": {"init": {"id": "other"}}}
    for config in (at, both, far, fed, begun):
        run = trained(**{**FAITHFUL, **config})
        found = mnist([run, evaluated(run, {"pgd40": (PGD, 95)}, **WHOLE)])
        assert [pair.measured for pair in found.values()] == [None] * 3
    run = trained(**FAITHFUL)
    judged = evaluated(run, {"cw40": ({**PGD, "name": "cw"}, 95)}, norm="L2", **WHOLE)
    found = mnist([run, judged])
    assert found["clean"].measured
    assert found["FGSM^40 (PGD)"].measured is None


def test_a_model_stands_beside_the_rows_it_is_closest_to(trained, evaluated):
    near = {"trades": {"name": "trades", "steps": 20, "step": 0.1, "beta": 3.0}}
    run = trained(**{**FAITHFUL, "defense": near})
    runs = [run, evaluated(run, {"pgd40": (PGD, 95)}, **WHOLE)]
    cells = [cell for cell in TRADES.only("4") if cell.dataset == "MNIST"]
    beside_ours = {pair.cell.method for pair in beside(TRADES, cells, runs) if pair.measured}
    assert beside_ours == {"TRADES 1/lambda=3.0"}
    # Table 5 has beta 6 only.
    assert said(mnist(runs)["clean"])[0] == "beta 3 (6)"


def test_the_closest_setting_then_the_most_images_then_the_latest(trained, evaluated):
    run, short = trained(**FAITHFUL), trained(seed=1, **{**FAITHFUL, "train": {"epochs": 6}})
    small = {"dataset": {"name": "mnist", "test": 50, "test_sha256": "f"}}
    judged = [
        evaluated(run, {"pgd": (PGD, 40)}, clean=40, n=50, **small),
        evaluated(run, {"pgd": (PGD, 90)}, id="more", **WHOLE),
        evaluated(short, {"pgd": (PGD, 95)}, **WHOLE),
    ]
    pair = mnist([run, short, *judged])["FGSM^40 (PGD)"]
    assert (pair.ours, pair.measured.run.id) == (90.0, "more")
    again = trained(rule="best", **FAITHFUL)
    last = evaluated(again, {"pgd": (PGD, 91)}, id="last", **WHOLE)
    assert mnist([run, again, *judged, last])["FGSM^40 (PGD)"].measured.run.id == "last"


def test_seeds_are_joined(trained, evaluated):
    runs = [trained(seed=seed, **FAITHFUL) for seed in (0, 1)]
    judged = [
        evaluated(run, {"pgd": (PGD, right)}, **WHOLE)
        for run, right in zip(runs, (94, 96), strict=True)
    ]
    pair = mnist([*runs, *judged])["FGSM^40 (PGD)"]
    assert pair.ours == pytest.approx(95)
    assert pair.std == pytest.approx(2**0.5)
    assert pair.measured.accuracy.seeds == 2


def test_an_error_is_what_the_accuracy_leaves_and_the_epoch_matters(trained, evaluated):
    config = {
        "defense": {"pgd-at": {"name": "pgd-at", "steps": 10, "step": 0.25}},
        "dataset": {"name": "cifar10"},
        "threat": {"norm": "Linf", "eps": 8 / 255},
        "train": {"epochs": 200},
        "model": {"name": "wrn", "depth": 34, "width": 10},
    }
    run = trained(data="cifar10", **config)
    attack = {**PGD, "steps": 10, "step": 0.25}
    whole = {"dataset": {"name": "cifar10", "test": 100, "test_sha256": "f"}}
    judged = evaluated(run, {"pgd10": (attack, 48)}, eps=8 / 255, **whole)
    cells = [c for c in RICE.only("1") if (c.dataset, c.norm) == ("CIFAR-10", "Linf")]
    final, best, diff = beside(RICE, cells, [run, judged])
    assert final.ours == best.ours == 52.0
    assert round(final.points, 9) == 0.6
    assert said(final) == []
    assert said(best) == ["epoch kept last (best on test)"]
    assert diff.measured is None


def test_images_from_another_model_are_compared_with_such_only(trained, evaluated):
    natural = trained("standard", **{**FAITHFUL, "defense": {"standard": {"name": "standard"}}})
    run = trained(**FAITHFUL)
    own = evaluated(run, {"pgd40": (PGD, 90)}, **WHOLE)
    moved = evaluated(run, {"pgd40": (PGD, 98)}, source=natural, **WHOLE)
    cells = [c for c in TRADES.only("6") if c.method == "TRADES" and c.metric == "robust_acc"]
    found = {
        pair.cell.params["source"]: pair
        for pair in beside(TRADES, cells, [natural, run, own, moved])
    }
    assert found["Natural"].ours == 98.0
    assert said(found["Natural"]) == []
    assert found["Madry"].measured is None
    assert mnist([natural, run, own, moved])["FGSM^40 (PGD)"].ours == 90.0


def test_what_is_certified_is_compared_within_the_same_ball(trained, evaluated):
    config = {
        "defense": {"rst-stab": {"name": "rst-stab", "beta": 6.0, "sigma": 0.25}},
        "dataset": {"name": "cifar10"},
        "threat": {"norm": "Linf", "eps": 2 / 255},
        "train": {"epochs": 400},
        "model": {"name": "wrn", "depth": 28, "width": 10},
        "extra": {"name": "folder", "path": "tiny"},
    }
    run = trained("rst-stab", data="cifar10", **config)
    params = {"name": "smoothing", "sigma": 0.5, "n0": 100, "n": 10_000, "alpha": 1e-3}
    balls = [
        Within(norm="Linf", eps=eps, radius=0.4, correct=right, accuracy=right / 100)
        for eps, right in ((2 / 255, 60), (4 / 255, 20))
    ]
    proof = Proof(
        params=params,
        norm="L2",
        n=100,
        correct=80,
        accuracy=0.8,
        abstained=0.0,
        uncertified=0.1,
        mean_radius=0.3,
        within=balls,
        forwards=1,
        seconds=1.0,
    )
    judged = evaluated(run, {"pgd": (PGD, 1)}, eps=2 / 255, certificates={"smoothing": proof})
    cells = [c for c in RST.only("Fig.1(b)") if c.method == "RST_stab(50K+500K)"]
    found = {pair.cell.metric: pair for pair in beside(RST, cells, [run, judged])}
    assert found["certified_acc"].ours == 60.0
    assert found["smoothed_acc"].ours == 80.0
    assert said(found["certified_acc"]) == [
        "extra data tiny (500K unlabelled images)",
        "sigma 0.5 (0.25)",
        "images 100 (1000)",
    ]


def test_the_radius_of_bounds_in_training_is_compared(trained, evaluated):
    config = {
        "defense": {"crown-ibp": {"name": "crown-ibp", "kappa": 0.0, "stretch": 1.0}},
        "dataset": {"name": "mnist"},
        "threat": {"norm": "Linf", "eps": 0.1},
        "train": {"epochs": 100},
        "model": {"name": "mlp", "layers": 2, "hidden": 20, "norm": "none"},
    }
    run = trained("crown-ibp", **config)
    judged = evaluated(run, {"pgd100": (PGD, 80)}, clean=88, eps=0.1, **WHOLE)
    cells = [c for c in SOK.only("clean accuracy") if c.architecture == "FCNNa"]
    found = {pair.cell.method: pair for pair in beside(SOK, cells, [run, judged])}
    assert found["cadv1"].ours == 88.0
    assert said(found["cadv1"]) == []
    assert said(found["cadv3"]) == ["trained at eps 0.1 (0.3)"]


def test_a_model_that_fits_is_named_though_nothing_was_measured(trained):
    run = trained(**FAITHFUL)
    assert mnist([run])["clean"].model == run
    short = trained(**{**FAITHFUL, "train": {"epochs": 6}})
    assert mnist([short])["clean"].model is None
    assert mnist([replace(run, status="interrupted")])["clean"].model is None


def test_somebody_s_model_is_left_out(trained, evaluated):
    run = trained(**FAITHFUL)
    judged = replace(evaluated(run, {"pgd40": (PGD, 95)}, **WHOLE), parent=None)
    assert mnist([judged])["clean"].measured is None


def test_a_damaged_training_record_is_named(trained):
    run = trained(id="odd")
    config = {key: value for key, value in run.config.items() if key != "model"}
    with pytest.raises(UserError, match=r"^run 'odd' is damaged: its record has no 'model'$"):
        mnist([replace(run, config=config)])


@pytest.mark.parametrize(("beta", "row"), [(0.0, "LBGAT0"), (6.0, "LBGAT6")])
@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("README CIFAR-100", {"LBGAT0": "LBGAT0", "LBGAT6": "LBGAT6"}),
        (
            "draft Table 3",
            {"LBGAT0": "AODT+TRADES(alpha=0)", "LBGAT6": "AODT+TRADES(alpha=6)"},
        ),
    ],
)
def test_lbgat_s_beta_tells_its_rows_apart(beta, row, table, rows, trained, evaluated):
    inner = {"steps": 10, "step": 7 / 31, "beta": beta}
    run = trained(
        data="cifar100",
        defense={"lbgat-trades": {"name": "lbgat-trades", **inner}},
        model={"name": "wrn", "depth": 34, "width": 10},
        threat={"norm": "Linf", "eps": 0.031},
        train={"epochs": 100, "limit": 0},
    )
    judged = evaluated(run, {"pgd20": (PGD, 30)}, clean=70, eps=0.031)
    found = {
        pair.cell.method: pair
        for pair in beside(LBGAT, LBGAT.only(table), [run, judged])
        if (pair.cell.dataset, pair.cell.architecture) == ("CIFAR-100", "WRN-34-10")
        and not pair.cell.attack
    }
    for name, method in rows.items():
        assert found[method].ours == (70.0 if name == row else None)
        assert found[method].training == ()


def detection(auroc, detector="gaussian", population="adversarial"):
    return Detection(
        detector=detector,
        params={"name": detector},
        fitted="d",
        attack="pgd",
        population=population,
        wrong=60,
        right=40,
        auroc=auroc,
    )


@pytest.fixture
def scored(evaluated):
    """A maker of records of ``detect eval``, under PGD at a larger radius than in training."""

    def make(run, *detections, **changes):
        found = {"kind": "detect", "eps": 0.4, "detections": [*detections], **WHOLE, **changes}
        return evaluated(run, {"pgd": (PGD, 40)}, clean=99, **found)

    return make


def poster(runs, method="AT"):
    (pair,) = numbers(TLA, runs, "poster ROC figure", dataset="MNIST", method=method).values()
    return pair


AT = {
    "defense": {"pgd-at": {"name": "pgd-at", "steps": 40, "step": 1 / 30}},
}


def test_how_well_errors_are_detected_is_read_and_what_a_paper_does_not_say_is_told(
    trained, scored
):
    run = trained("pgd-at", **{**FAITHFUL, **AT})
    kinds = [detection(0.91), detection(0.97, population="clean+adversarial")]
    pair = poster([run, scored(run, *kinds)])
    assert (pair.ours, round(pair.points, 9)) == (91.0, -0.25)
    assert said(pair) == ["detector gaussian (not said)", "counted adversarial (not said)"]
    assert pair.measured.run.kind == "detect"
    assert poster([run, scored(run, *kinds)], method="ALP").measured is None


def test_an_auroc_is_no_accuracy_and_an_accuracy_no_auroc(trained, evaluated, scored):
    run = trained(**FAITHFUL)
    found = mnist([run, scored(run, detection(0.9))])
    assert [pair.measured for pair in found.values()] == [None] * 3
    plain = trained("pgd-at", **{**FAITHFUL, **AT})
    assert poster([plain, evaluated(plain, {"pgd": (PGD, 90)}, **WHOLE)]).measured is None


def test_aurocs_of_seeds_are_joined_the_latest_of_each(trained, scored):
    runs = [trained("pgd-at", seed=seed, **{**FAITHFUL, **AT}) for seed in (0, 1)]
    old = scored(runs[0], detection(0.2))
    judged = [scored(run, detection(auc)) for run, auc in zip(runs, (0.90, 0.94), strict=True)]
    pair = poster([*runs, old, *judged])
    assert pair.ours == pytest.approx(92)
    assert pair.std == pytest.approx(8**0.5)
    assert pair.measured.accuracy.seeds == 2


def test_an_auroc_counts_if_it_exists_and_is_of_the_weights_that_were_kept(trained, scored):
    run = trained("pgd-at", **{**FAITHFUL, **AT})
    none, begun = scored(run, detection(None)), scored(run, detection(0.9), status="started")
    other = scored(run, detection(0.9), weights="before")
    assert poster([run, none, begun, other]).measured is None


def test_a_damaged_record_of_detection_is_named(trained, scored):
    run = trained("pgd-at", **{**FAITHFUL, **AT})
    odd = replace(scored(run, detection(0.9), id="odd"), config={"attack": {}})
    with pytest.raises(UserError, match=r"^run 'odd' is damaged: its record has no 'threat'$"):
        poster([run, odd])


@pytest.fixture
def at_scale(trained, evaluated):
    """A run with cosines, and a maker of measurements: the attacks see this scale of them."""
    he = {"name": "he", "scale": 15.0, "margin": 0.2, "eval_scale": 0.0}
    defense = {"trades": {"name": "trades", "beta": 6.0, "steps": 10, "step": 7 / 31}, "he": he}
    threat = {"norm": "Linf", "eps": 0.031}
    cifar = {"dataset": {"name": "cifar10", "test": 100, "test_sha256": "f"}}
    run = trained("trades+he", defense=defense, threat=threat, data="cifar10")

    def make(scale, **right):
        attacks = {
            label: (PGD | {"steps": int(label.removeprefix("pgd")), "step": 3 / 31}, correct)
            for label, correct in right.items()
        }
        made = evaluated(run, attacks, eps=0.031, **cifar)
        made.config["defense"] = {**defense, "he": he | {"eval_scale": scale}}
        return made

    return run, make


def cosines(runs):
    return numbers(HE, runs, "2", method="TRADES+HE")


def test_the_scale_at_which_cosines_were_attacked_is_told_and_the_paper_s_is_nearer(at_scale):
    run, measured = at_scale

    def differences(*scales):
        found = cosines([run, *(measured(scale, pgd20=60) for scale in scales)])
        return [text for text in said(found["PGD-20"]) if text.startswith("he ")]

    assert differences(0.0) == ["he eval_scale 0 (1)"]
    assert differences(1.0) == []
    for both in ((0.0, 1.0), (1.0, 0.0)):
        assert differences(*both) == []


@pytest.mark.parametrize("later", [0.0, 1.0])
def test_an_attack_at_the_paper_s_scale_hides_no_other_one_at_another_scale(at_scale, later):
    run, measured = at_scale
    scales = {0.0: {"pgd20": 55, "pgd500": 50}, 1.0: {"pgd20": 60}}
    judged = [measured(scale, **scales[scale]) for scale in (1.0 - later, later)]
    found = cosines([run, *judged])
    assert found["PGD-20"].ours == 60.0
    assert found["PGD-500"].ours == 50.0
    assert "he eval_scale 0 (1)" in said(found["PGD-500"])
