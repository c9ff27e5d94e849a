"""The folders that a command reads and writes, and the device that it runs on."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folders that a command reads and writes, and the device that it runs on."""

    out: Path = Path("results")
    """The folder that holds one folder per run, where runs are made and found."""
    data_dir: Path = Path("data")
    """The folder that data sets are read from and downloaded to."""
    device: str = "auto"
    """As ``--device`` takes it: cpu, cuda, cuda:1, or auto."""
