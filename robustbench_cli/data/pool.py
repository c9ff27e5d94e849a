"""A second set of training images beside the labelled one: unlabelled or generated images.

Generated images can replace the data set altogether (Sehwag et al., 2022),
https://arxiv.org/abs/2104.09425.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import UNLABELLED, Split

_WITHOUT = (
    "label the images with --labeller RUN, or train without labels: --set train.extra_labels=none"
)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Extra examples, drawn for each batch uniformly and with replacement.

    As in Carmon et al. (2019), https://arxiv.org/abs/1905.13736, they fill a fixed share of every
    batch: a pool ten times as large as the labelled set has no greater weight.
    """

    data: Split
    share: float
    """Share of each batch that comes from the pool, in (0, 1]; 1: all of it."""
    first: int
    """Id of the pool's first example for random numbers: one above the last labelled id."""

    @property
    def replaces_data(self) -> bool:
        """True if the pool replaces the labelled set, whose images are then not used."""
        return self.share == 1

    def labelled_per_batch(self, batch_size: int) -> int:
        """Return the number of labelled examples in a batch.

        Raises:
            UserError: the share rounds to all or none of the batch without being 1 or 0.
        """
        if self.replaces_data:
            return 0
        extra = round(self.share * batch_size)
        if not 0 < extra < batch_size:
            raise UserError(
                f"train.extra_share={self.share:g} comes to {extra} extra and {batch_size - extra} "
                f"labelled examples in a batch of {batch_size}; at least one of each is needed "
                "(extra_share=0 leaves the extra ones out, extra_share=1 the labelled ones)"
            )
        return batch_size - extra

    def draw(self, count: int, *purpose: object) -> Tensor:
        """Return ``count`` random indices (count) int64 into the pool, for one batch.

        Args:
            purpose: keys of the random stream.
        """
        return torch.randint(len(self.data), (count,), generator=stream_generator(*purpose, "pool"))


def renumbered(extra: Split, classes: tuple[str, ...]) -> Split:
    """Return extra images with their labels mapped to the class numbers of a data set.

    Classes are matched by name; names that are numbers (of an .npz, or of folders) are class
    numbers.

    Args:
        classes: class names of the data set.

    Raises:
        UserError: an image has no label, or a class is not in the data set.
    """
    missing = int((extra.y == UNLABELLED).sum())
    if missing:
        raise UserError(
            f"--extra-data: {missing} of its {len(extra)} images have no label ({_WITHOUT})"
        )
    labels = {name: label for label, name in enumerate(classes)}
    if not {*extra.classes} <= {*classes}:
        labels = {str(label): label for label in range(len(classes))}
    odd = [name for name in extra.classes if name not in labels]
    if odd:
        raise UserError(
            f"--extra-data has a class {odd[0]!r}, which the data set has not: it has "
            f"{len(classes)}, from {classes[0]!r} to {classes[-1]!r} ({_WITHOUT})"
        )
    theirs = torch.tensor([labels[name] for name in extra.classes])
    return replace(extra, y=theirs[extra.y], classes=classes)
