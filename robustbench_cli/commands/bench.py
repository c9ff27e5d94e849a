"""``advbench bench``: many trainings and evaluations from one file, resumable, side by side."""

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter

from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustbench_cli.config import presets
from robustbench_cli.core.errors import RunError, UserError, hint
from robustbench_cli.core.registry import Seed
from robustbench_cli.runs import records

KIND = "benches"
"""The folder of bench files, below the presets."""
RESULTS = "results"
"""``{results}`` in a bench file stands for the folder that its runs go to."""
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class BenchScale:
    """The settings of a bench on one data set: options for every command, and the runs to make."""

    __pydantic_config__ = STRICT

    train: str = ""
    eval: str = ""
    only: tuple[str, ...] = ()
    """The names of the runs to make; none: all."""
    runs: dict[str, str] = field(default_factory=dict)
    """Options of single runs on this data set, in place of those in ``Bench.runs``."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The contents of a bench file."""

    __pydantic_config__ = STRICT

    seeds: tuple[Seed, ...] = (0, 1, 2)
    eval: str
    """The options of ``advbench eval``: the attacks."""
    data: dict[str, BenchScale]
    runs: dict[str, str]
    """The options of ``advbench train`` by the name of the run; ``{name}`` stands for the id of
    another run, and ``{results}`` for the folder that holds them all."""
    steps: dict[str, str] = field(default_factory=dict)
    """Other commands by name, without ``advbench``, with the same placeholders as in ``runs``; the
    folder that a step fills has its name."""


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """One command, which fills one run folder."""

    folder: str
    words: tuple[str, ...]
    again: tuple[str, ...]
    """The command that continues it where it was interrupted."""


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """A training and its evaluation, or one other command; jobs may run side by side."""

    id: str
    commands: tuple[BenchCommand, ...]
    after: frozenset[str]
    """The ids of the jobs that must be done before."""


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """The options that every command of a bench gets, if it takes them."""

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


