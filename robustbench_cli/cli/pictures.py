"""Pictures that a command draws into its folder where matplotlib is installed."""

from collections.abc import Callable

from robustbench_cli.core.errors import UserError


def draw_where_possible(draw: Callable[[], object], note: Callable[[str], object]) -> None:
    """Draw a picture; where matplotlib is absent say so instead.

    Args:
        draw: draws and writes it.
        note: called with what is to be said.

    Raises:
        UserError: something else is wrong, such as a damaged file.
    """
    from robustbench_cli.figures import _style

    try:
        _style.needed()
    except UserError as error:
        note(f"no picture: {error}")
        return
    draw()
