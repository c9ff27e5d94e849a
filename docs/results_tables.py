"""The tables of results.md, speed.md and README.md, from the records in results/reference."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from marked_parts import table

from robustbench_cli.commands.study_file import load_study
from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.report import joint_table
from robustbench_cli.report.number_trust import (
    WITHHELD,
    NumberTrust,
    attack_trust,
    clean_trust,
)
from robustbench_cli.report.robustness_table import TableRow, rows
from robustbench_cli.report.statistics import Measurement
from robustbench_cli.report.training_minutes import training_minutes
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

REFERENCE = Path(__file__).parents[1] / "results" / "reference"

NAMES = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd40:step=1/30": "PGD-40, step 0.01",
    "cw20": "CW-20",
    "autoattack": "AutoAttack",
    "certified@Linf=0.1": "certified",
    "pgd20 from standard": "transfer (PGD-20)",
    "square": "Square",
    "hop-skip-jump-2000": "HopSkipJump",
}
"""How the pages call the columns of a report."""
FIVE = ("clean", "fgsm", "pgd20", "cw20", "autoattack")
CERTIFIED_MNIST = [
    f"{name}-mnist-{eps}" for eps in (0.1, 0.3) for name in ("ibp", "crown-ibp", "diffai")
]
PUBLISHED_MNIST = ("abstract MNIST 0.1", "abstract MNIST 0.3", "README MNIST 0.3")
"""Tables of the paper ``ibp`` that stand below ours."""
FEW_IMAGES = {
    "few": "`pgd-at`, 200 images, 100 epochs",
    "port": "the same with 5,000 images of a Gaussian generator (PORT)",
    "port-control": "the same with 5,000 images of independent pixels (control)",
}


@cache
def study(name: str) -> dict[str, TableRow]:
    """Return the rows of a study's report by the name that its file gives the run.

    ``trades-awp-s1-eval`` is ``trades-awp``, whatever the seed; ``base-s0-eval-0.1`` is
    ``base-0.1``.
    """
    found = rows([*comparable(REFERENCE / name).values()])
    return {re.sub(r"-s\d+(-eval)?", "", row.runs[0]): row for row in found}


def record(study_name: str, run: str) -> Run:
    """Return one record of a study."""
    return records.read(REFERENCE / study_name / run)


def spread(values: Sequence[float], digits: int = 1, trust: NumberTrust | None = None) -> str:
    """Return the mean of shares in %, with the standard deviation where there are several.

    Args:
        trust: how far it can be trusted; it is marked as in a report.
    """
    if trust is not None and trust.withheld:
        return WITHHELD
    text = f"{100 * fmean(values):.{digits}f}"
    whole = f"{text} ± {100 * stdev(values):.{digits}f}" if len(values) > 1 else text
    if trust is None:
        return whole
    return trust.written(whole, "" if trust.found is None else f"{100 * trust.found:.{digits}f}")


def under(run: Run, attack: str) -> str:
    """Return the accuracy under an attack in %, marked as in a report."""
    trust = attack_trust(run, attack)
    return spread([run.attacks[attack].robust_accuracy], 2, trust)


def cells(row: TableRow, columns: Sequence[str], digits: int = 1) -> list[str]:
    """Return the numbers of a row in %; a blank where one was not measured."""
    found = map(row.get, columns)
    return [spread(x.values, digits, x.trust) if isinstance(x, Measurement) else "" for x in found]


def family(name: str, order: Sequence[str], called: Mapping[str, str]) -> str:
    """Return the main table of a study.

    Args:
        order: the names of its runs.
        called: how the page calls some of them; the others are called as their report does.
    """
    found = study(name)
    lines = [
        [
            called.get(run, f"`{found[run].facts['defense'].text.partition(' (')[0]}`"),
            *cells(found[run], FIVE),
        ]
        for run in order
    ]
    return table(["defense", *map(NAMES.__getitem__, FIVE)], lines)


def at_family() -> str:
    """Return the table of the adversarial-training family on the digits."""
    called = {
        "pgd-at-early-stopping": "`pgd-at`, early stopping",
        "pgd-at-finetuned": "`pgd-at`, 5 epochs from `trades`",
    }
    return family("at-family-digits", [*load_study("at-family").runs], called)


def reading_list() -> str:
    """Return the table of the reading list on the digits."""
    return family("reading-list-digits", [*load_study("reading-list").runs], FEW_IMAGES)


def mnist() -> str:
    """Return the table of both families on MNIST."""
    order = [*load_study("at-family").data["mnist"].only, "lbgat", "tla", "teacher", "rslad", "ard"]
    called = {
        "teacher": "`trades`, twice as wide: the teacher of the next two",
        "rslad": "`rslad:variant=code`",
        "ard": "`ard:variant=code`",
        "base": "`standard`, with batch norm: the next two start from it",
        "pcl": "`pcl:variant=code`",
        "pcl-fgsm": "`pcl:adversarial=fgsm,variant=code`",
        **FEW_IMAGES,
    }
    return family("mnist", [*order, "base", "pcl", "pcl-fgsm", *FEW_IMAGES], called)


def trades_beta() -> str:
    """Return the table of TRADES over its beta."""
    found, columns = study("trades-beta-digits"), ("clean", "pgd20", "cw20")
    lines = [
        [run.removeprefix("beta-"), *cells(found[run], columns)]
        for run in load_study("trades-beta").runs
    ]
    return table(["beta", *map(NAMES.__getitem__, columns)], lines)


def overfitting() -> str:
    """Return the table of robust overfitting on the digits: held-out images and test images."""
    lines = []
    for name, called in (("pgd-at", "`pgd-at`"), ("awp", "`pgd-at+awp`")):
        trained = [record("overfitting-digits", f"{name}-s{seed}") for seed in range(3)]
        held = [[float(line["val_robust"] or 0) for line in run.history] for run in trained]
        own = [[float(line["train_robust"] or 0) for line in run.history] for run in trained]
        lines.append(
            [
                called,
                spread([max(values) for values in held]),
                spread([fmean(values[-10:]) for values in held]),
                spread([fmean(values[-10:]) for values in own]),
                *cells(study("overfitting-digits")[name], ("pgd20", "pgd20 last")),
            ]
        )
    heads = ["defense", "held out, best epoch", "held out, last ten", "trained on, last ten"]
    return table([*heads, "test, kept weights", "test, last weights"], lines)


def certified() -> str:
    """Return the table of proofs beside attacks on the digits."""
    found = rows([*comparable(REFERENCE / "certified-digits").values()], keep=any_source)
    named = {re.sub(r"-(transfer-)?s\d+(-eval)?", "", row.runs[0]): row for row in found}
    columns = load_study("certified").columns.split(",")
    lines = [
        [f"`{named[run].facts['defense'].text.partition(' (')[0]}`", *cells(named[run], columns)]
        for run in load_study("certified").runs
    ]
    return table(["defense", *(NAMES.get(column, column) for column in columns)], lines)


def certified_mnist() -> str:
    """Return the table of short certified trainings on MNIST, and of published rows."""
    lines = []
    for name in CERTIFIED_MNIST:
        trained, run = record("certified-mnist", name), record("certified-mnist", f"{name}-eval")
        eps = run.settings.threat.eps
        (proven,) = (w.correct for w in run.certificates["ibp"].within if w.eps == eps)
        shares = [spread([each], 2) for each in (run.clean_accuracy or 0, proven / (run.n or 1))]
        spent = f"{(trained.seconds or 0) / 60:.1f}"
        lines.append(
            [
                *(f"`{run.subject.partition(':')[0]}`", f"{eps:g}", *shares),
                *(under(run, "pgd20"), str(len(trained.history)), spent),
            ]
        )
    paper = load_paper("ibp")
    for row in PUBLISHED_MNIST:
        of = {cell.metric: str(cell.value) for cell in paper.only(row)}
        eps, shown = row.rpartition(" ")[2], [of.get(m, "") for m in ("clean_acc", "certified_acc")]
        lines.append([f"published, {row.partition(' ')[0]}", eps, *shown, "", "", ""])
    return table(["", "eps", "clean", "certified", "PGD-20", "epochs", "minutes"], lines, left=1)


def any_source(run: Run) -> bool:
    """Return True for evaluations at one radius, images from other models included."""
    return not run.settings.swept


def min_max() -> str:
    """Return the table of joint attacks on four networks."""
    lines = []
    for found in joint_table.tables([*comparable(REFERENCE / "reading-list-digits").values()]):
        for line in found.lines:
            shares = line.cells[joint_table.ALL].values
            which = "average" if line.runs[0].startswith("average") else "min-max"
            each = (f"{100 * share:.1f}" for share in shares)
            lines.append([which, f"{found.about['eps']:g}", *each])
    return table(["attack", "eps", "seed 0", "seed 1", "seed 2"], lines, left=2)


def detection() -> str:
    """Return the table of detectors on MNIST: AUROC over clean and PGD-20 images together."""
    runs = {name: record("mnist", f"detect-{name}-s0-eval") for name in ("tla", "pgd-at")}
    areas = {
        (run, each.detector): each.auroc
        for run, kept in runs.items()
        for each in kept.detections
        if (each.attack, each.population) == ("pgd20", "clean+adversarial")
    }
    detectors = ("knn", "softmax", "gaussian")
    lines = [
        [f"`{run}`", *(f"{100 * (areas[run, d] or 0):.1f}" for d in detectors)] for run in runs
    ]
    return table(["defense", *(f"`{name}`" for name in detectors)], lines)


def mnist_whole() -> str:
    """Return the table of three networks on all test images of MNIST."""
    columns, lines = ("clean", "fgsm", "pgd40:step=1/30"), []
    found = {
        row.runs[0]: row
        for row in rows([*comparable(REFERENCE / "mnist-small-cnn").values()])
        if row.facts["n"].text == "10000"
    }
    for name in ("standard", "pgd-at", "trades"):
        run = record("mnist-small-cnn", f"{name}-mnist-s0")
        facts = [str(len(run.history)), f"{run.seconds / 60:.0f}"]
        numbers = cells(found[f"eval-{name}-mnist-s0"], columns, 2)
        lines.append([f"`{name}`", *facts, *numbers])
    return table(["defense", "epochs", "minutes", *map(NAMES.__getitem__, columns)], lines)


def mnist_part() -> str:
    """Return the table of stronger attacks on parts of MNIST's test images."""
    asked = [
        ("pgd-at", 1000, "eval-pgd-at-mnist-s0-aa1000"),
        ("pgd-at", 250, "eval-pgd-at-mnist-s0-aa250"),
        ("trades", 1000, "eval-trades-mnist-s0-aa1000"),
        ("trades", 1000, "eval-trades-mnist-s0-own1000"),
        ("trades", 750, "eval-trades-mnist-s0-750"),
        ("standard", 1000, "eval-standard-mnist-s0-aa1000"),
    ]
    lines = []
    for name, n, run in asked:
        kept = record("mnist-small-cnn", run)
        assert kept.n == n
        for attack, outcome in kept.attacks.items():
            assert outcome.n == n
            lines.append([f"`{name}`", f"`{attack}`", str(n), under(kept, attack)])
    return table(["defense", "attack", "images", "robust accuracy"], lines, left=2)


