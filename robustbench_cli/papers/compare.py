"""Measured numbers beside a paper's published ones."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_cli.papers import differences
from robustbench_cli.papers.differences import MeasuredAccuracy, SettingDifference
from robustbench_cli.papers.paper import Meaning, Paper, PaperCell, Published
from robustbench_cli.papers.retrieved import retrieved
from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import CLEAN, columns, key_of
from robustbench_cli.report.number_trust import NumberTrust, attack_trust, joined_trust
from robustbench_cli.report.robustness_table import comparison_key, finished, rows
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.outcomes import Detection
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A published number and the measured one whose setting is closest, if there is any."""

    cell: Published
    meaning: Meaning
    measured: MeasuredAccuracy | None = None
    training: tuple[SettingDifference, ...] = ()
    """Differences in the training of the model."""
    attack: tuple[SettingDifference, ...] = ()
    """Differences in the evaluation."""
    model: Run | None = None
    """The latest finished training run that differs in nothing, measured or not."""

    @property
    def ours(self) -> float | None:
        """The measured number in the paper's unit; None where it means nothing, too."""
        if self.measured is None or isinstance(self.measured.accuracy, WithheldNumber):
            return None
        return self._in_unit(self.measured.accuracy.mean)

    @property
    def trust(self) -> NumberTrust | None:
        """How far the measured number can be trusted; None where there is none."""
        return self.measured.accuracy.trust if self.measured else None

    @property
    def lower(self) -> float | None:
        """What is left of a number that is an upper bound, in the paper's unit; None if nobody
        knows."""
        found = self.trust.found if self.trust else None
        return None if found is None else self._in_unit(found)

    @property
    def _scale(self) -> int:
        """What a recorded number is multiplied by to be in the paper's unit."""
        return 100 if self.meaning.unit == "%" else 1

    def _in_unit(self, number: float) -> float:
        scaled = self._scale * number
        return self._scale - scaled if self.meaning.metric.error else scaled

    @property
    def std(self) -> float | None:
        """Its sample standard deviation over seeds, in the paper's unit."""
        spread = self.measured.accuracy.std if self.measured else None
        return None if spread is None else self._scale * spread

    @property
    def points(self) -> float | None:
        """By how much ours is larger, in the paper's unit."""
        return None if self.ours is None else self.ours - float(self.cell.value)


def beside(paper: Paper, cells: Sequence[Published], runs: Sequence[Run]) -> list[Beside]:
    """Numbers of a paper, in order, each with the closest one that was measured here.

    The closest is not withheld, has the fewest differences, then the fewest in the attack, then the
    most examples, then is the latest.  Within a table a model stands beside the rows whose method
    it is closest to, and beside no others; measured with other parameters of its defense it is
    another model.

    Args:
        cells: the published numbers to compare with.
        runs: every record, training runs included, oldest first.

    Raises:
        DamagedRecord: a record is damaged.
    """
    for run in of_kind(runs, "train"):
        _ = run.settings.model_name
    found = [*measured_accuracies(runs), *detected(runs), *retrieved(runs)]
    meanings = {cell.place: paper.meaning(cell) for cell in cells}
    nearest = _nearest(cells, meanings, found)

    def candidates(cell: Published) -> Iterator[Beside]:
        meaning = meanings[cell.place]
        yield from (
            Beside(
                cell=cell,
                meaning=meaning,
                measured=each,
                training=(*apart, *training),
                attack=tuple(attack),
            )
            for each in found
            if (apart := differences.recipe_differences(meaning, each.trained)) is not None
            and len(apart) == nearest[_row(cell, each)]
            and (
                training := differences.training_differences(cell, meaning, each.trained, each.run)
            )
            is not None
            and (attack := differences.attack_differences(cell, meaning, each)) is not None
        )

    def closest(cell: Published) -> Beside:
        meaning = meanings[cell.place]
        return min(
            candidates(cell),
            key=_distance,
            default=Beside(cell=cell, meaning=meaning, model=_model(cell, meaning, runs)),
        )

    return list(map(closest, cells))


def _model(cell: Published, meaning: Meaning, runs: Sequence[Run]) -> Run | None:
    found = [
        run
        for run in of_kind(runs, "train")
        if run.status == "ok"
        and differences.recipe_differences(meaning, run) == []
        and differences.training_differences(cell, meaning, run) == []
    ]
    return found[-1] if found else None


def _variant(each: MeasuredAccuracy) -> tuple[str, str]:
    """A training run, and its method with the parameters that the evaluation set."""
    return each.trained.id, str(each.trained.settings.defense)


