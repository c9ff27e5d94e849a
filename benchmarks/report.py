"""What ``advbench report`` costs on many records: CPU seconds of a process of its own.

    python benchmarks/report.py --records 3000

The records are copies of the shipped ones, in a temporary folder.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "results" / "reference"
"""Where the records are that come with the project."""


def copy_records(results: Path, wanted: int, shipped: Path = SHIPPED) -> int:
    """Copy whole studies into ``results`` until it holds at least ``wanted`` records.

    Returns:
        How many it holds.
    """
    held = 0
    for copy in count():
        for file in sorted(shipped.glob("**/run.json")):
            folder = results / f"copy-{copy}" / file.parent.relative_to(shipped)
            folder.mkdir(parents=True)
            shutil.copy(file, folder)
            held += 1
        if held >= wanted or not held:
            return held
    return held


def cpu_seconds(results: Path, *options: str) -> float:
    """CPU seconds, user and system, of ``advbench report`` on a folder, from start to end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "robustbench_cli", "report", "--results", str(results)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one line: the number of records and the least CPU time of some tries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=3000, help="at least so many")
    parser.add_argument("--tries", type=int, default=3, help="the least of so many counts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held = copy_records(Path(folder), asked.records)
        spent = min(cpu_seconds(Path(folder)) for _ in range(asked.tries))
    print(f"{held} records: {spent:.2f} s of CPU")


if __name__ == "__main__":
    main()
