"""A second set of training images beside the labelled one: unlabelled, or generated.

Generated ones stand for the data set (Sehwag et al., 2022), https://arxiv.org/abs/2104.09425.
"""

from dataclasses import dataclass

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
    """Extra examples, drawn anew for each batch, uniformly and with replacement.

    Carmon et al. (2019), https://arxiv.org/abs/1905.13736, fill each batch up with them: a pool
    ten times as large as the labelled set weighs no more than its share of the batch.
    """

    data: Split
    share: float
    """How much of each batch comes from the pool; all of it if this is 1."""
    first: int
    """The id of its first example, for noise: ids go on where the labelled ones end."""

    @property
    def alone(self) -> bool:
        """Whether the pool stands in for the labelled set, of which no image is looked at."""
        return self.share == 1

    def room(self, batch_size: int) -> int:
        """How many labelled examples a batch takes.

        Raises:
            UserError: a share that comes to all or none without being 1 or 0.
        """
        if self.alone:
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
        """Which examples (int64) fill up one batch."""
        return torch.randint(len(self.data), (count,), generator=stream_generator(*purpose, "pool"))


def renumbered(extra: Split, classes: tuple[str, ...]) -> Split:
    """Extra images with the labels that a data set with these ``classes`` gives.

    Classes are found by their names; names that are numbers (of an .npz, or of folders) are labels.

    Raises:
        UserError: an image without a label, or a class that the data set has not.
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
    return Split(extra.x, theirs[extra.y], classes)
