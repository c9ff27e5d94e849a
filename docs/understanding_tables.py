"""The tables of understanding.md, from the records of the study of that name."""

from collections.abc import Sequence
from pathlib import Path

from marked_parts import table

from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.report.measure_table import MeasuredLine, measure_tables
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.runs.records import Kind, Run

RECORDS = Path(__file__).parents[1] / "results" / "reference" / "understanding-digits"
MNIST = RECORDS.with_name("inversion-mnist")
PURSUIT_MNIST = RECORDS.with_name("pursuit-mnist")
VICTIMS = ("standard", "pgd-at", "trades")
PILOT_INVERSION = {
    "mean image": "0.0734",
    "class mean": "0.0423",
    "prediction": "0.0416 ± 0.0011",
    "prediction+gradient": "0.0257 ± 0.0005",
    "prediction+gradient-x-input": "0.0289 ± 0.0026",
    "prediction+grad-cam": "0.0391 ± 0.0020",
}
"""Mean squared errors of a pilot with another net, split and implementation; standard training."""
PILOT_PURSUIT = {
    "deep-pursuit:iterations=0": "97.3, 45.3",
    "layered-pursuit": "96.9, 55.2",
    "deep-pursuit:iterations=10": "97.2, 49.9",
}
"""Clean accuracy and that under PGD at 0.1 of the pilot."""
PILOT_RETRIEVAL = {
    "none": "98.6, 92.2, 64.7, 26.6",
    "one-role": "98.9, 95.5, 81.9, 50.7",
    "est": "98.5, 95.3, 89.3, 75.6",
    "act": "98.4, 95.7, 88.3, 69.6",
}
"""Recall@1 of the pilot, clean and under PGD-32 at 0.05, 0.1 and 0.15; two seeds."""


def _runs() -> list[Run]:
    return [*comparable(RECORDS).values()]


def _lines(kind: Kind) -> list[MeasuredLine]:
    (found,) = measure_tables(_runs(), kind)
    return list(found.lines)


def _row(line: MeasuredLine, names: Sequence[str]) -> list[str]:
    return [line.cells[name].text if name in line.cells else "" for name in names]


def explained() -> str:
    """Return what explanations of three victims are worth."""
    names = ["energy in mask", "pointing game", "insertion AUC", "deletion AUC"]
    names += ["class left", "feature distance"]
    lines = [[e.subject, f"`{e.of}`", *_row(e, names)] for e in _lines("explain")]
    for line in lines:  # the version that made these records took no features where gamma is 0
        line[-1] = "" if "gamma=0`" in line[1] else line[-1]
    return table(["trained by", "explanation", *names], lines, left=2)


def inverted() -> str:
    """Return the error of what is rebuilt, by what is exposed and by victim."""
    found = {(each.subject, each.of): each for each in _lines("invert")}
    exposures = dict.fromkeys(of for _, of in found)
    lines = [
        [of, *(found[v, of].cells["MSE"].text for v in VICTIMS), PILOT_INVERSION.get(of, "")]
        for of in exposures
        if of != "the images themselves"
    ]
    return table(["known to the attacker", *VICTIMS, "pilot, standard"], lines, left=1)


def inverted_mnist() -> str:
    """Return what is rebuilt of MNIST: error and what an independent classifier recognises."""
    (found,) = measure_tables([*comparable(MNIST).values()], "invert")
    lines = {(each.subject, each.of): each.cells for each in found.lines}
    victims = dict.fromkeys(victim for victim, _ in lines)
    columns = [(name, victim) for name in ("MSE", "independent recognises") for victim in victims]
    rows_ = [
        [of, *(lines[victim, of][name].text.removesuffix(" *") for name, victim in columns)]
        for of in dict.fromkeys(of for _, of in lines)
    ]
    heads = [f"{name}, {victim}" for name, victim in columns]
    return table(["known to the attacker", *heads], rows_, left=1)


def recognised() -> str:
    """Return what classifiers recognise of what was rebuilt."""
    found = {(each.subject, each.of): each for each in _lines("invert")}
    exposures = dict.fromkeys(of for _, of in found)
    lines = [
        [of, *(found[v, of].cells["independent recognises"].text for v in VICTIMS)]
        for of in exposures
    ]
    return table(["known to the attacker", *VICTIMS], lines, left=1)


def pursued() -> str:
    """Return the accuracies of the networks that unroll a solver, and of a plain one."""
    found: dict[str, dict[str, str]] = {}
    for row in rows(_runs()):
        if row.facts["defense"].text == "standard":
            cells = found.setdefault(row.facts["model"].text, {})
            told = {name: cell.text for name, cell in row.cells.items() if cell}
            cells |= {name: text for name, text in told.items() if name not in cells}
    lines = [
        [f"`{model}`", cells["clean"], cells["pgd20"], cells["autoattack"], PILOT_PURSUIT[model]]
        for model, cells in found.items()
        if model in PILOT_PURSUIT
    ]
    return table(["model", "clean", "PGD-20", "AutoAttack", "pilot: clean, PGD-20"], lines, left=1)


def pursued_mnist() -> str:
    """Return clean accuracy and that under BIM beside the rows of the thesis."""
    published: dict[str, list[str]] = {}
    for cell in load_paper("deep-pursuit").only("B.1 soft threshold"):
        published.setdefault(cell.method, []).append(str(cell.value))
    evaluated = [run for run in comparable(PURSUIT_MNIST).values() if run.kind == "eval"]
    lines = []
    for method, model in {"LBP": "layered-pursuit", "DP": "deep-pursuit"}.items():
        found = {
            run.settings.threat.norm: run
            for run in evaluated
            if run.settings.model["name"] == model
        }
        shares = [found["L2"].clean_accuracy or 0.0]
        shares += [run.attacks["bim"].robust_accuracy for run in (found["L2"], found["Linf"])]
        ours = [f"{100 * share:.1f}" for share in shares]
        lines.append([f"{method}: `{model}`", *ours, *published[method]])
    heads = ["net", "clean", "BIM, L2 0.15", "BIM, Linf 0.15", "thesis: clean", "thesis: IFGSM"]
    return table(heads, lines, left=1)


def retrieved() -> str:
    """Return Recall@1 by training and by radius."""
    found = {(each.subject, each.of): each for each in _lines("retrieve")}
    radii = ["clean", *(f"untargeted eps={eps}" for eps in ("0.05", "0.1", "0.15"))]
    lines = []
    for subject in dict.fromkeys(subject for subject, _ in found):
        name = subject.removeprefix("metric ").partition(":")[0]
        cells = [found[subject, of].cells["R@1"].text for of in radii]
        lines.append([f"`{name}`", *cells, PILOT_RETRIEVAL.get(name, "")])
    return table(["trained by", "clean", "0.05", "0.1", "0.15", "pilot"], lines, left=1)


UNDERSTANDING = {
    "understanding-explained": explained,
    "understanding-inverted": inverted,
    "inverted-mnist": inverted_mnist,
    "understanding-recognised": recognised,
    "understanding-pursued": pursued,
    "pursuit-mnist": pursued_mnist,
    "understanding-retrieved": retrieved,
}
