"""What ``--json`` prints: one JSON value on standard output."""

import json
from pathlib import Path
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print a value as JSON; control characters in its texts are escaped."""
    typer.echo(json.dumps(value, indent=2))


def print_outcome(folder: Path, **more: Any) -> None:
    """Print the outcome of the run in a folder as JSON.

    Args:
        more: further entries by name.
    """
    from robustbench_cli.report.outcome_data import outcome_data
    from robustbench_cli.runs import records

    print_json({**outcome_data(records.read(folder), folder), **more})
