"""The numbers that ship with the package, and what their words are taken to mean."""

import shutil
from decimal import Decimal
from fractions import Fraction

import pytest

from robustbench_cli import papers
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.certificates import CERTIFICATES
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import DEFENSES, Recipe
from robustbench_cli.models import MODELS
from robustbench_cli.papers.paper import CSV_COLUMNS, defense_specs
from robustbench_cli.papers.reading import load_paper

PAPERS = {name: load_paper(name) for name in papers.paper_names()}
each_paper = pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)

COUNTS = {
    "ablation": 4,
    "amp": 132,
    "autoattack": 74,
    "awp": 94,
    "consistency": 120,
    "convex-polytope": 8,
    "cot": 2,
    "deep-pursuit": 24,
    "fast-at": 7,
    "feature-scatter": 162,
    "gce": 6,
    "he": 96,
    "ibp": 15,
    "lbgat": 234,
    "logit-pairing": 48,
    "min-max": 22,
    "mter": 60,
    "patch-smoothing": 4,
    "pcl": 14,
    "perceptual-ball": 0,  # its tables could not be read
    "port": 12,
    "robust-dml": 540,
    "robust-overfitting": 42,
    "rslad": 56,
    "rst": 42,
    "smooth-adv": 9,
    "smoothing": 16,
    "sok-certified": 175,
    "tla": 16,
    "trades": 92,
    "xai-inversion": 0,  # nor could these
}

PRINTED = [
    ("trades", "5", "TRADES 1/lambda=6", "CIFAR-10", "FGSM^20 (PGD)", "robust_acc", "56.61"),
    ("trades", "5", "TRADES 1/lambda=6", "CIFAR-10", "", "clean_acc", "84.92"),
    ("trades", "4", "TRADES 1/lambda=1.0", "MNIST", "FGSM^40 (PGD)", "robust_acc", "94.75"),
    ("awp", "2", "RST-AWP", "CIFAR-10", "AutoAttack", "robust_acc", "60.05"),
    ("awp", "2", "MART", "CIFAR-10", "AutoAttack", "robust_acc", "51.10"),
    ("rst", "1", "RST_adv (50K+500K)", "CIFAR-10", "PG_Ours", "robust_acc", "62.5"),
    ("feature-scatter", "1", "Proposed", "CIFAR-10", "CW-100", "robust_acc", "60.6"),
    ("he", "2", "TRADES+HE", "CIFAR-10", "FAB", "robust_acc", "53.50"),
    ("autoattack", "CIFAR-10 - Linf", "Feature Scattering", "CIFAR-10", "AutoAttack (standard)",
     "robust_acc", "36.64"),
    ("pcl", "RobustBench", "PCL robust model", "CIFAR-10", "AutoAttack", "robust_acc", "0.28"),
    ("gce", "README table", "GCE", "MNIST", "MIM", "robust_acc", "39.81"),
    ("cot", "README table", "COT", "CIFAR-10", "", "test_error", "4.86"),
    ("smooth-adv", "best model at each radius", "PGD 2 steps, m = 2, eps 512, sigma = 0.50",
     "CIFAR-10", "certificate (sigma = 0.50)", "certified_acc", "24.05"),
    ("patch-smoothing", "abstract", "column smoothing (s = 4)", "CIFAR-10",
     "certificate (columns of 4)", "certified_acc", "57.6"),
    ("ibp", "README CIFAR-10 8/255", "CROWN-IBP", "CIFAR-10", "certificate (IBP)", "certified_acc",
     "33.30"),
    ("deep-pursuit", "B.1 soft threshold", "DP", "MNIST", "IFGSM", "robust_acc", "84.0"),
    ("lbgat", "README CIFAR-100", "Gowal et al. 2020", "CIFAR-100", "AutoAttack", "robust_acc",
     "30.03"),
]  # fmt: skip


