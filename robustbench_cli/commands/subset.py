"""The test images of an evaluation, and the subset of them that it counts."""

import torch
from torch import Tensor

from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.config.schema import EvalConfig, Subset, spec_of
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.distributed.group import Shard


def test_images(request: EvalRequest, shard: Shard) -> Split:
    """Return the images that were given, or else the test split of the configured data set."""
    if request.data is not None:
        return request.data
    dataset = DATASETS.build(spec_of(request.config.dataset))
    with shard.main_process_first():
        return dataset.load("test", request.workspace.data_dir)


def counted_images(test: Split, config: EvalConfig) -> Split:
    """Return the test images that an evaluation takes the first ``config.n`` of.

    Raises:
        UserError: there are fewer, or none of a class that was asked for.
    """
    chosen = chosen_subset(test, config.subset)
    if config.n > len(chosen):
        left = "test split" if len(chosen) == len(test) else "chosen subset"
        raise UserError(f"--n {config.n}: the {left} has {len(chosen)} examples")
    return chosen


def chosen_subset(test: Split, subset: Subset) -> Split:
    """Return the images that are counted, in the order in which ``--n`` counts them.

    An image keeps its position in the test split as its id, so that its random draws, and with
    them its verdict, do not depend on the subset.

    Args:
        test: the whole test split.
        subset: the classes, balance and order that were asked for.

    Raises:
        UserError: an unknown class, or one without an image.
    """
    if subset == Subset():
        return test
    rows, labels = torch.arange(len(test)), test.y.cpu()
    if subset.classes:
        numbers = torch.tensor([_number(text, test.classes) for text in subset.classes])
        rows = rows[torch.isin(labels, numbers)]
        for text, number in zip(subset.classes, numbers.tolist(), strict=True):
            if not bool((labels == number).any()):
                raise UserError(f"--only-classes {text}: there is no test image of it")
    if subset.shuffle is not None:
        order = torch.randperm(len(rows), generator=stream_generator(subset.shuffle, "subset"))
        rows = rows[order]
    if subset.balanced:
        rows = rows[_balanced(labels[rows])]
    return test.only(rows.to(test.y.device))


def _number(text: str, classes: tuple[str, ...]) -> int:
    """Return the number of a class that is given by its name or its number."""
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    raise UserError(f"--only-classes: no class {text!r}{hint(text, classes)}")


def _balanced(labels: Tensor) -> Tensor:
    """Return positions (M) such that classes take turns, until one has no image left.

    Args:
        labels: (N) int64; classes without an image are passed over.
    """
    by_class = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    turn = torch.empty_like(labels)
    turn[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    fair = int(counts[counts > 0].min())
    order = turn.argsort(stable=True)
    return order[turn[order] < fair]
