"""``advbench bench``: many trainings and evaluations from one file, resumable, side by side."""

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter

from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustbench_cli import presets, records
from robustbench_cli.errors import RunError, UserError, hint

KIND = "benches"
"""The folder below the presets."""
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is on one data set: words for every command, and which runs."""

    __pydantic_config__ = STRICT

    train: str = ""
    eval: str = ""
    only: tuple[str, ...] = ()
    """Names of the runs; none: all."""
    runs: dict[str, str] = field(default_factory=dict)
    """Words of single runs on this data set, instead of the usual ones."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a bench file says."""

    __pydantic_config__ = STRICT

    seeds: tuple[int, ...] = (0, 1, 2)
    eval: str
    """What follows ``advbench eval``: the attacks."""
    data: dict[str, Scale]
    runs: dict[str, str]
    """What follows ``advbench train``, by name; ``{name}`` stands for another run's folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training and its evaluation."""

    id: str
    train: tuple[str, ...]
    eval: tuple[str, ...]
    after: frozenset[str]
    """Jobs whose runs it needs."""

    @property
    def commands(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The folder that each command fills, and its words; the training comes first."""
        yield self.id, self.train
        yield f"{self.id}-eval", self.eval


def load(name: str) -> Bench:
    """A bench by name, or by the path of a TOML file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(name) if name.endswith(".toml") else presets.folder() / KIND / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"unknown bench {name!r}{hint(name, presets.names(KIND))}, or a .toml file")
    try:
        return TypeAdapter(Bench).validate_python(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"bench {str(path)!r} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"bench {str(path)!r}, {where}: {first['msg']}") from None


def with_seeds(bench: Bench, typed: Sequence[str]) -> Bench:
    """The bench under other seeds; raise ``UserError`` for what is none."""
    wrong = [text for text in typed if not text.strip().isdecimal()]
    if wrong:
        raise UserError(f"--seeds: {wrong[0]!r} is no seed; give whole numbers, e.g. 0,1,2")
    return replace(bench, seeds=tuple(dict.fromkeys(map(int, typed))))


def jobs(
    bench: Bench, dataset: str, common: Sequence[str] = (), only: Sequence[str] = ()
) -> list[Job]:
    """Everything that a bench trains on one data set, each after what it needs.

    Args:
        common: words for every command, such as where results go.
        only: names of runs; what they need comes with them.

    Raises:
        UserError: an unknown data set or run.
    """
    if dataset not in bench.data:
        raise UserError(f"this bench has no data set {dataset!r}{hint(dataset, bench.data)}")
    scale = bench.data[dataset]
    # Its own come first: others of the same file may build on them.
    runs = {**scale.runs, **bench.runs, **scale.runs}
    for name in only:
        if name not in runs:
            raise UserError(f"this bench has no run {name!r}{hint(name, runs)}")
    wanted = _with_needs(only or scale.only or tuple(runs), runs)
    return [
        _job(name, runs[name], seed, dataset, bench, common)
        for seed in bench.seeds
        for name in runs
        if name in wanted
    ]


def _job(
    name: str, words: str, seed: int, dataset: str, bench: Bench, common: Sequence[str]
) -> Job:
    scale = bench.data[dataset]
    ids = {need: f"{need}-s{seed}" for need in _needs(words)}
    mine = f"{name}-s{seed}"
    typed = [word.format_map(ids) for word in shlex.split(words)]
    data = [] if "--dataset" in shlex.split(scale.train) else ["--dataset", dataset]
    return Job(
        id=mine,
        train=(
            *("train", *typed, *data, *_unless(shlex.split(scale.train), typed)),
            *("--seed", str(seed), "--name", mine, "--quiet", *common),
        ),
        eval=(
            *("eval", *shlex.split(bench.eval), *shlex.split(scale.eval), "--run", mine),
            *("--name", f"{mine}-eval", "--quiet", *common),
        ),
        after=frozenset(ids.values()),
    )


def _unless(words: list[str], typed: Sequence[str]) -> list[str]:
    """``--option value`` pairs but for options that were typed; ``--set`` may be there twice."""
    pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
    return [w for pair in pairs if pair[0] == "--set" or pair[0] not in typed for w in pair]


def _needs(words: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(words) if name}


def _with_needs(names: Sequence[str], runs: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in runs:
            raise UserError(f"this bench has no run {name!r}{hint(name, runs)}")
        if name not in found:
            found.add(name)
            todo += _needs(runs[name])
    return found


def carry_out(
    todo: Sequence[Job], results: Path, workers: int, told: Callable[[str, bool], object]
) -> None:
    """Run what is not finished yet, ``workers`` jobs at a time, each in its own process.

    Args:
        told: the job's id and whether it went well, as each ends.

    Raises:
        RunError: some job failed; the others were carried out.
    """
    waiting, failed = {job.id: job for job in todo}, dict[str, str]()
    running: dict[Future[str], Job] = {}
    running_now: set[subprocess.Popen[str]] = set()
    done: set[str] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting.values() if job.after <= done]
                for job in ready[: workers - len(running)]:
                    running[pool.submit(_both, job, results, running_now)] = waiting.pop(job.id)
                if not running:  # what is left needs something that failed
                    failed |= dict.fromkeys(waiting, "what it builds on failed")
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, wrong = running.pop(future), future.result()
                    done |= set() if wrong else {job.id}
                    failed |= {job.id: wrong} if wrong else {}
                    told(job.id, not wrong)
        except BaseException:
            for process in list(running_now):
                process.terminate()
            raise
    if failed:
        first = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(todo)} failed; {first[0]}: {first[1]}")


def _both(job: Job, results: Path, running: set[subprocess.Popen[str]]) -> str:
    """Train and evaluate; what went wrong in one line, or nothing."""
    for folder, words in job.commands:
        status = _status(results / folder)
        if status == "ok":
            continue
        again = status and words[0] == "train"
        typed = ("train", "--resume", folder, *words[words.index("--quiet") :]) if again else words
        wrong = _call(typed, running)
        if wrong:
            return wrong
    return ""


def _status(folder: Path) -> str:
    return records.read(folder).status if (folder / "run.json").is_file() else ""


def _call(words: Sequence[str], running: set[subprocess.Popen[str]]) -> str:
    """One ``advbench`` command in a process of its own; the last line it said if it failed."""
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
