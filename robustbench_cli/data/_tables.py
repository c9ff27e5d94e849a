"""Tables of a Hugging Face data set on disk: parquet files, or what ``save_to_disk`` writes.

Apache Arrow (Apache Software Foundation, 2016), https://arrow.apache.org/docs/python.
"""

import hashlib
import importlib
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustbench_cli.core.cache_folder import file_stamp
from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.data._columns import Part, Tables


def local_tables(name: str, place: Path, test: str) -> Tables:
    """Return the tables of both splits of a folder.

    Parquet files are ``train-*.parquet`` or ``train/*.parquet`` at any depth; a folder that
    ``save_to_disk`` wrote has ``dataset_dict.json``, or ``state.json`` for one split.

    Raises:
        UserError: there are none, one is damaged, or they belong to several data sets.
    """
    parquet = optional_package(name, "pyarrow.parquet")
    if not place.exists():
        raise UserError(f"{name}: no such file or folder")
    if place.is_file() and place.suffix != ".parquet":
        raise UserError(f"{name}: expected a .parquet file or a folder of them")
    top = place if place.is_dir() else place.parent
    if (top / "dataset_dict.json").is_file() or (top / "state.json").is_file():
        return _saved(name, top, test)
    files = [
        file
        for file in sorted(top.rglob("*.parquet"))
        if not any(part.startswith(".") for part in file.relative_to(top).parts)
    ]
    if not files:
        raise UserError(f"{name}: no .parquet files in it")

    def part(file: Path) -> Part:
        def read(column: str) -> Any:
            with parquet.ParquetFile(file) as opened:
                return opened.read([column]).column(0)

        def batches(column: str) -> Any:
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(64, columns=[column]):
                    yield batch.column(0)

        try:
            with parquet.ParquetFile(file) as opened:
                schema, rows = opened.schema_arrow, opened.metadata.num_rows
        except Exception as error:  # Arrow raises errors of many types for damaged files
            raise UserError(f"{file}: not a readable parquet file") from error
        return Part(str(file), file.parent, top, schema, rows, read, batches, state_of(file))

    def of(split: str) -> list[Part]:
        start = re.compile(rf"{re.escape(split)}[-.]")
        found = [file for file in files if start.match(file.name) or file.parent.name == split]
        folders = sorted({str(file.parent) for file in found})
        if len(folders) > 1:
            raise UserError(f"{name} holds several data sets; name one: {', '.join(folders)}")
        return [part(file) for file in found]

    return both_splits(name, of, test, [str(file.relative_to(top)) for file in files])


def _saved(name: str, top: Path, test: str) -> Tables:
    """Return the tables of a folder that ``save_to_disk`` wrote."""
    ipc = optional_package(name, "pyarrow.ipc")

    def part(file: Path, parent: Path) -> Part:
        def opened() -> Any:
            try:
                return ipc.open_stream(optional_package(name, "pyarrow").memory_map(str(file)))
            except Exception as error:  # Arrow raises errors of many types for damaged files
                raise UserError(f"{file}: not a readable arrow file") from error

        def read(column: str) -> Any:
            return opened().read_all().column(column)

        def batches(column: str) -> Any:
            for batch in opened():
                yield batch.column(column)

        rows = sum(batch.num_rows for batch in opened())
        state = state_of(file)
        return Part(str(file), parent, top, opened().schema, rows, read, batches, state)

    def of(split: str) -> list[Part]:
        folder = top if one else top / split
        try:
            state = json.loads((folder / "state.json").read_text())
            names = [str(each["filename"]) for each in state["_data_files"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{folder / 'state.json'} is damaged") from error
        files = [(folder / each).resolve() for each in names]
        if odd := [file for file in files if not file.is_relative_to(top.resolve())]:
            raise UserError(f"{folder / 'state.json'}: {odd[0]} lies outside {str(top)!r}")
        return [part(file, folder) for file in files]

    one = not (top / "dataset_dict.json").is_file()
    if one:
        parts = of("")
        return Tables({"train": parts, "test": parts}, None, alone=True)
    try:
        known = list(map(str, json.loads((top / "dataset_dict.json").read_text())["splits"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{top / 'dataset_dict.json'} is damaged") from error
    return both_splits(name, lambda split: of(split) if split in known else [], test, known)


def both_splits(
    name: str, of: Callable[[str], list[Part]], test: str, present: Sequence[str]
) -> Tables:
    """Return the tables of the training split and of the test split or its substitute.

    A set with a test split only can be evaluated.

    Raises:
        UserError: there is neither.
    """

    def lacks(split: str) -> str:
        known = textwrap.shorten(", ".join(present), 200)
        return f"no split {split!r}; it has {known} (test=NAME names the test split)"

    train, tests = of("train"), of(test)
    taken = test
    for stand_in in ("validation", "val", "valid") if test == "test" else ():
        if not tests:
            taken, tests = stand_in, of(stand_in)
    if not (train or tests):
        raise UserError(f"{name}: {lacks('train')}")
    note = f"the test images are those of split {taken!r}" if tests and taken != test else None
    missing = {"train": None if train else lacks("train"), "test": None if tests else lacks(test)}
    return Tables({"train": train, "test": tests}, missing["test"], missing["train"], note)


def optional_package(name: str, module: str) -> Any:
    """Import an optional package; raise ``UserError`` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{name} needs the extra: {install_command('hf')}") from error


def state_of(file: Path) -> str:
    """Return a hash of a file's path and stamp."""
    return hashlib.sha256(f"{file.absolute()}\0{file_stamp(file)}".encode()).hexdigest()