def cifar10() -> str:
    """Return the table of the networks that were trained on CIFAR-10 as JPEG files."""
    asked = [
        ("trades-awp-cifar10-jpeg-s0", "eval-trades-awp-cifar10-jpeg-s0"),
        ("fast-at-cifar10-strided48-s0", "eval-fast-at-cifar10-strided48-s0"),
        ("fast-at-cifar10-strided48-s0", "eval-fast-at-cifar10-strided48-s0-aa1000"),
        ("fast-at-cifar10-strided48-s0", "eval-fast-at-cifar10-strided48-s0-aa1000-l2"),
        ("fast-at-cifar10-jpeg-s0", "eval-fast-at-cifar10-jpeg-s0-aa24"),
    ]
    lines = []
    for trained, evaluation in asked:
        run, kept = record("cifar10-jpeg", trained), record("cifar10-jpeg", evaluation)
        model, threat = run.config["model"], kept.config["threat"]
        net = f"`{model['name']}`, width {model['width']}"
        eps = "8/255" if threat["norm"] == "Linf" else f"{threat['eps']:g}"
        for attack, outcome in kept.attacks.items():
            clean = spread([kept.clean_accuracy or 0.0], 2, clean_trust(kept))
            facts = [f"`{run.subject}`", net, f"{threat['norm']} {eps}", f"`{attack}`"]
            lines.append([*facts, str(outcome.n), clean, under(kept, attack)])
    heads = ["defense", "network", "eps", "attack", "images", "clean", "robust accuracy"]
    return table(heads, lines, left=4)


