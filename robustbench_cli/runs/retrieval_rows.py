"""The rows of a retrieval's measures: their names, and which attack each of them is about.

No torch in here: reports start fast.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from robustbench_cli.core.threat_text import format_eps

if TYPE_CHECKING:
    from robustbench_cli.runs.records import Run

CLEAN_ROW = "clean"
"""The row of images as they are."""
ERS = "ers"
"""Stands for all attacks whose measures make up the score of that name."""
_ALL = "all"


class RowAttack(NamedTuple):
    """The attack that a row is about."""

    params: Mapping[str, Any]
    """Its name and parameters; nothing for images as they are."""
    eps: float | None = None
    """The radius for images in [0, 1]."""


def attack_row(label: str, eps: float) -> str:
    """Return the name of the row of an attack at a radius: ``ca+ eps=77/255``."""
    return f"{label} eps={format_eps(eps)}"


def score_row(eps: float) -> str:
    """Return the name of the row of all attacks at a radius: ``all eps=77/255``."""
    return attack_row(_ALL, eps)


def row_attacks(run: "Run") -> dict[str, RowAttack]:
    """Return the attack of every row that the record of a retrieval may have, by the row's name.

    The row of all attacks is about ``ers``.  Of its parameters it has what the attacks that the
    score is made of share; where these differ it has all their values, as one text.

    Raises:
        DamagedRecord: the section ``retrieve`` of the record has a wrong shape.
    """
    rows, asked = {CLEAN_ROW: RowAttack({})}, run.settings.retrieve
    if asked is None:
        return rows
    names: dict[str, set[str]] = defaultdict(set)
    for measure in run.measures:
        names[measure.of].add(measure.name)
    for eps in asked.radii:
        at = {attack_row(label, eps): params for label, params in asked.attacks.items()}
        rows |= {name: RowAttack(params, eps) for name, params in at.items()}
        # An attack takes part in the score by a measure of its own, which clean images lack.
        scored = [params for name, params in at.items() if names[name] - names[CLEAN_ROW]]
        rows[score_row(eps)] = RowAttack({**_shared(scored), "name": ERS}, eps)
    return rows


def _shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of several attacks as one table."""
    values: dict[str, list[Any]] = defaultdict(list)
    for table in tables:
        for key, value in table.items():
            if value not in values[key]:
                values[key].append(value)
    return {k: v[0] if len(v) == 1 else ", ".join(map(str, v)) for k, v in values.items()}
