"""Commands that refuse what click would drop in silence: an option given twice, an empty value."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from robustbench_cli.core.errors import UserError


class StrictCommand(TyperCommand):
    """A command that takes no option twice, unless it collects values, and no empty value.

    click keeps the last of several values (``--sweep eps=0.1 --sweep steps=5`` would sweep over
    steps alone), and an empty value reads like an option that was left out.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line as click does, then check what was typed.

        Raises:
            UserError: an option has an empty value, or is given twice and holds one value only.
        """
        words = list(args)
        rest: list[str] = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # a shell completes the line: it is not finished yet
            values, _, parameters = self.make_parser(ctx).parse_args(args=words)
            _check_options(values, Counter(map(_long_name, parameters)), parameters)
        return rest


def _check_options(values: Any, times: Counter[str], parameters: list[Any]) -> None:
    for parameter in parameters:
        name, value = _long_name(parameter), values.get(parameter.name)
        if not name.startswith("-"):
            continue
        if value == "" or (isinstance(value, list | tuple) and "" in value):
            raise UserError(f"{name} '': give a value, or leave {name} out")
        if times[name] > 1 and not parameter.multiple and not parameter.is_flag:
            raise UserError(f"{name} is given {times[name]} times; it takes one value")


def _long_name(parameter: Any) -> str:
    """Return how a parameter is typed: ``--eps``, or the name of an argument."""
    return max(parameter.opts, key=len, default="")
