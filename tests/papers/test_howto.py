"""Every command that is offered can be run, and asks for what the paper did."""

import shlex
from collections import Counter
from dataclasses import replace

import pytest
import typer
import typer.core

from robustbench_cli import papers
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.certificates import CERTIFICATES
from robustbench_cli.cli import app
from robustbench_cli.commands import components
from robustbench_cli.commands.retrieve import ERS
from robustbench_cli.commands.training_task import training_task
from robustbench_cli.core.registry import Spec
from robustbench_cli.papers.howto import Known, commands, lacking, training_command
from robustbench_cli.papers.paper import defense_specs
from robustbench_cli.papers.reading import load_paper

PAPERS = {name: load_paper(name) for name in papers.paper_names()}
KNOWN = Known.scan()
each_paper = pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)


COMMANDS = typer.main.get_command(app).commands


def typed(line):
    """What the command line's own parser makes of a shell line."""
    program, name, *words = shlex.split(line)
    assert program == "advbench"
    command = COMMANDS[name]
    if isinstance(command, typer.core.TyperGroup):
        name, *words = words
        command = command.commands[name]
    return command.make_context(name, words).params


def within_reach(paper):
    """The numbers that nothing is lacking for."""
    pairs = ((cell, paper.meaning(cell)) for cell in paper.cells)
    return [pair for pair in pairs if not lacking(*pair, KNOWN)]


@pytest.mark.usefixtures("scanned_once")
@each_paper
def test_training_asks_for_the_paper_s_setting(paper):
    seen = set()
    for cell, meaning in within_reach(paper):
        line = training_command(cell, meaning, KNOWN)
        if line in seen:
            continue
        seen.add(line)
        params = typed(line)
        task = training_task({"preset": params["preset"]})
        given = {
            "defense": task.defense(params["defense"]),
            "dataset": {"name": params["dataset"]} if params["dataset"] else None,
            "model": components.component_table("model", params["model"])
            if params["model"]
            else None,
            "preset": params["preset"],
            "extra": components.component_table("extra", params["extra_data"])
            if params["extra_data"]
            else None,
            "parents": {role: {"run": "RUN"} for role in ("init", "teacher") if params[role]}
            or None,
            "train": {"epochs": params["epochs"]} if params["epochs"] else None,
            "threat": {key: params[key] for key in ("norm", "eps") if params[key]} or None,
        }
        asked = {key: value for key, value in given.items() if value is not None}
        config = task.configure(asked, params["set_"] or [])
        assert config.dataset["name"] == meaning.dataset.name
        assert config.train.epochs == (meaning.epochs or config.train.epochs)
        # Numbers of pixels and patches are what votes on parts of an image are certified for; no
        # training moves images within them.
        if cell.norm not in ("L0", "patch"):
            assert cell.norm in ("", config.threat.norm)
            assert config.threat.eps == pytest.approx(meaning.eps or config.threat.eps, rel=1e-6)
        for spec in defense_specs(meaning.model.means) if meaning.model else []:
            sizes = {key: str(config.model[key]) for key in spec.params}
            assert (config.model["name"], sizes) == (spec.name, spec.params)
        assert [*config.defense] == [spec.name for spec in meaning.defense]
        wanted = {"": config.train.select}.get(meaning.metric.select, meaning.metric.select)
        assert config.train.select == wanted


@each_paper
def test_a_preset_of_a_row_that_is_within_reach_is_there(paper):
    assert {meaning.preset for _, meaning in within_reach(paper)} - {""} <= KNOWN.presets


@pytest.mark.parametrize("name", ["rslad", "lbgat", "pcl", "gce", "cot", "tla", "amp", "port"])
def test_what_the_reading_list_trains_has_the_paper_s_schedule(name):
    assert all(meaning.preset for _, meaning in within_reach(PAPERS[name]))