def precision() -> str:
    """Return the table of training in float32 and in bfloat16."""
    found, columns = study("precision-mnist"), ("clean", "pgd20", "cw20")
    lines = [
        [f"`{defense}`", name, *cells(found[prefix + name], columns)]
        for defense, prefix in (("pgd-at", ""), ("trades", "trades-"))
        for name in ("float32", "bf16")
    ]
    heads = ["defense", "training in", *map(NAMES.__getitem__, columns)]
    return table(heads, lines, left=2)


AUTOATTACK = (
    ("`standard` on MNIST, Linf 0.3", "mnist-small-cnn", "standard-mnist-s0-aa1000", ""),
    (
        "`trades` on MNIST, Linf 0.3 (a busy machine)",
        "mnist-small-cnn",
        "trades-mnist-s0-aa1000",
        "trades-mnist-s0-own1000",
    ),
    (
        "`fast-at` on CIFAR-10 JPEG, Linf 8/255",
        "cifar10-jpeg",
        "fast-at-cifar10-strided48-s0-aa1000",
        "",
    ),
    (
        "`fast-at` on CIFAR-10 JPEG, L2 0.5 (a busy machine)",
        "cifar10-jpeg",
        "fast-at-cifar10-strided48-s0-aa1000-l2",
        "",
    ),
    (
        "`fast-at`, a larger net, on CIFAR-10 JPEG, Linf 8/255",
        "cifar10-jpeg",
        "fast-at-cifar10-jpeg-s0-aa24",
        "",
    ),
)
"""Model, study, the evaluation by the official code, and ours where it is another record."""