def load_bench(name: str) -> Bench:
    """Return a bench by its name, or by the path of a TOML file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(name) if name.endswith(".toml") else presets.preset_file(name, KIND)
    if not path.is_file():
        raise UserError(f"there is no bench file {name!r}")
    try:
        return TypeAdapter(Bench).validate_python(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"bench {str(path)!r} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"bench {str(path)!r}, {where}: {first['msg']}") from None


def with_seeds(bench: Bench, typed: Sequence[str]) -> Bench:
    """Return the bench with other seeds.

    Raises:
        UserError: a text is not a whole number.
    """
    wrong = [text for text in typed if not text.strip().isdecimal()]
    if wrong:
        raise UserError(f"--seeds: {wrong[0]!r} is no seed; give whole numbers, e.g. 0,1,2")
    return replace(bench, seeds=tuple(dict.fromkeys(map(int, typed))))


def bench_jobs(
    bench: Bench, dataset: str, shared: SharedOptions, only: Sequence[str] = ()
) -> list[BenchJob]:
    """Return all jobs of a bench on one data set, each after those that it needs.

    Args:
        only: names of runs and steps; what they need comes with them.

    Raises:
        UserError: an unknown data set, run or step, or runs that need each other.
    """
    if dataset not in bench.data:
        raise UserError(f"this bench has no data set {dataset!r}{hint(dataset, bench.data)}")
    scale = bench.data[dataset]
    if twice := {**bench.runs, **scale.runs}.keys() & bench.steps.keys():
        raise UserError(f"this bench has {min(twice)!r} among its runs and among its steps")
    # Its own come first, as they stand for this data set.
    every = {**scale.runs, **bench.runs, **bench.steps, **scale.runs}
    for name in only:
        _known(name, every)
    wanted = _in_order([name for name in every if name in (only or scale.only or every)], every)
    return [
        _job(name, every[name], seed, dataset, bench, shared)
        for seed in bench.seeds
        for name in wanted
    ]


def _job(
    name: str, words: str, seed: int, dataset: str, bench: Bench, shared: SharedOptions
) -> BenchJob:
    scale, mine = bench.data[dataset], f"{name}-s{seed}"
    ids = {need: f"{need}-s{seed}" for need in _needs(words)}
    known = {**ids, RESULTS: shared.common["--out"]}
    typed = [word.format_map(known) for word in shlex.split(words)]
    about = {"dataset": dataset, "seed": str(seed), "name": mine}
    if name in bench.steps:
        step = shared.complete(typed, **about)
        commands = [BenchCommand(folder=mine, words=step, again=step)]
    else:
        usual = _unless(shlex.split(scale.train), typed)
        judged = f"{mine}-eval"
        attacks = *shlex.split(bench.eval), *shlex.split(scale.eval)
        evaluate = shared.complete(["eval", *attacks, "--run", mine, "--name", judged])
        commands = [
            BenchCommand(
                folder=mine,
                words=shared.complete(["train", *usual, *typed], **about),
                again=shared.complete(["train", "--resume", mine]),
            ),
            BenchCommand(folder=judged, words=evaluate, again=evaluate),
        ]
    return BenchJob(id=mine, commands=tuple(commands), after=frozenset(ids.values()))


def _unless(words: list[str], typed: Sequence[str]) -> list[str]:
    """Return ``--option value`` pairs without those that were typed; ``--set`` may be repeated."""
    pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
    return [w for pair in pairs if pair[0] == "--set" or pair[0] not in typed for w in pair]


def _needs(words: str) -> list[str]:
    names = (name for _, name, _, _ in Formatter().parse(words) if name)
    return [name for name in dict.fromkeys(names) if name != RESULTS]


def _known(name: str, every: Mapping[str, str]) -> None:
    if name not in every:
        raise UserError(f"this bench has no run {name!r}{hint(name, every)}")


def _in_order(names: Sequence[str], every: Mapping[str, str]) -> list[str]:
    """Return the names and all they need, each after what it needs itself."""
    found: dict[str, None] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        _known(name, every)
        if name in way:
            raise UserError(f"runs of this bench need each other: {', '.join(way)}")
        for need in _needs(every[name]) if name not in found else ():
            visit(need, (*way, name))
        found[name] = None

    for name in names:
        visit(name, ())
    return [*found]


def run_jobs(
    todo: Sequence[BenchJob], results: Path, workers: int, report: Callable[[str, bool], object]
) -> None:
    """Run the jobs that are not finished yet, ``workers`` at a time, each in its own process.

    Args:
        report: called as each job ends, with its id and whether it succeeded.

    Raises:
        RunError: some job failed; the others were carried out.
    """
    waiting, failed = {job.id: job for job in todo}, dict[str, str]()
    running: dict[Future[str], BenchJob] = {}
    running_now: set[subprocess.Popen[str]] = set()
    done: set[str] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting.values() if job.after <= done]
                for job in ready[: workers - len(running)]:
                    running[pool.submit(_run_job, job, results, running_now)] = waiting.pop(job.id)
                if not running:  # what is left needs something that failed
                    failed |= dict.fromkeys(waiting, "what it builds on failed")
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, wrong = running.pop(future), future.result()
                    done |= set() if wrong else {job.id}
                    failed |= {job.id: wrong} if wrong else {}
                    report(job.id, not wrong)
        except BaseException:
            for process in list(running_now):
                process.terminate()
            raise
    if failed:
        first = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(todo)} failed; {first[0]}: {first[1]}")


def _run_job(job: BenchJob, results: Path, running: set[subprocess.Popen[str]]) -> str:
    """Run the commands of a job in order; return what went wrong in one line, or nothing."""
    for command in job.commands:
        status = _status(results / command.folder)
        if status != "ok" and (wrong := _call(command.again if status else command.words, running)):
            return wrong
    return ""


def _status(folder: Path) -> str:
    return records.read(folder).status if (folder / "run.json").is_file() else ""


def _call(words: Sequence[str], running: set[subprocess.Popen[str]]) -> str:
    """Run ``advbench`` in a process of its own; return its last line of output if it failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Threads of processes that share the cores only wait for each other.
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    running.add(process)
    said = process.communicate()[1].strip().splitlines()
    running.discard(process)
    return (said[-1] if said else f"exit code {process.returncode}") if process.returncode else ""