def test_every_stated_command_is_one():
    pairs = [(paper, cell) for paper in PAPERS.values() for cell in paper.cells]
    lines = {line for paper, cell in pairs for line in paper.meaning(cell).measure}
    assert {line.split()[0] for line in lines} == {"detect", "eval", "joint", "retrieve"}
    for line in lines:
        assert typed(f"advbench {line} --run mine")["run"] in ("mine", ["mine"])


@each_paper
def test_evaluations_name_what_there_is(paper):
    lines = {
        commands([(cell, meaning)], KNOWN)[-1]: KNOWN.attack(meaning)
        for cell, meaning in within_reach(paper)
    }
    for line, stated in lines.items():
        params = typed(line)
        if line.split()[1] == "retrieve":
            assert params["attack"] == [ERS]
            continue
        registry = ATTACKS if params["attack"] else CERTIFICATES
        asked = params["attack"] or params["certify"]
        (named,) = [asked] if isinstance(asked, str) else asked
        component = registry.build(Spec.parse(named))
        assert component == (registry.build(stated) if stated else component)


def test_most_of_the_papers_of_this_tool_can_be_asked_for():
    def share(name):
        return len(within_reach(PAPERS[name])) / len(PAPERS[name].cells)

    assert min(map(share, ("trades", "awp", "rst"))) > 0.4


def wanted(name, table, method, **texts):
    paper = PAPERS[name]
    cells = [
        cell
        for cell in paper.only(table)
        if cell.method == method and all(getattr(cell, k) == v for k, v in texts.items())
    ]
    return [(cell, paper.meaning(cell)) for cell in cells]


def test_one_evaluation_for_all_attacks_on_a_model():
    pairs = wanted("awp", "2", "TRADES-AWP")
    assert commands(pairs, KNOWN) == [
        "advbench train trades:beta=6+awp:gamma=0.005,warmup=9 --preset awp-table2-trades-awp",
        "advbench eval --attack fgsm --attack pgd20 --attack pgd100 --attack cw --attack spsa "
        "--attack autoattack",
    ]


def test_what_was_trained_at_another_radius_is_evaluated_at_the_table_s():
    (pair,) = wanted("awp", "2", "MART", attack="FGSM")
    assert commands([pair], KNOWN) == [
        "advbench train mart:beta=6 --preset awp-table2-mart",
        "advbench eval --attack fgsm --eps 8/255",
    ]


def test_a_preset_takes_the_place_of_settings_once_it_is_there():
    (pair,) = wanted("trades", "5", "TRADES 1/lambda=1", attack="MI-FGSM")
    assert commands([pair], KNOWN) == [
        "advbench train trades:beta=1 --preset trades-table5-cifar10-beta1",
        "advbench eval --attack mim",
    ]
    assert commands([pair], replace(KNOWN, presets=frozenset()))[0] == (
        "advbench train trades:beta=1,steps=10,step=7/31 --dataset cifar10 --model wrn-34-10 "
        "--eps 0.031 --epochs 76"
    )


def test_a_model_that_is_there_is_only_evaluated_under_the_paper_s_threat(trained):
    run = trained(id="mine", threat={"norm": "Linf", "eps": 0.3})
    (pair,) = wanted("trades", "4", "TRADES 1/lambda=2.0", dataset="CIFAR-10", metric="robust_acc")
    assert commands([pair], KNOWN, run) == [
        "advbench eval --run mine --attack pgd20:step=3/31,start=uniform,last_iterate=true "
        "--eps 0.031"
    ]
    same = trained(id="same", threat={"norm": "Linf", "eps": 0.031})
    assert commands([pair], KNOWN, same)[0].endswith("last_iterate=true")
    other = trained(id="other", threat={"norm": "L2", "eps": 0.031})
    assert commands([pair], KNOWN, other)[0].endswith("--norm Linf")


def test_images_of_other_models_are_crafted_on_a_run_of_that_name():
    pairs = wanted("trades", "6", "TRADES", metric="robust_acc")
    _, *evaluations = commands(pairs, KNOWN)
    assert [line.rpartition(" --source ")[2] for line in evaluations] == ["pgd-at", "standard"]


