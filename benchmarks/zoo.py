"""Evaluate the planted and honest models of ``tests/zoo`` as a user would, and keep what is said.

    python benchmarks/zoo.py --half tune --attack pgd20                # 100 images each
    python benchmarks/zoo.py --attack autoattack --n 40 --only state,backward
    python benchmarks/zoo.py --summary

Each model is one ``advbench eval`` per attack.  Rows go into ``docs/zoo.json``, from which ``make
docs`` writes docs/zoo.md; rows that are there already are left, unless ``--again``.  MNIST and the
CIFAR-10 JPEGs are found by ADVBENCH_DATA.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))

from members import MEMBERS, Member
from truth import data_text, known

from robustbench_cli.cli import main
from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.runs import records

KEPT = Path(__file__).parents[1] / "docs" / "zoo.json"
POINTS = 5.0
"""Percentage points by which a number may be above the true one: attacks differ a little."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one evaluation of one member printed, and what is true."""

    member: str
    kind: str
    half: str
    attack: str
    n: int
    clean: float | None
    """Accuracies are in percent; None where the evaluation was refused."""
    printed: float | None
    """The robust accuracy; of one that is withheld, what stands in the record."""
    state: str
    """sound, upper bound, withheld or unchecked; refused; failed, which must not happen."""
    true: float | None
    """The true robust accuracy, in percent, on the same images; None: not measured yet."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Check, severity, value and threshold, and the accuracy that it leaves, in percent."""
    error: str = ""
    seconds: float

    @property
    def overstated(self) -> bool:
        """True if a number is printed that is well above the true one."""
        both = self.printed is not None and self.true is not None
        return both and self.printed > self.true + POINTS

    @property
    def wrong(self) -> bool:
        """True if the state is wrong: an overstated number is sound, or an honest model is not."""
        if self.kind == "honest":
            return self.state != "sound"
        return self.state == "failed" or (self.overstated and self.state in ("sound", "unchecked"))


def evaluated(member: Member, attack: str, n: int) -> Row:
    """Run ``advbench eval`` on a member and read its record."""
    began = time.perf_counter()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--out", folder, "--name", "it", "--eps", str(member.eps), "--n", str(n)]
        what = ["--model", member.factory, "--dataset", data_text(member), "--attack", attack]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["eval", *what, *options, *member.options, "--quiet"])
        path = Path(folder, "it")
        run = records.read(path) if code == 0 else None
    seconds = round(time.perf_counter() - began, 1)
    about = {
        "member": member.name,
        "kind": member.kind,
        "half": member.half,
        "attack": attack,
        "n": n,
        "true": true_accuracy(member.name, n),
        "seconds": seconds,
    }
    if run is None:
        last = (said.getvalue().strip().splitlines() or ["?"])[-1]
        state = "refused" if code == 2 else "failed"
        return Row(**about, clean=None, printed=None, state=state, error=last)
    (outcome,) = run.attacks.values()
    clean = run.clean_accuracy
    return Row(
        **about,
        clean=None if clean is None else round(100 * clean, 1),
        printed=round(100 * outcome.robust_accuracy, 1),
        state=outcome.trust,
        findings=[_shortened(asdict(each)) for each in run.findings],
    )


def true_accuracy(name: str, n: int) -> float | None:
    """Return the true robust accuracy of a member in percent, where ``truth.json`` has it."""
    found = known().get(name)
    return None if found is None else round(100 * found.accuracy(n), 1)


def _shortened(finding: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a finding that a table or a choice of thresholds needs."""
    found = {key: finding[key] for key in ("check", "severity", "images", "of")}
    for key in ("value", "threshold", "accuracy"):
        if finding[key] is not None:
            found[key] = float(f"{finding[key]:.4g}")
    return found


def kept() -> list[Row]:
    """Return the rows in ``docs/zoo.json`` of members that are still in the table."""
    rows = json.loads(KEPT.read_text()) if KEPT.is_file() else []
    names = {member.name for member in MEMBERS}
    return [
        Row(**each | {"true": true_accuracy(each["member"], each["n"])})
        for each in rows
        if each["member"] in names
    ]


def keep(row: Row) -> None:
    """Put a row into ``docs/zoo.json``, in the place of one of the same member and attack."""
    key = (row.member, row.attack)
    rows = [each for each in kept() if (each.member, each.attack) != key] + [row]
    names = [member.name for member in MEMBERS]
    rows.sort(key=lambda each: (names.index(each.member), each.attack))
    text = "[\n" + ",\n".join(json.dumps(asdict(each)) for each in rows) + "\n]\n"
    write_bytes_atomically(KEPT, text.encode())


def summary(rows: list[Row]) -> str:
    """Return the counts of wrong states, and each of them in a line."""
    lines = []
    for attack in sorted({row.attack for row in rows}):
        mine = [row for row in rows if row.attack == attack]
        planted = [row for row in mine if row.kind != "honest"]
        over = [row for row in planted if row.overstated]
        wrong = [row for row in mine if row.wrong]
        lines.append(
            f"{attack}: {len(over)} of {len(planted)} planted overstated, "
            f"{sum(row in over for row in wrong)} of them sound; "
            f"{sum(row.kind == 'honest' for row in wrong)} of {len(mine) - len(planted)} honest "
            "marked"
        )
        lines += [f"  {told(row)}" for row in wrong]
    return "\n".join(lines)


def told(row: Row) -> str:
    """Return a row in a line."""
    fired = ", ".join(
        f"{each['check']}({each['severity'][0]}, {each.get('value', each['images'])})"
        for each in row.findings
    )
    return (
        f"{row.member} ({row.half}) {row.attack} n={row.n}: clean {row.clean}, printed "
        f"{row.printed}, {row.state}, true {row.true} [{fired}] {row.error} {row.seconds} s"
    )


def run(
    attack: Annotated[list[str] | None, typer.Option(help="pgd20, autoattack, adaptive.")] = None,
    half: Annotated[str, typer.Option(help="tune, report, or both.")] = "both",
    only: Annotated[str, typer.Option(help="Kinds or members, with commas.")] = "",
    n: Annotated[int, typer.Option(help="Test images.")] = 100,
    again: Annotated[bool, typer.Option(help="Run what is in the table already.")] = False,
    summary_: Annotated[bool, typer.Option("--summary", help="Only tell what is wrong.")] = False,
) -> None:
    """Evaluate members of the zoo, keep the rows, and tell where a state is wrong."""
    known_rows = {(row.member, row.attack) for row in kept()}
    wanted = set(filter(None, only.split(",")))
    for member in () if summary_ else MEMBERS:
        if half not in ("both", member.half):
            continue
        if wanted and not wanted & {member.kind, member.name, member.function}:
            continue
        for each in attack or ["pgd20"]:
            if (member.name, each) in known_rows and not again:
                continue
            try:
                row = evaluated(member, each, n)
            except FileNotFoundError as missing:  # the data set is not on this machine
                print(f"{member.name}: skipped, {missing}", flush=True)
            else:
                keep(row)
                print(told(row), "<-- WRONG" * row.wrong, flush=True)
    print(summary(kept()))


if __name__ == "__main__":
    typer.run(run)
