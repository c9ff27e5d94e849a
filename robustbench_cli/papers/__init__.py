"""Published tables, as data: NAME.csv holds a paper's numbers, NAME.toml what its words mean here.

Adding a paper is adding these two files.  No torch, and nothing that was measured here.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustbench_cli.core.errors import UserError, hint

FOLDER = Path(__file__).parent
COMMON = "common"
"""The file of words that mean the same in every paper."""


def paper_names(folder: Path = FOLDER) -> list[str]:
    """Every paper there are numbers of."""
    return sorted(path.stem for path in folder.glob("*.csv"))


def titles(folder: Path = FOLDER) -> Mapping[str, tuple[str, str]]:
    """For every name and alias: the paper's name and its title.

    Raises:
        UserError: a damaged file.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in paper_names(folder):
        words = read_toml(folder / f"{name}.toml")
        called = (name, *words.get("aliases", ()))
        found |= {each: (name, str(words.get("title", ""))) for each in called}
    return found


BOARDS = FOLDER / "leaderboards"
"""The folder of leaderboards: files of the same two kinds, with other columns."""


def board_titles(folder: Path = BOARDS) -> dict[str, str]:
    """Return the title of every leaderboard by name; raise ``UserError`` for a damaged file."""
    return {
        name: str(read_toml(folder / f"{name}.toml").get("title", ""))
        for name in paper_names(folder)
    }


def find_paper(text: str, folder: Path = FOLDER) -> str:
    """The paper that ``text`` means; raise ``UserError`` with the nearest name if none."""
    wanted = text.strip().lower()
    if wanted in paper_names(folder):  # no need to read the aliases of all
        return wanted
    known = titles(folder)
    if wanted not in known:
        named = [*known, *paper_names(BOARDS)]
        raise UserError(f"unknown paper {text!r}{hint(wanted, named, 'advbench paper list')}")
    return known[wanted][0]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; raise ``UserError`` that names it if it is absent or damaged."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
