"""The outcome of a run as data, for ``--json``: what scripts need, without the whole record.

No torch in here: reports start fast.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustbench_cli.report.number_trust import (
    NumberTrust,
    attack_trust,
    certificate_trust,
    clean_trust,
    proven_trust,
    target_trust,
    worst_trust,
)
from robustbench_cli.runs.budget_spent import BudgetedOutcome
from robustbench_cli.runs.records import Run, data_name


def outcome_data(run: Run, folder: Path | None = None) -> dict[str, Any]:
    """Return what a run is and what came of it.

    Accuracies are shares in [0, 1], null where the number is withheld, or where a certificate says
    nothing; each stands beside its trust.  Sections that a run has nothing for are absent.

    Args:
        folder: of the run, if it is to be named.
    """
    settings = run.settings
    threat = settings.stated_threat
    return {
        "id": run.id,
        "kind": run.kind,
        "status": run.status,
        **({"folder": str(folder)} if folder else {}),
        **({"error": run.error} if run.error else {}),
        "created": run.created.isoformat(),
        "subject": run.subject,
        **({"defend": list(settings.defend)} if settings.defend else {}),
        **({"parent": run.parent} if run.parent else {}),
        **({"dataset": data_name(run)} if settings.data.name else {}),
        **({"threat": threat.table} if threat else {}),
        "seed": run.seed,
        **({"n": run.n} if run.n is not None else {}),
        **_accuracies(run),
        **({"epoch": dict(run.history[-1])} if run.history else {}),
        **({"weights": asdict(run.checkpoint)} if run.checkpoint else {}),
        **({"measures": [asdict(each) for each in run.measures]} if run.measures else {}),
        **_audit(run),
        "seconds": run.seconds,
        **({"budget": asdict(run.budget)} if run.budget else {}),
        **_widened(run),
        "findings": [asdict(each) for each in run.findings],
        "notes": list(run.notes),
    }


def _accuracies(run: Run) -> dict[str, Any]:
    """The accuracies of an evaluation: clean, attacks by label, their worst case, certificates."""
    if run.clean_accuracy is None:
        return {}
    sure = certificate_trust(run) or NumberTrust(trust="sound")
    found: dict[str, Any] = {
        "clean": _accuracy(run.clean_accuracy, clean_trust(run)),
        "attacks": {
            label: {
                **_accuracy(each.robust_accuracy, attack_trust(run, label)),
                **({"members": _members(each.budgeted)} if each.budgeted else {}),
                "seconds": each.seconds,
            }
            for label, each in run.attacks.items()
        },
    }
    if run.attacks and run.worst_case_accuracy is not None and not run.settings.swept:
        found["worst"] = _accuracy(run.worst_case_accuracy, worst_trust(run))
    if run.targeted:
        found["targeted"] = {
            label: {
                "success_rate": None if (trust := target_trust(run, label)).withheld else rate,
                "trust": trust.trust,
                "target": each.target,
                "n": each.n,
                "seconds": each.seconds,
            }
            for label, each in run.targeted.items()
            for rate in [each.success_rate]
        }
    if run.certificates:
        found["certificates"] = {
            label: {
                **_accuracy(each.accuracy, sure),
                "certified": [
                    {"norm": ball.norm, "radius": ball.eps, **_accuracy(ball.accuracy, proven)}
                    for ball in each.within
                ],
            }
            for label, each in run.certificates.items()
            for proven in [proven_trust(run, label) or sure]
        }
    return found


def _accuracy(share: float, trust: NumberTrust) -> dict[str, Any]:
    found = {} if trust.found is None else {"found": trust.found}
    return {"accuracy": None if trust.withheld else share, "trust": trust.state, **found}


def _widened(run: Run) -> dict[str, Any]:
    """The looks at ever more images, and the interval of each number that is shown."""
    if (widened := run.widened) is None:
        return {}
    shown = [label for label in run.attacks if not attack_trust(run, label).withheld]
    return {
        "widened": asdict(widened)
        | {
            "clean": None if clean_trust(run).withheld else widened.clean,
            "attacks": {label: widened.attacks[label] for label in shown},
            "worst": None if worst_trust(run).withheld else widened.worst,
            "enough": widened.enough,
        }
    }


def _members(progress: BudgetedOutcome) -> list[dict[str, Any]]:
    return [asdict(each) for each in progress.members]


def _audit(run: Run) -> dict[str, Any]:
    if run.audit is None:
        return {}
    claim = asdict(run.audit.claim) if run.audit.claim else None
    battery = [asdict(each) for each in run.audit.attacks]
    if any(attack_trust(run, label).withheld for label in run.attacks):
        battery = [each | {"left": None} for each in battery]
    return {"claim": claim, "battery": battery}
