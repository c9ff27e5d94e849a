"""One member of the zoo, evaluated on a few images as a user would."""

from pathlib import Path

from members import MEMBERS, Member
from truth import data_text, known

from robustbench_cli.cli import main
from robustbench_cli.runs import records

N = 16
POINTS = 100 * 2 / N
"""Two images: what an honest attack may miss of the true accuracy."""
TRUTH = known()


def of_half(half: str) -> list[Member]:
    """Return the members of a half of the zoo."""
    return [member for member in MEMBERS if member.half == half]


def check_marks(member: Member, folder: Path) -> None:
    """Fail if an overstated number passes as sound, or an honest one is marked."""
    options = ["--attack", "pgd20", "--n", str(N), "--eps", str(member.eps), "--quiet"]
    where = ["--out", str(folder), "--name", "it"]
    data = ["--dataset", data_text(member)]
    code = main(["eval", "--model", member.factory, *data, *options, *member.options, *where])
    assert (code == 2) == member.refused
    if member.refused:
        return
    outcome = records.read(folder / "it").attacks["pgd20"]
    if not member.planted:
        assert outcome.trust == "sound"
    elif 100 * (outcome.robust_accuracy - TRUTH[member.name].accuracy(N)) > POINTS:
        assert outcome.trust in ("upper bound", "withheld")
