"""The images about which two models, or two recipes over their seeds, differ."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_cli.report.paired_rows import PairedLine, PairedRows
from robustbench_cli.report.statistics import Cell

if TYPE_CHECKING:
    import numpy as np

_APART = 0.5
"""An image differs where the shares of seeds that are right are this far apart."""


@dataclass(frozen=True, kw_only=True)
class SeenPrediction:
    """What one side says of an image."""

    predicted: int
    """The class; of several seeds the most frequent one."""
    right: float
    """How often it counts as right, over seeds and draws."""


@dataclass(frozen=True, kw_only=True)
class DifferingImage:
    """An image about which one side is right and the other wrong."""

    measured: str
    """clean, an attack, or worst."""
    index: int
    """The position in the test split."""
    name: str
    """Of the file that it comes from; empty where it comes from none."""
    label: int
    first: SeenPrediction
    second: SeenPrediction

    @property
    def of_first(self) -> bool:
        """True if the first is right and the second wrong."""
        return self.first.right > self.second.right


def differing_images(pair: PairedRows) -> list[DifferingImage]:
    """Return the images that differ, line by line, those that only the first is right about first.

    Raises:
        MissingVerdicts: verdicts are missing or damaged.
    """
    return [image for line in pair.lines for image in _of_line(line)]


def _of_line(line: PairedLine) -> list[DifferingImage]:
    import numpy as np

    first, second = _predicted(line.first), _predicted(line.second)
    if first is None or second is None:
        return []  # a certificate is not about one image each
    file = line.first.origins[0].file
    index, names, labels = file.array("index"), file.names, line.first.origins[0].labels
    shares = [cell.sample.image_means for cell in (line.first, line.second)]
    apart = np.flatnonzero(np.abs(shares[0] - shares[1]) >= _APART)
    found = [
        DifferingImage(
            measured=line.measured,
            index=int(index[row]),
            name="" if names is None else str(names[row]),
            label=int(labels[row]),
            first=SeenPrediction(predicted=int(first[row]), right=float(shares[0][row])),
            second=SeenPrediction(predicted=int(second[row]), right=float(shares[1][row])),
        )
        for row in apart.tolist()
    ]
    return sorted(found, key=lambda image: (not image.of_first, image.index))


def _predicted(cell: Cell) -> "np.ndarray | None":
    """Return the class that each image is given (N), of several seeds the most frequent one."""
    import numpy as np

    of_seeds = [origin.predictions for origin in cell.origins]
    known = [each for each in of_seeds if each is not None]
    if len(known) < len(of_seeds) or not known:
        return None
    votes = np.stack(known)
    counts = np.stack([(votes == each).sum(0) for each in votes])
    found: np.ndarray = votes[counts.argmax(0), np.arange(votes.shape[1])]
    return found
