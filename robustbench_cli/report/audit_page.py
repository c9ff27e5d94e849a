"""The page of an audit: its parts as plain text, and the page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustbench_cli.core.errors import install_command
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.core.threat_text import format_size, format_threat
from robustbench_cli.report.audit_card import threat_card
from robustbench_cli.report.number_trust import WITHHELD, attack_trust, clean_trust
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs import records
from robustbench_cli.runs.audit_result import AuditResult
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Finding, Severity

CAPTIONS: Mapping[str, str] = {
    "radius": "Accuracy over the radius. It must never rise, and must reach zero.",
    "margin": "The highest margin so far (largest wrong logit less the true one) on images that "
    "the strongest attack broke, or, where none broke more, on images that stood. Above zero an "
    "image is misclassified.",
    "images": "Images that only another attack than the claimed one broke; grey is no change.",
}
"""What the pictures show, in the order of the page."""
NO_PICTURES = f"The pictures need matplotlib: {install_command('plot')}."
MEANINGLESS = "There are no pictures of numbers that mean nothing."
WIDE = 0.2
"""The width of an interval from which the page says that images are few."""
_ORDER: Sequence[Severity] = ("error", "warning", "info")
DYNAMIC = ("dynamic", "randomised", "randomness")
"""Checks whose findings, even when they only inform, call for an attack made for the model."""


@dataclass(frozen=True, kw_only=True)
class AuditTable:
    """The one table of the page."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """All that the page of an audit says, in plain text."""

    title: str
    verdict: str
    """One sentence: the grade of the claim, else how far the number can be trusted."""
    tone: str
    """good, doubtful or bad, for its colour."""
    notes: tuple[str, ...]
    table: AuditTable
    pictures: Mapping[str, str]
    """The files of the pictures, by what they show."""
    missing: str
    """Why there are no pictures; empty where there are some."""
    findings: tuple[tuple[str, str, str], ...]
    """Severity, check and sentence, the gravest first."""
    measures: tuple[tuple[str, str, str], ...]
    """ok, not passed, or measured (without a threshold); check and sentence."""
    card: Mapping[str, str]
    """The threat model, by what is stated."""


def audit_page(run: Run, pictures: Mapping[str, str]) -> AuditPage:
    """Return what the page of an audit says.

    Args:
        pictures: the files, relative to the page, by what they show; those that there are.
    """
    result = run.audit or AuditResult()
    verdict, tone = _verdict(run, result)
    signs = {True: "ok", False: "not passed", None: "measured"}
    shown = {what: pictures[what] for what in CAPTIONS if what in pictures}
    threat = run.settings.threat
    where = format_threat(threat.norm, threat.eps, threat.mask)
    return AuditPage(
        title=one_line(f"{run.subject}{run.settings.behind} on {records.data_name(run)}, {where}"),
        verdict=one_line(verdict),
        tone=tone,
        notes=tuple(map(one_line, _notes(run, result))),
        table=_table(run, result),
        pictures=shown,
        missing="" if shown else MEANINGLESS if _withheld(run) else NO_PICTURES,
        findings=tuple((f.severity, f.check, one_line(f.message)) for f in _sorted(run.findings)),
        measures=tuple((signs[m.passed], m.check, one_line(m.text)) for m in result.measures),
        card={key: one_line(value) for key, value in threat_card(run).items()},
    )


def as_markdown(page: AuditPage) -> str:
    """Return the page in Markdown; pictures are files beside it."""
    parts = [f"# Audit: {_plain(page.title)}", f"**{_plain(page.verdict)}**"]
    parts += [_plain(note) for note in page.notes]
    parts.append(_rows(page.table.titles, page.table.rows))
    for what, file in page.pictures.items():
        parts.append(f"![{CAPTIONS[what]}]({file})\n\n*{CAPTIONS[what]}*")
    parts += [f"*{page.missing}*"] if page.missing else []
    parts.append("## What was found")
    found = [f"- **{severity}** {check}: {_plain(text)}" for severity, check, text in page.findings]
    parts.append("\n".join(found) or "Nothing.")
    parts.append("## What was measured")
    parts.append(_rows(("", "check", "result"), page.measures))
    parts.append("## The threat model")
    parts.append(_rows(("", ""), tuple(page.card.items())))
    return "\n\n".join(parts) + "\n"


def _withheld(run: Run) -> bool:
    """Return True if the number of the claimed attack means nothing."""
    return any(attack_trust(run, label).withheld for label in run.attacks)


def _verdict(run: Run, result: AuditResult) -> tuple[str, str]:
    """Return the sentence at the head of the page, and its tone."""
    ((label, outcome),) = run.attacks.items()
    trust = attack_trust(run, label)
    tones = {"sound": "good", "unchecked": "doubtful", "upper bound": "bad", "withheld": "bad"}
    if result.claim is not None:
        agrees = {"reproduced": tones[trust.trust], "undecided": "doubtful"}
        grades = {**agrees, "not reproduced": "bad", "overstated": "bad"}
        sentence = result.claim.sentence
        stop = "" if sentence.endswith(("?", "!")) else "."
        return f"{sentence[0].upper()}{sentence[1:]}{stop}", grades[result.claim.grade]
    number = f"{outcome.robust_accuracy:.2%}"
    words = {
        "sound": f"{number} under {label} is sound: nothing in the battery contradicts it.",
        "unchecked": f"{number} under {label} was not checked, or not in full.",
        "upper bound": f"{number} under {label} is an upper bound: the truth is lower.",
        "withheld": f"The number under {label} means nothing.",
    }
    return words[trust.trust], tones[trust.trust]


def _notes(run: Run, result: AuditResult) -> list[str]:
    """Return what is to be said beside the verdict."""
    ((label, outcome),) = run.attacks.items()
    suspect = outcome.trust == "upper bound" or any(f.check in DYNAMIC for f in run.findings)
    notes = []
    low, high = wilson(outcome.robust_accuracy * outcome.n, outcome.n)
    if high - low > WIDE and outcome.trust != "withheld":
        notes.append(
            f"Of {outcome.n} images, the 95 % interval of this accuracy is {100 * low:.1f} to "
            f"{100 * high:.1f} %: take more images (--n) to compare it with others."
        )
    if suspect and not result.adaptive:
        notes.append(
            "Non-adaptive upper bound only: this model calls for an attack made for it "
            "(Tramèr et al., 2020), and none was part of this audit."
        )
    if outcome.trust == "upper bound" and result.claim and result.claim.grade == "reproduced":
        notes.append(f"The number under {label} is an upper bound all the same: see below.")
    return notes


def _table(run: Run, result: AuditResult) -> AuditTable:
    """Return the table: clean, the claimed attack, and what else was run."""
    ((label, outcome),) = run.attacks.items()
    n, clean, own = run.n or 0, clean_trust(run), attack_trust(run, label)
    share, robust = run.clean_accuracy or 0.0, outcome.robust_accuracy
    found = "" if own.found is None else f"{own.found:.2%}"
    shown = own.written(f"{robust:.2%} {_interval(robust, n)}", found)
    norm = run.settings.threat.norm
    eps = format_size(norm, run.settings.threat.eps)
    first = clean.written(f"{share:.2%} {_interval(share, n)}")
    rows: list[tuple[str, ...]] = [
        ("clean", "0", first, clean.trust, ""),
        (f"{label} (claimed)", eps, shown, own.trust, _breaks(run)),
    ]
    for each in result.attacks:
        if each.check == "radius":
            continue
        more = f"broke {each.broken} of {each.tried} that it was tried on"
        left = WITHHELD if own.withheld else f"{each.left:.2%}"
        rows.append((each.label, format_size(norm, each.eps), left, each.check, more))
    if run.control is not None:
        broke = run.control.n - run.control.correct
        more = f"broke {broke} of {run.control.n} that had stood"
        rows.append((" and ".join(run.control.broken_by), eps, "", "control", more))
    titles = ("attack", "eps", "accuracy left", "trust, or the check that ran it", "what was found")
    return AuditTable(
        titles=titles, rows=tuple(tuple(one_line(cell) for cell in row) for row in rows)
    )


def _breaks(run: Run) -> str:
    """Return how many images the claimed attack broke."""
    ((_, outcome),) = run.attacks.items()
    right = round((run.clean_accuracy or 0.0) * outcome.n)
    return f"broke {right - outcome.correct} of {right}"


def _interval(share: float, n: int) -> str:
    low, high = wilson(share * n, n)
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda each: _ORDER.index(each.severity))


def _rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    head = [f"| {' | '.join(titles)} |", f"|{' :-- |' * len(titles)}"]
    return "\n".join([*head, *(f"| {' | '.join(map(_plain, row))} |" for row in rows)])


def _plain(text: str) -> str:
    """Return text in which Markdown finds no markup of its own."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text
