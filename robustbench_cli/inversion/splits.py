"""Whose images are whose in a privacy audit: by index, no image in two parts."""

from dataclasses import dataclass

import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import Split

_FEWEST = 32
"""The smallest number of images that an attacker is trained on, or that are rebuilt."""
_VALIDATED = 5
"""One of so many of the attacker's images decides when training stops."""


@dataclass(frozen=True, kw_only=True)
class AuditSplits:
    """The attacker's images and those that are rebuilt; none of them is among the victim's."""

    train: Split
    validation: Split
    evaluation: Split
    where: dict[str, str]
    """The place of each part, and of the victim's images, in words."""
    notes: tuple[str, ...]

    def overlaps(self) -> bool:
        """Return True if two parts share an image of one split, which must never be."""
        names = [
            self.where[key].partition(" ")[0] for key in ("attacker", "attacker", "evaluation")
        ]
        parts = zip(names, (self.train, self.validation, self.evaluation), strict=True)
        ids = [(name, row) for name, part in parts for row in part.ids.tolist()]
        return len(ids) != len(set(ids))


def audit_splits(
    train: Split, test: Split, used: int | None, attacker: int | None, n: int | None
) -> AuditSplits:
    """Return the parts of a privacy audit.

    Where the victim's own images are known to be the first ``used`` of the training split, the
    attacker has those behind them and the test images are rebuilt.  Where that leaves too few, or
    it is not known what the victim was trained on, the attacker has the first half of the test
    split, and the second half is rebuilt.

    Args:
        used: how many of the first training images the victim may have seen; None: not known.
        attacker: the number of the attacker's images; None: all there are.
        n: the number of images that are rebuilt; None: all there are.

    Raises:
        UserError: there are too few images for both.
    """
    left = 0 if used is None else len(train) - used
    notes = []
    if used is not None and left >= (attacker or _FEWEST):
        own, first, name = train, used, "train"
        rest, begin = test, 0
    else:
        half = len(test) // 2
        own, first, name = test.only(slice(half)), 0, "test"
        rest, begin = test, half
        if used is None:
            notes.append(
                "what the victim was trained on is not known here: attacker and rebuilt images are "
                "halves of the test split"
            )
        else:
            notes.append(
                f"the victim was trained on {used} of {len(train)} training images: attacker and "
                "rebuilt images are halves of the test split (train.limit leaves some to an "
                "attacker)"
            )
    many = min(attacker or len(own) - first, len(own) - first)
    if attacker is not None and many < attacker:
        raise UserError(f"--attacker {attacker}: only {many} images are left to an attacker")
    few = len(rest) - begin
    if n is not None and n > few:
        raise UserError(f"--n {n}: only {few} images are left to rebuild")
    last = begin + (n or few)
    if many < _FEWEST or last - begin < _FEWEST // 4:
        raise UserError(
            f"an attacker with {many} images and {last - begin} images to rebuild: at least "
            f"{_FEWEST} and {_FEWEST // 4} are needed"
        )
    # The same images under every seed, so that seeds differ in the attack only.
    order = torch.randperm(many, generator=stream_generator("inversion validation")) + first
    held = max(1, many // _VALIDATED)
    victim = "not known" if used is None else f"train 0-{used - 1}"
    return AuditSplits(
        train=own.only(order[held:]),
        validation=own.only(order[:held]),
        evaluation=rest.only(slice(begin, last)),
        where={
            "victim": victim,
            "attacker": f"{name} {first}-{first + many - 1}",
            "evaluation": f"test {begin}-{last - 1}",
        },
        notes=tuple(notes),
    )
