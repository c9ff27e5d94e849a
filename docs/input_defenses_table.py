"""The table of input-defenses.md, from ``docs/input_defenses.json``, which
``benchmarks/input_defenses.py`` writes.
"""

import json
from pathlib import Path

from marked_parts import table

ROWS = Path(__file__).with_name("input_defenses.json")
COLUMNS = ("clean", "transferred", "adaptive")


def patches() -> str:
    """Return what was measured, and a line for the net alone and for each defense."""
    found = json.loads(ROWS.read_text())
    side = f"{found['side']}x{found['side']}"
    said = (
        f"{found['model']} on {found['data']}, the first {found['n']} test images, a patch of "
        f"{side} pixels at row and column {found['at']}, PGD of {found['steps']} steps:"
    )
    lines = [
        [f"`{row['defense']}`", *(f"{row[key]:.1f}" for key in COLUMNS), _ways(row["by way back"])]
        for row in found["rows"]
    ]
    heads = ["accuracy in %", "clean", "patch for the net alone", "patch through it", "way by way"]
    return f"{said}\n\n{table(heads, lines, left=1)}"


def _ways(found: dict[str, float]) -> str:
    return ", ".join(f"{way} {accuracy:.1f}" for way, accuracy in found.items())
