"""Versions of the software and the commit that a run was made with.  No torch in here."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robustbench_cli import __version__


def describe(**more: Any) -> dict[str, Any]:
    """Versions, platform and commit, with whatever the caller knows of the device."""
    found: dict[str, Any] = {
        "advbench": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    found |= _versions()
    sources = commit()
    return found | ({"commit": sources} if sources else {}) | more


@cache
def _versions() -> dict[str, str]:
    """The versions of the packages that numbers depend on; metadata is looked up once."""
    found = {}
    for package in ("torch", "torchvision", "pyautoattack", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """The commit of this package's own checkout, with ``-dirty`` where the package differs.

    Git is asked once in a process: what has been imported stays as it was then.
    """
    here = Path(__file__).parents[1]

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *args], cwd=here, capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside somebody else's repository must not record their commit.
    if git("ls-files", "--error-unmatch", __file__) is None:
        return None
    # Untracked files count: a new method's file is found, imported and trained with.
    changed = git("status", "--porcelain", "--", ".")
    return f"{git('rev-parse', 'HEAD')}{'-dirty' if changed else ''}"
