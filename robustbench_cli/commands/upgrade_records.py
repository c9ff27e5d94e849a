"""Records of older versions, with the settings that have come since at their defaults.

torch comes with what knows those defaults: it is loaded where a record lacks some, not before.
"""

from dataclasses import replace
from pathlib import Path

from robustbench_cli.core.errors import UserError
from robustbench_cli.report.seed_groups import unlike
from robustbench_cli.runs import folders
from robustbench_cli.runs.damage import check_complete
from robustbench_cli.runs.folders import Skip
from robustbench_cli.runs.records import Run, as_json
from robustbench_cli.runs.settings import DamagedRecord


def comparable(results: Path, skip: Skip | None = None) -> dict[Path, Run]:
    """All runs below ``results`` by folder, oldest first, so that they can be compared.

    Args:
        skip: is told of a damaged record, or a finished one that lacks what a table needs, which
            is then left out.

    Raises:
        DamagedRecord: a record is damaged, and there is no ``skip``.
    """
    runs = {}
    for folder, run in folders.distinct(results, skip).items():
        try:
            check_complete(run)
        except DamagedRecord as error:
            named = DamagedRecord(str(folder / "run.json"), error.what)
            if skip is None:
                raise named from None
            skip(named)
        else:
            runs[folder] = run
    which = unlike([*runs.values()])
    return {place: _filled(run) if run.id in which else run for place, run in runs.items()}


def _filled(run: Run) -> Run:
    try:
        return FILLS[run.kind](run)
    except (
        UserError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # what this version does not understand stays as it was written
        return run


def _training(run: Run) -> Run:
    from robustbench_cli.commands.components import recipe_tables, with_all_parameters
    from robustbench_cli.config.schema import TrainConfig, as_recorded, specs_of, validated
    from robustbench_cli.defenses import Recipe

    made = recipe_tables(Recipe.build(specs_of(run.settings.defense)))
    config = validated(TrainConfig, {**with_all_parameters(run.config), "defense": made})
    return replace(run, config=as_json(as_recorded(config)))


def _evaluation(run: Run) -> Run:
    from robustbench_cli.attacks import ATTACKS
    from robustbench_cli.config.schema import spec_of

    attacks = {
        label: replace(
            outcome, params=as_json(ATTACKS.describe(ATTACKS.build(spec_of(outcome.params))))
        )
        for label, outcome in run.attacks.items()
    }
    return replace(run, attacks=attacks)


FILLS = {"train": _training, "eval": _evaluation}
"""The function that completes a record, by its kind."""
