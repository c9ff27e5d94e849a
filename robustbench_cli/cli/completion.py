"""Shell completion of names and runs.

It must answer while a line is typed: torch, pydantic and pandas are not imported.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustbench_cli.config.catalogue import KINDS, scan
from robustbench_cli.core.errors import UserError
from robustbench_cli.papers import board_titles, titles

Completions = list[tuple[str, str]]
"""Words that the shell offers, each with a short description."""


def _completing(*kinds: str) -> Callable[[str], Completions]:
    """Return a completion function for the names and aliases of these kinds (see ``KINDS``)."""

    def complete(incomplete: str) -> Completions:
        try:
            found = [item for kind in kinds for item in scan(kind)]
        except UserError:  # a shell that is completing a line has no place for a message
            return []
        return [
            (name, item.summary)
            for item in found
            for name in (item.name, *item.aliases)
            if name.startswith(incomplete)
        ]

    return complete


attacks = _completing("attacks")
masks = _completing("masks")
input_defenses = _completing("input-defenses")
certificates = _completing("certificates")
detectors = _completing("detectors")
generators = _completing("generators")
explanations = _completing("explanations")
retrieval_attacks = _completing("retrieval-attacks")
transforms = _completing("transforms")
models = _completing("models")
datasets = _completing("datasets")
figures = _completing("figures")
presets = _completing("presets")
suites = _completing("suites")
logs = _completing("logs")
launchers = _completing("launchers")
studies = _completing("studies")
complete_names = _completing(*KINDS)


def papers(incomplete: str) -> Completions:
    """Offer the papers and leaderboards whose tables are here, by any of their names."""
    try:
        found = {name: title for name, (_, title) in titles().items()} | board_titles()
    except UserError:
        return []
    return [(name, title) for name, title in found.items() if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """Offer the kinds that ``advbench list`` takes."""
    return [kind for kind in (*KINDS, "runs") if kind.startswith(incomplete)]


def defenses(incomplete: str) -> Completions:
    """Offer the parts that may follow the last ``+``: ``trades+a`` becomes ``trades+awp``.

    A defense has one objective, so once it is there only modifiers are left.
    """
    before, plus, last = incomplete.rpartition("+")
    if not (offered := _completing("defenses")(last)):
        return []
    used = [part.partition(":")[0] for part in before.split("+")]
    roles = {name: item.group for item in scan("defenses") for name in (item.name, *item.aliases)}
    whole = "objective" in map(roles.get, used)
    return [
        (f"{before}{plus}{name}", summary)
        for name, summary in offered
        if name not in used and not (whole and roles[name] == "objective")
    ]


def runs(ctx: Any, incomplete: str) -> list[str]:
    """Offer the runs in the results folder that the command line names so far.

    Args:
        ctx: the command being typed, as Typer hands it over.
    """
    from robustbench_cli.runs.folders import record_files

    typed = ctx.params.get("results") or ctx.params.get("out")
    folder = Path(typed or os.environ.get("ADVBENCH_RESULTS", "results"))
    names = sorted(file.parent.name for file in record_files(folder))
    return [name for name in names if name.startswith(incomplete)]
