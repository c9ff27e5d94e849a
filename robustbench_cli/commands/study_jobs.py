"""The jobs of a study: which commands it takes, in which order, and what each builds on."""

import shlex
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from robustbench_cli.commands.study_file import Study
from robustbench_cli.core.errors import UserError, hint

_RESULTS = "results"
"""``{results}`` in a study's file stands for the folder that its runs go to."""
_RESUMING = frozenset({"eval", "joint", "audit", "invert"})
"""Commands that go on where they stopped when they are called again."""
_REPEATED = frozenset({"--set", "--attack", "--certify", "--run", "--teacher", "--expose"})
"""Options that may be given several times: one does not replace another."""
_STATE_FOLDER = ".jobs"


@dataclass(frozen=True, kw_only=True)
class JobCommand:
    """One command, which fills one run folder."""

    folder: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    """The command that goes on where it was interrupted; empty: what is there is removed and it
    starts anew."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training and its evaluation, or one other command; jobs may run side by side."""

    id: str
    results: Path
    """The folder with the runs of the study on one data set."""
    commands: tuple[JobCommand, ...]
    after: frozenset[str]
    """The ids of the jobs on the same data that must be done before."""

    @property
    def key(self) -> str:
        """A name that no other job of the study has: ``digits/trades-s0``."""
        return f"{self.results.name}/{self.id}"

    @property
    def needs(self) -> frozenset[str]:
        """The keys of the jobs that must be done before."""
        return frozenset(f"{self.results.name}/{each}" for each in self.after)

    @property
    def lock(self) -> Path:
        """The file that whoever runs this job keeps locked."""
        return self.results / _STATE_FOLDER / f"{self.id}.lock"

    @property
    def state(self) -> Path:
        """The file that tells how far this job is."""
        return self.results / _STATE_FOLDER / f"{self.id}.json"


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """The options that every command of a study gets, if it takes them."""

    common: Mapping[str, str]
    """Values by option; ``--out`` is among them."""
    takes: Callable[[Sequence[str]], Container[str]]
    """Returns the options that a command line's command takes."""

    def complete(self, typed: Sequence[str], **more: str) -> tuple[str, ...]:
        """Return a command line with the options that its command takes and that were not typed.

        Args:
            typed: the words of the command, without ``advbench``.
            more: further options by name, which the command may or may not take.
        """
        options = {**{f"--{name}": value for name, value in more.items()}, **self.common}
        known = self.takes(typed)
        told = [(o, value) for o, value in options.items() if o in known and o not in typed]
        return *typed, *(word for pair in told for word in pair), "--quiet"


def study_jobs(
    study: Study, dataset: str, shared: SharedOptions, only: Sequence[str] = ()
) -> list[Job]:
    """Return all jobs of a study on one data set, each after those that it needs.

    Args:
        dataset: one of the study's.
        only: names of runs and steps; what they need comes with them.

    Raises:
        UserError: an unknown data set, run or step, or runs that need each other.
    """
    if dataset not in study.data:
        raise UserError(f"this study has no data set {dataset!r}{hint(dataset, study.data)}")
    data = study.data[dataset]
    if twice := {**study.runs, **data.runs}.keys() & study.steps.keys():
        raise UserError(f"this study has {min(twice)!r} among its runs and among its steps")
    # Its own come first, as they stand for this data set.
    every = {**data.runs, **study.runs, **study.steps, **data.runs}
    for name in only:
        _known(name, every)
    wanted = _in_order([name for name in every if name in (only or data.only or every)], every)
    return [
        _job(name, every[name], seed, dataset, study, shared)
        for seed in study.seeds
        for name in wanted
    ]


def _job(
    name: str, words: str, seed: int, dataset: str, study: Study, shared: SharedOptions
) -> Job:
    data, mine = study.data[dataset], f"{name}-s{seed}"
    ids = {need: f"{need}-s{seed}" for need in _needs(words)}
    known = {**ids, _RESULTS: shared.common["--out"]}
    typed = [word.format_map(known) for word in option_words(words)]
    about = {"dataset": dataset, "seed": str(seed), "name": mine}
    if name in study.steps:
        step = shared.complete(typed, **about)
        again = step if step[0] in _RESUMING else ()
        if step[0] == "train":
            again = shared.complete(["train", "--resume", mine])
        commands = [JobCommand(folder=mine, words=step, again=again)]
    else:
        usual = _replaced(_replaced(option_words(study.train), option_words(data.train)), typed)
        judged = f"{mine}-eval"
        attacks = _replaced(option_words(study.eval), option_words(data.eval))
        evaluate = shared.complete(["eval", *attacks, "--run", mine, "--name", judged])
        commands = [
            JobCommand(
                folder=mine,
                words=shared.complete(["train", *usual], **about),
                again=shared.complete(["train", "--resume", mine]),
            ),
            JobCommand(folder=judged, words=evaluate, again=evaluate),
        ]
    return Job(
        id=mine,
        results=Path(shared.common["--out"]),
        commands=tuple(commands),
        after=frozenset(ids.values()),
    )


def option_words(text: str) -> list[str]:
    """Return the words of a part of a command line, with options and their values apart.

    ``--eps=8/255`` and ``--eps 8/255`` are the same command.
    """
    return options_apart(shlex.split(text))


def options_apart(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, each ``--option=value`` as two."""
    found: list[str] = []
    for word in words:
        option, sign, value = word.partition("=")
        found += [option, value] if sign and option.startswith("--") else [word]
    return found


def _replaced(words: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Return the words without those options that were typed as well, then what was typed.

    An option that may be repeated stands once with each of its values.
    """
    before, after = _by_option(words), _by_option(typed)
    kept = [group for group in before if group[0] in _REPEATED or group[0] not in typed]
    found: list[list[str]] = []
    for group in [*kept, *after]:
        if group[0] not in _REPEATED or group not in found:
            found.append(group)
    return [word for group in found for word in group]


def _by_option(words: Sequence[str]) -> list[list[str]]:
    """Return the words in groups that each begin with an option; those before it are the first."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _needs(words: str) -> list[str]:
    names = (name for _, name, _, _ in Formatter().parse(words) if name)
    return [name for name in dict.fromkeys(names) if name != _RESULTS]


def _known(name: str, every: Mapping[str, str]) -> None:
    if name not in every:
        raise UserError(f"this study has no run {name!r}{hint(name, every)}")


def _in_order(names: Sequence[str], every: Mapping[str, str]) -> list[str]:
    """Return the names and all they need, each after what it needs itself."""
    found: dict[str, None] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        _known(name, every)
        if name in way:
            raise UserError(f"runs of this study need each other: {', '.join(way)}")
        for need in _needs(every[name]) if name not in found else ():
            visit(need, (*way, name))
        found[name] = None

    for name in names:
        visit(name, ())
    return [*found]