def test_every_paper_is_there_with_all_its_numbers():
    assert {name: len(paper.cells) for name, paper in PAPERS.items()} == COUNTS


@pytest.mark.parametrize("row", PRINTED, ids=lambda row: f"{row[0]}-{row[2]}")
def test_numbers_are_those_that_were_printed(row):
    name, table, method, dataset, attack, metric, value = row
    wanted = (table, method, dataset, attack, metric)
    found = [
        cell
        for cell in PAPERS[name].cells
        if (cell.table, cell.method, cell.dataset, cell.attack, cell.metric) == wanted
    ]
    assert [str(cell.value) for cell in found] == [value]


def test_a_net_s_row_of_a_table_that_has_a_column_for_each():
    cells = [
        (cell.table, cell.attack, str(cell.value))
        for cell in PAPERS["sok-certified"].cells
        if (cell.method, cell.architecture) == ("cadv3", "FCNNb")
    ]
    assert cells == [
        ("clean accuracy", "", "76.21"),
        ("PGD accuracy", "PGD", "69.90"),
        ("certified at 0.3", "IBP", "54"),
        ("certified at 0.3", "CROWN", "27"),
        ("certified at 0.3", "CROWN-IBP", "45"),
    ]


def test_spread_and_remarks_are_kept():
    cells = PAPERS["trades"].only("4")
    assert cells[0].std == Decimal("0.0385")
    doubtful = [cell for cell in PAPERS["robust-overfitting"].cells if "UNCLEAR" in cell.note]
    assert [cell.notes[0] for cell in doubtful] == ["UNCLEAR: the cell shows a struck-through 55.2"]
    twice = [cell for cell in PAPERS["lbgat"].cells if "60.43 and 60.64" in cell.note]
    assert len(twice) == 1


def test_a_semicolon_inside_brackets_ends_no_remark():
    (note, _) = PAPERS["he"].only("3")[0].notes
    assert note == "30 epochs"
    assert PAPERS["he"].only("3")[0].notes[1].count(";") == 1


@each_paper
def test_who_published_it_is_said(paper):
    assert paper.title
    assert paper.authors
    assert 2018 <= paper.year <= 2023
    assert str(paper.year) in paper.citation
    # An arXiv number begins with the year of its first version.
    assert not paper.arxiv or 0 <= paper.year - 2000 - int(paper.arxiv[:2]) <= 3


@each_paper
def test_every_word_that_is_explained_occurs(paper):
    said = {column: {getattr(cell, column) for cell in paper.cells} for column in CSV_COLUMNS}
    crafted_on = {cell.params.get("source") for cell in paper.cells}
    assert {*paper.methods} <= said["method"] | crafted_on
    assert {*paper.attacks} <= said["attack"]
    for rule in paper.rules:
        assert any(map(rule.fits, paper.cells)), rule
        for column, texts in rule.rows.items():
            assert {*texts} <= said[column], rule


@each_paper
def test_what_a_number_means_can_be_built(paper):
    defenses, attacks, certificates = DEFENSES.names(), ATTACKS.names(), CERTIFICATES.names()
    meanings = [paper.meaning(cell) for cell in paper.cells]
    recipes = {repr(specs): specs for m in meanings for specs in (m.defense, m.source) if specs}
    for specs in recipes.values():
        if {spec.name for spec in specs} <= {*defenses}:
            assert len(Recipe.build(list(specs)).parts) == len(specs)
    for spec in {repr(spec): spec for m in meanings for spec in m.attacks}.values():
        if spec.name in attacks:
            ATTACKS.build(spec)
        if spec.name in certificates:
            CERTIFICATES.build(spec)


def test_models_and_data_sets_are_those_of_advbench():
    words = PAPERS["trades"].words
    for network in words.models.values():
        described = MODELS.describe(MODELS.build(Spec.parse(network.write)))
        (spec,) = defense_specs(network.means)
        assert described["name"] == spec.name
        assert {key: str(described[key]) for key in spec.params} == spec.params
        assert MODELS.build(spec) == MODELS.build(spec_of(described))
    for data in words.datasets.values():
        assert data.name in DATASETS.names()
        assert data.shape


