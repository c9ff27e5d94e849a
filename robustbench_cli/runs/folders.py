"""Folders of runs, one each below ``results``: found by name or made afresh.

No torch in here: reports must start fast.
"""

import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.runs.records import Kind, Run, now, read

Skip = Callable[[UserError], object]
"""Is told of a damaged record, which is then left out."""


def every(results: Path, skip: Skip | None = None) -> list[Run]:
    """All runs below ``results``, oldest first; see ``distinct``."""
    return list(distinct(results, skip).values())


def distinct(results: Path, skip: Skip | None = None) -> dict[Path, Run]:
    """All runs by folder, oldest first, each under an id that no other has.

    Several folders below ``results`` may hold runs of one id (two studies, say): these are called
    by their place, and an evaluation's parent is the run of that id beside it, or else the one
    whose weights it met.

    Args:
        skip: is told of a damaged record, which is then left out; without it that is an error.
    """
    runs = found(results, skip)
    count = Counter(run.id for _, run in runs)
    ids = {folder: str(folder.relative_to(results)) for folder, run in runs if count[run.id] > 1}
    made = {run.checkpoint.sha256: folder for folder, run in runs if run.checkpoint}

    def parent(folder: Path, run: Run) -> str | None:
        if run.parent is None or count[run.parent] < 2:
            return run.parent
        beside = folder.parent / run.parent
        return ids.get(beside) or ids.get(
            made.get(run.weights.partition("+")[0], beside), run.parent
        )

    def renamed(folder: Path, run: Run) -> Run:
        id_, parent_id = ids.get(folder, run.id), parent(folder, run)
        same = (id_, parent_id) == (run.id, run.parent)
        return run if same else replace(run, id=id_, parent=parent_id)

    return {folder: renamed(folder, run) for folder, run in runs}


REFERENCE = "reference"
"""The folder of ``results`` with the records that come with the project."""


def record_files(results: Path) -> list[Path]:
    """Every ``run.json`` below ``results``, sorted by path, except those in its ``reference``.

    The records that come with the project are no runs of the user's, so they are found only where
    their folder is named: ``results`` is then ``results/reference/mnist``, for example.
    """
    files = sorted(results.glob("**/run.json"))
    return [file for file in files if file.relative_to(results).parts[0] != REFERENCE]


def found(results: Path, skip: Skip | None = None) -> list[tuple[Path, Run]]:
    """All runs with the folders they are in, oldest first.

    Args:
        skip: is told of a damaged record, which is then left out; without it that is an error.
    """
    runs = []
    for file in record_files(results):
        try:
            runs.append((file.parent, read(file.parent)))
        except UserError as error:
            if skip is None:
                raise
            skip(error)
    return sorted(runs, key=lambda pair: pair[1].created)


def find_run(name: str | None, results: Path, kind: Kind) -> Path:
    """The folder of the run that ``name`` (an id, an unambiguous part of one, or a path) means.

    A whole id means its run, in whatever folder below ``results`` it is, even where it is a part of
    another's.

    Args:
        name: None: the latest finished run of this kind.

    Raises:
        UserError: no run is meant, or several are, or the record of one that may be is damaged.
    """
    given = Path(name) if name is not None else None
    if given and _is_file(given / "run.json"):
        return given
    if given and _is_file(given):  # the path of a run.json itself
        return given.parent
    if name is not None and _is_file(results / name / "run.json"):
        return results / name
    if name is None:
        runs = found(results)
        done = [folder for folder, run in runs if run.kind == kind and run.status == "ok"]
        if not done:
            raise UserError(
                f"no finished {kind} run in {str(results)!r}; train one first, "
                "e.g. advbench train trades, or name one with --run"
            )
        return done[-1]
    # Only records that may be meant are read: a damaged one of another run is no reason to fail.
    known = [file.parent for file in record_files(results)]
    whole = [folder for folder in known if folder.name == name]
    parts = [folder for folder in known if name in folder.name]
    for candidates in (whole, parts):
        if matches := [folder for folder in candidates if read(folder).kind == kind]:
            break
    if len(matches) == 1:
        return matches[0]
    if matches:
        choice = ", ".join(str(folder.relative_to(results)) for folder in matches[:4])
        raise UserError(f"run {name!r} is ambiguous in {str(results)!r}: {choice}")
    names = [folder.name for folder, run in found(results, lambda _: None) if run.kind == kind]
    near = hint(name, names, "advbench list runs")
    raise UserError(f"no {kind} run {name!r} in {str(results)!r}{near}")


def _is_file(path: Path) -> bool:
    """Return True if a file is there; False for a path that the system cannot even look up."""
    try:
        return path.is_file()
    except OSError:
        return False


LONGEST_NAME = 200
"""Bytes of a folder's name; file systems take 255."""


def new(results: Path, run_id: str) -> Path:
    """Make a fresh folder for a run.

    Raises:
        UserError: the name cannot be a folder's, is taken, or the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", run_id):
        raise UserError(f"--name {run_id!r}: use letters, digits and . _ + - only")
    if (size := len(run_id.encode())) > LONGEST_NAME:
        raise UserError(
            f"--name {run_id[:20]}...: {size} characters are too many for a folder; use at most "
            f"{LONGEST_NAME}"
        )
    folder = results / run_id
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(results, error) from None
    try:
        folder.mkdir()
    except FileExistsError:
        # Killed between making the folder and writing its record: nothing is in it.
        # A link is never taken: what it points to may lie outside the results.
        plain = folder.is_dir() and not folder.is_symlink()
        if plain and all(path.name.startswith(".") for path in folder.iterdir()):
            return folder
        raise UserError(
            f"{str(folder)!r} exists: choose another --name (an interrupted training run goes on "
            f"with: advbench train --resume {run_id}; eval and joint with the same command)"
        ) from None
    except OSError as error:
        raise _not_writable(results, error) from None
    return folder


def _not_writable(results: Path, error: OSError) -> UserError:
    return UserError(
        f"results folder {str(results)!r} is not writable ({error.strerror}); choose another with "
        "--out"
    )


def new_id(subject: str, data: str, seed: int) -> str:
    """``trades-digits-s0-20261120-1832-4f1a``: what it is first, then when, then a random tail."""
    names = re.sub(r":[^+]*", "", subject)  # parameters are in the record
    text = f"{names}-{data}-s{seed}"
    plain = "".join(c if c.isalnum() or c in "+-." else "-" for c in text)
    return f"{plain[: LONGEST_NAME - 40]}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