def test_the_clean_accuracy_alone_is_measured_with_the_cheapest_attack():
    (pair,) = wanted("trades", "5", "TRADES 1/lambda=6", dataset="CIFAR-10", metric="clean_acc")
    assert commands([pair], KNOWN)[1] == "advbench eval --attack fgsm"


def test_what_is_proven_is_certified():
    pairs = wanted("rst", "Fig.1(b)", "RST_stab(50K+500K)")
    assert commands(pairs, KNOWN)[1:] == [
        "advbench eval --certify smoothing:sigma=0.25,n0=100,n=10000,alpha=1/1000"
    ]


def test_detectors_are_fitted_and_tried_beside_evaluations(trained):
    pairs = wanted("tla", "poster ROC figure", "TLA", dataset="CIFAR-10")
    pairs += wanted("tla", "RobustBench", "TLA", attack="AutoAttack")
    detection = ["advbench detect fit gaussian", "advbench detect eval --attack pgd --eps EPS"]
    assert commands(pairs, KNOWN) == [
        "advbench train tla --preset tla-poster-tla-cifar10",
        *detection,
        "advbench eval --attack autoattack:version=standard",
    ]
    run = trained(id="mine", threat={"norm": "Linf", "eps": 8 / 255})
    assert commands(pairs[:1], KNOWN, run) == [f"{line} --run mine" for line in detection]


def test_every_method_of_tla_s_poster_is_a_preset():
    pairs = [
        pair
        for method in ("UM", "AT", "ALP", "TLA")
        for pair in wanted("tla", "poster ROC figure", method)
    ]
    named = {typed(commands([pair], KNOWN)[0])["preset"] for pair in pairs}
    assert named == {name for name in KNOWN.presets if name.startswith("tla-poster-")}


@pytest.mark.parametrize(
    ("method", "joint"),
    [
        ("average", "joint --images 5 --weights avg --steps 20 --eps EPS"),
        ("min-max (APGDA)", "joint --images 5 --gamma 4 --steps 20 --eps EPS"),
    ],
)
def test_an_attack_on_several_images_is_a_joint_one(method, joint):
    (pair,) = wanted("min-max", "poster: universal perturbation", method, architecture="VGG16")
    assert commands([pair], KNOWN) == [
        "advbench train standard --dataset cifar10 --model vgg-16",
        f"advbench {joint}",
    ]


@pytest.mark.parametrize(
    ("table", "method", "dataset", "line"),
    [
        ("README CIFAR-10", "TRADES (alpha=6)", "CIFAR-10",
         "trades:beta=6 --preset trades-table5-cifar10"),
        ("draft Table 3", "TRADES(alpha=1)", "CIFAR-10",
         "trades:beta=1 --preset trades-table5-cifar10-beta1"),
        ("draft Table 3", "TRADES(alpha=1)", "CIFAR-100",
         "trades:beta=1 --preset lbgat-table3-trades1-cifar100"),
        ("draft Table 1", "TRADES(alpha=6)", "CIFAR-100",
         "trades:beta=6 --preset lbgat-readme-trades-cifar100"),
        ("README CIFAR-10", "Rice et al. 2020", "CIFAR-10",
         "pgd-at --preset rice-table1-cifar10-linf --model wrn-34-20 "
         "--set train.select=oracle"),
        ("README update eps 8/255", "AWP", "CIFAR-100",
         "pgd-at+awp:gamma=0.01,warmup=0 --preset awp-table1-at-awp-cifar100-linf "
         "--model wrn-34-10"),
        ("README CIFAR-10", "Mao et al. 2019 (TLA)", "CIFAR-10",
         "tla --preset tla-poster-tla-cifar10"),
        ("README CIFAR-10", "Shafahi et al. 2019", "CIFAR-10",
         "free-at --preset free-cifar10-wrn-34-10"),
    ],
)  # fmt: skip
def test_what_a_paper_compares_with_is_trained_as_in_its_own(table, method, dataset, line):
    pairs = wanted("lbgat", table, method, dataset=dataset)
    assert {commands([pair], KNOWN)[0] for pair in pairs} == {f"advbench train {line}"}


