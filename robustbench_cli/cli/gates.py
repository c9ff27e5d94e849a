"""``--fail-under``: accuracies that must not fall below a number, for CI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from robustbench_cli.cli.exit_codes import ExitCode
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import printable

if TYPE_CHECKING:
    from robustbench_cli.report.number_trust import NumberTrust
    from robustbench_cli.runs.records import Run

CLEAN_NAME, WORST_NAME = "clean", "worst"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """An accuracy that an evaluation must reach."""

    name: str
    """An attack as it was written, ``clean`` or ``worst``."""
    least: float
    """In per cent."""


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What became of a gate."""

    gate: Gate
    passed: bool
    said: str
    """One sentence; empty where the gate is passed by a number that was checked."""

    @property
    def data(self) -> dict[str, Any]:
        """The verdict as ``--json`` has it."""
        passed = {"number": self.gate.name, "at_least": self.gate.least, "passed": self.passed}
        return passed | ({"reason": self.said} if self.said else {})


def chosen_gates(texts: Sequence[str], attacks: Mapping[str, object], *, sweep: str) -> list[Gate]:
    """Return the gates that ``--fail-under`` asks for.

    Args:
        texts: ``40`` for every attack, or ``NAME=40`` for an attack, ``clean`` or ``worst``.
        attacks: the attacks of the evaluation that have an accuracy, by their labels.
        sweep: what ``--sweep`` asks for; empty: nothing.

    Raises:
        UserError: no number between 1 and 100, an unknown name, or nothing to gate.
    """
    if texts and sweep:
        raise UserError(
            f"--fail-under with --sweep {sweep}: a sweep has many accuracies; gate an evaluation "
            "at one radius"
        )
    found: dict[str, Gate] = {}
    # A number for one attack stands, whatever the number for all says.
    for text in sorted(texts, key=lambda text: "=" in text):
        name, _, number = text.rpartition("=")
        least = _percent(text, number)
        for each in [_known(name.strip().lower(), attacks)] if name else [*attacks]:
            found[each] = Gate(name=each, least=least)
    if texts and not found:
        raise UserError("--fail-under: there is no attack to gate; add one, e.g. --attack pgd20")
    return list(found.values())


def _percent(text: str, number: str) -> float:
    try:
        value = float(number.strip().removesuffix("%"))
    except ValueError:
        value = float("nan")
    if not (value == 0 or 1 <= value <= 100):
        raise UserError(
            f"--fail-under {text!r}: give per cent from 1 to 100, e.g. 40, pgd20=40 or worst=35"
        )
    return value


def _known(name: str, attacks: Mapping[str, object]) -> str:
    names = [*attacks, CLEAN_NAME, *[WORST_NAME] * bool(attacks)]
    if name not in names:
        raise UserError(
            f"--fail-under {name!r}: it is no number of this evaluation{hint(name, names)}"
        )
    return name


def gate_verdicts(run: "Run", gates: Sequence[Gate]) -> list[GateVerdict]:
    """Return what becomes of each gate.

    A number passes if it is at least the gate and nothing was found against it.  One that means
    nothing (withheld) or that is only an upper bound does not pass, however high it is; one whose
    checks were left out passes, and that is said.
    """
    return [_verdict(gate, *_number(run, gate.name)) for gate in gates]


def _number(run: "Run", name: str) -> "tuple[float, NumberTrust]":
    """Return the accuracy of this name (a share) and how far it can be trusted."""
    from robustbench_cli.report.number_trust import attack_trust, clean_trust, worst_trust

    shares = {CLEAN_NAME: run.clean_accuracy, WORST_NAME: run.worst_case_accuracy}
    trusts = {CLEAN_NAME: clean_trust, WORST_NAME: worst_trust}
    if name in shares and name not in run.attacks:
        return shares[name] or 0.0, trusts[name](run)
    return run.attacks[name].robust_accuracy, attack_trust(run, name)


def _verdict(gate: Gate, share: float, trust: "NumberTrust") -> GateVerdict:
    # 40 of 100 images are 40 %, whatever binary fractions make of it.
    value, least = round(100 * share, 9), f"{gate.least:g} %"
    if trust.withheld:
        said = f"{gate.name} is withheld: it means nothing, so it is not shown to reach {least}"
        return GateVerdict(gate=gate, passed=False, said=said)
    if not value >= gate.least:  # NaN is below, too
        said = f"{gate.name} is {value:.2f} %, below {least}"
        return GateVerdict(gate=gate, passed=False, said=said)
    if trust.confidence is not None and trust.found is not None:
        reached = round(100 * trust.found, 9) >= gate.least
        sure = f", with {trust.confidence:.0%} confidence" if trust.sampled else ""
        ends = f"{trust.found:.2%} to {value:.2f} %{sure}"
        said = f"{gate.name} is {ends}: " + ("" if reached else "not shown to reach ") + least
        return GateVerdict(gate=gate, passed=reached, said="" if reached else said)
    if trust.trust == "upper bound":
        found = "" if trust.found is None else f" ({trust.found:.2%} found)"
        said = f"{gate.name} is at most {value:.2f} %{found}: not shown to reach {least}"
        return GateVerdict(gate=gate, passed=False, said=said)
    unchecked = f"{gate.name} passes {least} unchecked" if trust.trust == "unchecked" else ""
    return GateVerdict(gate=gate, passed=True, said=unchecked)


def say_verdicts(verdicts: Sequence[GateVerdict]) -> None:
    """Say on standard error which gates are not passed, and which by unchecked numbers."""
    for each in verdicts:
        if each.said:
            typer.echo(f"advbench: --fail-under: {printable(each.said)}", err=True)


def refuse_below(verdicts: Sequence[GateVerdict]) -> None:
    """End with exit code 4 unless every gate is passed.

    Raises:
        typer.Exit: with code 4; not raised where all are passed.
    """
    if not all(each.passed for each in verdicts):
        raise typer.Exit(code=ExitCode.BELOW)