def _row(cell: Published, each: MeasuredAccuracy) -> tuple[str, ...]:
    return cell.table, cell.dataset, *_variant(each)


def _nearest(
    cells: Sequence[Published],
    meanings: Mapping[PaperCell, Meaning],
    found: Sequence[MeasuredAccuracy],
) -> Mapping[tuple[str, ...], int]:
    """For a table, a data set and a model: in how many parameters its method differs at least."""
    nearest: dict[tuple[str, ...], int] = {}
    models = {_variant(each): each for each in found}
    for cell in cells:
        for each in models.values():
            apart = differences.recipe_differences(meanings[cell.place], each.trained)
            if apart is not None:
                key = _row(cell, each)
                nearest[key] = min(nearest.get(key, len(apart)), len(apart))
    return nearest


def _distance(pair: Beside) -> tuple[float, ...]:
    assert pair.measured
    run = pair.measured.run
    total = len(pair.training) + len(pair.attack)
    void = isinstance(pair.measured.accuracy, WithheldNumber)
    return void, total, len(pair.attack), -(run.n or 0), -run.created.timestamp()


def measured_accuracies(runs: Sequence[Run]) -> Iterator[MeasuredAccuracy]:
    """Every accuracy of the report but those of sweeps, of models that were trained here.

    Papers' tables count a rejected image as nothing special: evaluations in which images may be
    rejected are left out, and so are models behind an input defense.
    """
    trained = {run.id: run for run in of_kind(runs, "train")}
    weights = seed_groups.by_weights(trained.values())
    done = {run.id: run for run in finished(runs) if _has_a_counterpart(run)}
    named = columns([*done.values()], trained)
    measurements: list[tuple[str, list[Any]]] = [(CLEAN, [{}, None, None])]
    measurements += [(c.name, json.loads(key)) for key, c in named.items() if not c.reached]
    for row in rows(runs, keep=_has_a_counterpart):
        run = done[row.runs[-1]]
        parent = trained.get(run.parent or "")
        for name, (params, *rest) in measurements if parent else ():
            accuracy, threat = row.cells.get(name), run.settings.threat
            # Of a certificate the ball, of an attack the radius and whose images they are.
            within, eps, made_on = (rest[0], None, None) if len(rest) == 1 else (None, *rest[:2])
            if len(rest) > 2:  # something else than the attack's name stands for: a part of it
                continue
            if parent and isinstance(accuracy, Cell | WithheldNumber):
                yield MeasuredAccuracy(
                    accuracy=accuracy,
                    params=params,
                    norm=threat.norm,
                    eps=threat.eps if eps is None else eps,
                    mask=threat.mask,
                    within=within,
                    source=weights.get(made_on),
                    run=run,
                    trained=seed_groups.as_evaluated(run, parent),
                )


def _has_a_counterpart(run: Run) -> bool:
    settings = run.settings
    return not settings.swept and run.rejection is None and not settings.defend


def detected(runs: Sequence[Run]) -> Iterator[MeasuredAccuracy]:
    """Every AUROC of a detector on models that were trained here, seeds joined.

    Raises:
        DamagedRecord: a record is damaged.
    """
    groups: dict[Hashable, dict[int, tuple[Run, Run, Detection, float]]] = defaultdict(dict)
    for run, parent, trained in seed_groups.done_on_trained(runs, "detect"):
        for each in run.detections:
            attack = comparison_key(run), key_of(run, run.attacks[each.attack])
            alike = seed_groups.group_key(parent), attack, each.detector, each.population
            if each.auroc is not None:  # of a repeated one the latest counts
                groups[alike][parent.seed] = run, trained, each, each.auroc
    for found in groups.values():
        run, trained, each, _ = [*found.values()][-1]
        shares = tuple(share for *_, share in found.values())
        trusts = [attack_trust(one, seen.attack) for one, _, seen, _ in found.values()]
        # What was found lower is an accuracy, and no AUROC.
        trust = replace(joined_trust(trusts, shares), found=None)
        # Of pairs, one wrong and one right: how many there are differs between seeds.
        about: dict[str, Any] = {"name": "AUROC", "seeds": len(shares), "trust": trust}
        outcome, threat = run.attacks[each.attack], run.settings.threat
        yield MeasuredAccuracy(
            accuracy=(
                WithheldNumber(**about) if trust.withheld else Cell(correct=shares, n=1, **about)
            ),
            params=outcome.params,
            norm=threat.norm,
            eps=threat.eps if outcome.eps is None else outcome.eps,
            mask=threat.mask,
            detector=each.detector,
            population=each.population,
            run=run,
            trained=trained,
        )
