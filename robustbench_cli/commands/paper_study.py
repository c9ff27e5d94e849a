"""A paper's table as a study: what is trained and attacked for it, what is left out, and why."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from robustbench_cli.commands.study_file import Study, StudyData, plain_name
from robustbench_cli.papers.howto import Known, Wanted, commands, lacking, training_command
from robustbench_cli.papers.paper import Paper, Published

FOREIGN_IMAGES = "images are crafted on another model: see the commands of report --paper"
OTHER_RUN = "it builds on another run: see the commands of report --paper"
_BUILDS_ON = ("--init", "--teacher", "--labeller", "--extra-data")
"""Options of a training that need what this machine may not have."""


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """A model behind some published numbers, and the commands that make them."""

    name: str
    """Of its folder, without the seed."""
    dataset: str
    train: tuple[str, ...]
    """The words after ``advbench``."""
    measure: tuple[tuple[str, ...], ...]
    """The words of each command that measures it, without ``--run``."""
    cells: tuple[Published, ...]
    """The numbers that were chosen."""
    part: str = ""
    """The tables that these are of, as a name, if the paper has more numbers of this model."""

    @property
    def steps(self) -> dict[str, str]:
        """The commands as the steps of a study, by name."""
        found = {self.name: shlex.join(self.train)}
        for number, words in enumerate(self.measure):
            after = f"{self.name}-measured" + (f"-{self.part}" if self.part else "")
            after += f"-{number + 1}" if number else ""
            found[after] = f"{shlex.join(words)} --run {{{self.name}}}"
        return found


@dataclass(frozen=True, kw_only=True)
class PaperStudy:
    """What can be made of a paper's numbers, and the reasons for the rest."""

    models: tuple[PaperModel, ...]
    left_out: dict[str, list[Published]] = field(default_factory=dict)
    """The numbers that cannot be made, by the reason."""


def paper_study(paper: Paper, cells: Iterable[Published], known: Known) -> PaperStudy:
    """Return the models that the numbers take, each with the commands in the paper's setting.

    A name stands for the same commands whichever of the paper's numbers are chosen: what was made
    for one of its tables is not taken for something else when another one is made.
    """
    chosen = {cell.place for cell in cells}
    wanted: dict[str, list[Wanted]] = {}
    left_out: dict[str, list[Published]] = {}
    for cell in paper.cells:
        meaning = paper.meaning(cell)
        reason = lacking(cell, meaning, known) or (FOREIGN_IMAGES if meaning.source else "")
        made = "" if reason else training_command(cell, meaning, known)
        if set(_BUILDS_ON) & set(shlex.split(made)):
            reason = OTHER_RUN
        if reason and cell.place in chosen:
            left_out.setdefault(reason, []).append(cell)
        elif not reason:
            wanted.setdefault(made, []).append((cell, meaning))
    models, names = list[PaperModel](), list[str]()
    for pairs in wanted.values():
        _, meaning = pairs[0]
        plain = plain_name(meaning.preset or "+".join(spec.label for spec in meaning.method))
        names.append(_free(plain, names))
        mine = [pair for pair in pairs if pair[0].place in chosen]
        if not mine:
            continue
        lines = [tuple(shlex.split(line)[1:]) for line in commands(mine, known)]
        tables = dict.fromkeys(cell.table for cell, _ in mine)
        models.append(
            PaperModel(
                name=names[-1],
                dataset=meaning.dataset.name if meaning.dataset else "",
                train=lines[0],
                measure=tuple(lines[1:]),
                cells=tuple(cell for cell, _ in mine),
                part="" if len(mine) == len(pairs) else plain_name(" ".join(tables)),
            )
        )
    return PaperStudy(models=tuple(models), left_out=left_out)


def _free(name: str, taken: Iterable[str]) -> str:
    """Return the name, with a number where it is taken."""
    known, count, found = {*taken}, 2, name
    while found in known:
        found, count = f"{name}-{count}", count + 1
    return found


def study_of(models: Sequence[PaperModel], seeds: Sequence[int]) -> Study:
    """Return the study that makes these models, which are of one data set, and measures them."""
    steps = {name: words for model in models for name, words in model.steps.items()}
    return Study(seeds=tuple(seeds), data={models[0].dataset: StudyData()}, steps=steps)