def test_a_step_is_a_fraction_of_the_radius():
    paper = PAPERS["trades"]
    steps = {
        (cell.table, cell.dataset): spec.params["step"]
        for cell in paper.cells
        for spec in paper.meaning(cell).attacks
        if "step" in spec.params
    }
    assert steps == {
        ("4", "MNIST"): str(Fraction("0.005") / Fraction("0.1")),
        ("4", "CIFAR-10"): "3/31",
        ("5", "CIFAR-10"): "3/31",
        ("5", "MNIST"): "1/30",
        ("6", "MNIST"): "1/30",
        ("7", "CIFAR-10"): "3/31",
    }


def test_later_rules_win_and_the_method_s_own_parameters_stay():
    paper = PAPERS["autoattack"]
    cells = [cell for cell in paper.only("CIFAR-10 - Linf") if cell.method == "AWP"]
    made = {
        cell.architecture: [(spec.name, dict(spec.params)) for spec in paper.meaning(cell).defense]
        for cell in cells
    }
    trades = {"beta": "6", "steps": "10", "step": "1/4"}
    assert made == {
        "WRN-34-10": [("trades", trades), ("awp", {"gamma": "0.005", "warmup": "9"})],
        "WRN-28-10": [("rst", {"beta": "6"}), ("awp", {"gamma": "0.005"})],
    }


def test_papers_are_found_by_any_of_their_names():
    assert papers.find_paper(" Hypersphere ") == "he"
    assert papers.find_paper("rice") == "robust-overfitting"
    with pytest.raises(UserError, match=r"^unknown paper 'tradse'; did you mean 'trades'\?$"):
        papers.find_paper("tradse")


@pytest.fixture
def copied(tmp_path):
    """A folder with one paper, whose files may be damaged."""
    for name in ("trades.csv", "trades.toml", "common.toml"):
        shutil.copy(papers.FOLDER / name, tmp_path)
    return tmp_path


def test_a_whole_copy_is_read(copied):
    assert load_paper("trades", copied) == PAPERS["trades"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("trades.csv", "91.09", "high", r"trades\.csv, line 2 is damaged: value: "),
        ("trades.csv", ",91.09,", ",", r"trades\.csv, line 2 is damaged: it must have 12 values"),
        ("trades.csv", "table,", "tables,", r"trades\.csv is damaged: its first line must be "),
        ("trades.csv", "robust_acc", "robust", r"line 2 is damaged: unknown metric 'robust'"),
        ("trades.csv", "0.2,MNIST", "0.1,MNIST", r"line 6 is damaged: it gives a number that was"),
        ("trades.toml", "title", "tilte", r"trades\.toml is damaged: title: "),
        ("trades.toml", "[methods]", "[methods", r"trades\.toml is damaged: "),
        ("trades.toml", "epochs = 76", "epochs = 'many'", r"rules\.0\.epochs: "),
        ("common.toml", "counts", "count", r"common\.toml is damaged: metrics\."),
    ],
)
def test_a_damaged_file_is_named(copied, file, old, new, message):
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as raised:
        load_paper("trades", copied)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", ["trades.toml", "common.toml"])
def test_an_absent_file_is_named(copied, file):
    (copied / file).unlink()
    with pytest.raises(UserError, match=rf"{file} cannot be read: No such file"):
        load_paper("trades", copied)


def test_nothing_stands_beside_rows_of_nets_that_are_not_there():
    """LBP and DP with hard thresholds are other nets than those with soft ones."""
    paper = load_paper("deep-pursuit")
    assert all(not paper.meaning(cell).method for cell in paper.only("B.2 hard threshold"))
    assert any(paper.meaning(cell).method for cell in paper.only("B.1 soft threshold"))
