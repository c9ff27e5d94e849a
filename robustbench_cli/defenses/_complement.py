"""What a loss on the entropy over the wrong classes asks of the data."""

from robustbench_cli.core.errors import UserError


def check_wrong_classes(name: str, classes: int) -> None:
    """Check that there are at least two wrong classes.

    Raises:
        UserError: with fewer than 3 classes the entropy over the wrong ones is always zero.
    """
    if classes < 3:
        raise UserError(f"{name} spreads the wrong classes' shares: it needs two, thus 3 classes")
