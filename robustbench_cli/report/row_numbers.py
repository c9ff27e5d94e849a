"""The numbers of a table's row, by column and seed: of each the evaluation that counts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from robustbench_cli.report.columns import (
    CLEAN,
    LAST,
    WORST,
    TableColumn,
    certified_counts,
    is_last_epoch,
    is_plain,
    key_of,
    target_key,
)
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.number_trust import (
    NumberTrust,
    attack_trust,
    certificate_trust,
    clean_trust,
    joined_trust,
    proven_trust,
    target_trust,
    trust_of_one_model,
    worst_trust,
)
from robustbench_cli.report.origins import (
    CleanOrigin,
    Origin,
    attack_origin,
    certified_origin,
    worst_origin,
)
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class KeptNumber:
    """A number of one seed: right answers, or a distance."""

    number: float
    run: Run
    trust: NumberTrust | None
    """None where nothing is said of it."""
    origin: Origin | None = None
    """The verdicts that it is the mean of; None for a distance, and for a share of targets."""
    of: int = 0
    """Of a share of targets: the number of examples that were attacked."""
    interval: tuple[float, float] | None = None
    """Its interval over all looks, where an evaluation took ever more images."""

    @property
    def order(self) -> tuple[bool, float, bool]:
        """Sorts the lowest first, of equal ones an exact one, and what means nothing last."""
        open_ = bool(self.trust and self.trust.confidence is not None)
        return bool(self.trust and self.trust.withheld), self.number, open_

    @property
    def unfinished(self) -> bool:
        """True if a budget ran out before it was known."""
        return bool(self.trust and self.trust.unfinished)


def row_numbers(
    used: Sequence[Run],
    named: Mapping[str, TableColumn],
    trained: Mapping[str, Run],
    files: ExampleFiles,
) -> Mapping[str, Mapping[int, KeptNumber]]:
    """Return the numbers of a row by column, then by seed; of a repeated one the latest.

    Args:
        used: the evaluations of the row, oldest first; those of one seed are of the same weights.
        named: the columns by the keys of what was measured.
        trained: training runs by id.
        files: the per-example verdicts.
    """
    found: dict[str, dict[int, KeptNumber]] = defaultdict(dict)
    for run in used:
        of = LAST * is_last_epoch(run, trained)
        for column, kept in _numbers(run, named, files):
            earlier = found[column + of].get(run.seed)
            # A clean accuracy that is known does not become unknown by another evaluation.
            if earlier is None or earlier.unfinished or not kept.unfinished:
                found[column + of][run.seed] = kept
        if is_plain(run) and run.attacks and not of:
            # Every one is an upper bound of what all their attacks together leave.
            worst = KeptNumber(
                number=count(run.worst_case_accuracy, run.n or 0),
                run=run,
                trust=worst_trust(run),
                origin=worst_origin(run, files),
                interval=run.widened.worst_of(list(run.attacks)) if run.widened else None,
            )
            other = found[WORST].get(run.seed, worst)
            found[WORST][run.seed] = other if other.order < worst.order else worst
    for of in ("", LAST):
        of_these = [run for run in used if LAST * is_last_epoch(run, trained) == of]
        for seed, clean in found[CLEAN + of].items():
            among = [run for run in of_these if run.seed == seed]
            among = [r for r in among if clean.unfinished or not clean_trust(r).unfinished]
            trust = _trust_in_predictions(found, among)
            found[CLEAN + of][seed] = replace(clean, trust=trust)
    return found


def _numbers(
    run: Run, named: Mapping[str, TableColumn], files: ExampleFiles
) -> Iterator[tuple[str, KeptNumber]]:
    """Yield the numbers of one evaluation, each with the name of its column."""
    clean = count(run.clean_accuracy, run.n or 0)
    origin = CleanOrigin(file=files.of(run), right=clean)
    ends = run.widened.clean if run.widened else None
    trust = clean_trust(run)
    yield CLEAN, KeptNumber(number=clean, run=run, trust=trust, origin=origin, interval=ends)
    for label, outcome in run.attacks.items():
        column, trust = named[key_of(run, outcome)], attack_trust(run, label)
        yield (
            column.name,
            KeptNumber(
                number=right(outcome),
                run=run,
                trust=trust,
                origin=attack_origin(run, label, outcome, files),
                interval=run.widened.attacks.get(label) if run.widened else None,
            ),
        )
        if column.distance and (reach := _reach(run, outcome)) is not None:
            # What was found lower is an accuracy, and no distance.
            bare = replace(trust, found=None)
            yield column.distance, KeptNumber(number=reach, run=run, trust=bare)
    for label, aimed in run.targeted.items():
        if aimed.success_rate is not None:
            share, trust = aimed.success_rate, target_trust(run, label)
            kept = KeptNumber(number=share, run=run, trust=trust, of=aimed.n)
            yield named[target_key(aimed)].name, kept
    for key, sure in certified_counts(run).items():
        yield (
            named[key].name,
            KeptNumber(
                number=sure.correct,
                run=run,
                trust=proven_trust(run, sure.label) if sure.within else certificate_trust(run),
                origin=certified_origin(run, sure, files),
            ),
        )


def _trust_in_predictions(
    found: Mapping[str, Mapping[int, KeptNumber]], among: Sequence[Run]
) -> NumberTrust:
    """Return the trust in the clean accuracy of one seed, by all evaluations that its row is from.

    They are of the same weights, so what one of them found about predictions holds for all.

    Args:
        found: the numbers of the row.
        among: the evaluations of these weights.
    """
    used = {kept.run.id for each in found.values() for kept in each.values()}
    return trust_of_one_model([clean_trust(run) for run in among if run.id in used])


def trust_of_seeds(each: Sequence[KeptNumber], n: int) -> NumberTrust | None:
    """Return the trust in the mean over seeds; None where nothing is said of any.

    Args:
        n: the number of examples.
    """
    stated = [(one.trust, one.number / n) for one in each if one.trust]
    if not stated:
        return None
    return joined_trust([trust for trust, _ in stated], [share for _, share in stated])


def count(share: float | None, n: int) -> float:
    """Return the number of examples that a recorded share stands for; it need not be whole for a
    randomised model."""
    exact = (share or 0.0) * n
    return round(exact) if abs(exact - round(exact)) < 0.01 else exact


def right(outcome: Outcome) -> float:
    """Return the number of right answers under an attack; the average, for a randomised model."""
    random = outcome.majority_accuracy is not None
    return count(outcome.robust_accuracy, outcome.n) if random else outcome.correct


def _reach(run: Run, outcome: Outcome) -> float | None:
    """The median distance of an attack that measures it; infinite if half were not reached."""
    tried = outcome.minimal and run.clean_accuracy
    return inf if outcome.median_norm is None and tried else outcome.median_norm