def autoattack() -> str:
    """Return the table of the official AutoAttack beside ours."""
    lines = []
    for called, name, official, own in AUTOATTACK:
        of_theirs, of_ours = (
            record(name, f"eval-{official}"),
            record(name, f"eval-{own or official}"),
        )
        theirs, ours = of_theirs.attacks["autoattack-reference"], of_ours.attacks["autoattack"]
        assert theirs.n == ours.n
        numbers = [under(of_theirs, "autoattack-reference"), under(of_ours, "autoattack")]
        seconds = [f"{each.seconds:,.0f}" for each in (theirs, ours)]
        lines.append([called, f"{ours.n:,}", *numbers, *seconds])
    heads = ["model", "images", "official, %", "advbench, %", "official, s", "advbench, s"]
    return table(heads, lines)


def members() -> str:
    """Return the table of what stands after the first members of AutoAttack."""
    lines = []
    for called, name, official, own in (
        (
            "`fast-at` on CIFAR-10 JPEG, Linf 8/255",
            "cifar10-jpeg",
            "fast-at-cifar10-strided48-s0-stages",
            "fast-at-cifar10-strided48-s0-aa1000",
        ),
        (
            "`fast-at` on CIFAR-10 JPEG, L2 0.5",
            "cifar10-jpeg",
            "fast-at-cifar10-strided48-s0-stages-l2",
            "fast-at-cifar10-strided48-s0-aa1000-l2",
        ),
        (
            "`trades` on MNIST, Linf 0.3",
            "mnist-small-cnn",
            "trades-mnist-s0-stages",
            "trades-mnist-s0-own1000",
        ),
    ):
        numbers = []
        for evaluation in (official, own):
            run = record(name, f"eval-{evaluation}")
            (outcome,) = (o for o in run.attacks.values() if o.broken_by)
            standing = round((run.clean_accuracy or 0.0) * outcome.n)
            for broken in [*outcome.broken_by.values()][:2]:
                standing -= broken
                numbers.append(f"{100 * standing / outcome.n:.1f}")
        lines.append([called, numbers[0], numbers[2], numbers[1], numbers[3]])
    heads = ["after", "APGD-CE, official", "APGD-CE, advbench", "APGD-T, official"]
    return table([*heads, "APGD-T, advbench"], lines)


def speedrun() -> str:
    """Return the accuracy of the speedruns under AutoAttack, and the CPU minutes of each seed."""
    runs = {run.id: run for run in comparable(REFERENCE / "speedrun").values()}
    lines = []
    evaluations = [each for each in runs.values() if each.kind == "eval"]
    for run in sorted(evaluations, key=lambda each: (records.data_name(each), each.seed)):
        parent, (outcome,) = runs[run.parent or ""], run.attacks.values()
        accuracy = attack_trust(run, "autoattack").written(
            f"{100 * outcome.robust_accuracy:.1f}",
            "" if outcome.least is None else f"{100 * outcome.least:.1f}",
        )
        spent = training_minutes([parent], 1)
        clean = f"{100 * (run.clean_accuracy or 0):.1f}"
        data = records.data_name(parent).removeprefix("hf:")
        minutes = spent.text if spent else ""
        lines.append([f"{run.subject} on {data}", str(parent.seed), clean, accuracy, minutes])
    heads = ["trained by", "seed", "clean", "AutoAttack, 1,000 images", "minutes"]
    return table(heads, lines, left=1)


TABLES = {
    "speedrun": speedrun,
    "at-family": at_family,
    "autoattack": autoattack,
    "certified": certified,
    "certified-mnist": certified_mnist,
    "cifar10": cifar10,
    "detection": detection,
    "members": members,
    "min-max": min_max,
    "mnist": mnist,
    "mnist-part": mnist_part,
    "mnist-whole": mnist_whole,
    "overfitting": overfitting,
    "precision": precision,
    "reading-list": reading_list,
    "trades-beta": trades_beta,
}
"""The tables by the name that a page gives them."""