def test_what_was_trained_at_half_the_radius_is_told_so():
    pairs = wanted("autoattack", "CIFAR-10 - Linf", "Bilateral AT", metric="robust_acc")
    assert commands(pairs, KNOWN) == [
        "advbench train bilateral --preset feature-scatter-table1-bilateral --eps 4/255",
        "advbench eval --attack autoattack:version=standard --eps 8/255",
    ]


def test_a_preset_s_net_stands_in_for_one_that_is_not_here():
    (pair,) = wanted("tla", "poster ROC figure", "AT", dataset="CIFAR-10")
    assert lacking(*pair, KNOWN) == ""
    assert lacking(*pair, replace(KNOWN, presets=frozenset())) == "no model WRN w32-10 here"


@pytest.mark.parametrize(
    ("name", "table", "texts", "reason"),
    [
        ("trades", "5", {"method": "[RDV17]", "metric": "clean_acc"}, "no such method here"),
        ("trades", "5", {"method": "TRADES 1/lambda=6", "attack": "C&W", "norm": "Linf"},
         "no such attack here"),
        ("trades", "6", {"method": "Madry", "metric": "xent_loss"},
         "cross-entropy is not measured here"),
        ("he", "4", {"method": "FreeAT", "architecture": "ResNet-50", "attack": "PGD-10"},
         "no data set ImageNet here"),
        ("amp", "augmentation table",
         {"method": "AMP + Vanilla", "architecture": "PyramidNet-164-270"},
         "no model PyramidNet-164-270 here"),
        ("lbgat", "draft Table 4", {"method": "TRADES(alpha=6)"},
         "no ADT+TRADES here to craft images on"),
        ("lbgat", "draft Table 1", {"method": "AODT+ALP+Q"}, "no input quantisation here"),
        ("lbgat", "README CIFAR-10", {"method": "Engstrom et al. 2019"}, "no model RN-50 here"),
        ("lbgat", "README CIFAR-10", {"method": "Wang & Zhang 2019"},
         "its radii are not told here: see report --paper autoattack, Bilateral AT"),
        ("port", "RobustBench", {"method": "Sehwag2021Proxy_ResNest152"},
         "no model ResNest152 here"),
        ("robust-overfitting", "2", {"method": "PGD-AT + Cutout"},
         "final less best: train with train.select=oracle, and eval twice, once --checkpoint last"),
        ("rst", "1", {"method": "TRADES [56]", "attack": "Best attack"},
         "the lowest of the attacks of its row, which are measured one by one"),
        ("tla", "GitHub issue 5", {"method": "TLA with ResNet-50 (user run)"},
         "a user's run: its settings are not told"),
        ("pcl", "RobustBench", {"method": "PCL robust model"},
         "the attack's settings are not told"),
        ("amp", "main table", {"method": "Adv. Training"}, "its settings are not told"),
        ("min-max", "poster: attacking model ensembles", {"method": "average", "norm": "L0"},
         "no norm L0 here"),
        ("min-max", "poster: attacking model ensembles", {"method": "average", "norm": "L2"},
         "no MLP here; several models at once: advbench joint --run A --run B"),
    ],
)  # fmt: skip
def test_what_is_lacking_is_said(name, table, texts, reason):
    method = texts.pop("method")
    found = Counter(lacking(*pair, KNOWN) for pair in wanted(name, table, method, **texts))
    assert reason in found


def test_a_name_that_is_not_registered_is_not_there_yet():
    none = Known(defenses={}, attacks={}, certificates={}, presets=frozenset())
    (pair,) = wanted("awp", "2", "MART-AWP", attack="FGSM")
    assert lacking(*pair, none) == "not here yet: mart, awp"
    without = Known(defenses=KNOWN.defenses, attacks={}, certificates={}, presets=frozenset())
    assert lacking(*pair, without) == "not here yet: fgsm"
