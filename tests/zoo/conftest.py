"""The table of the zoo and its truth are scripts, which import each other by name."""

import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ZOO = Path(__file__).parent
sys.path.insert(0, str(ZOO))


@pytest.fixture(autouse=True, scope="session")
def nets_run_once() -> Iterator[None]:
    """The file of networks, which keeps nothing, is not run again for every copy of a member.

    The members' own files are: a copy must not find what another one left in their globals.
    """
    run = runpy.run_path
    once = cache(run)

    def run_path(path, *args, **rest):
        return {**once(path)} if path == str(ZOO / "nets.py") else run(path, *args, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runpy, "run_path", run_path)
        yield
