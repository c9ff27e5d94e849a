"""Commands that refuse what click would drop in silence: empty values, options given twice."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from robustbench_cli.core.errors import UserError


class StrictCommand(TyperCommand):
    """A command that takes no empty value, which would read like an option that was left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line as click does, then check what was typed.

        Raises:
            UserError: an option has an empty value, or is given more often than it may be.
        """
        words = list(args)
        rest: list[str] = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # a shell completes the line: it is not finished yet
            values, _, parameters = self.make_parser(ctx).parse_args(args=words)
            self.check_typed(values, [each for each in parameters if _long_name(each)[:1] == "-"])
        return rest

    def check_typed(self, values: Any, options: list[Any]) -> None:
        """Refuse empty values.

        Args:
            values: what was typed, by the name of the parameter.
            options: the options that were typed, one as often as it was.
        """
        for option in options:
            value, name = values[option.name], _long_name(option)
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise UserError(f"{name} '': give a value, or leave {name} out")


class MeasuringCommand(StrictCommand):
    """A command that takes several attacks or runs, but no other option twice.

    click keeps the last of several values: ``--sweep eps=0,0.1 --sweep steps=1,5`` would sweep over
    steps alone.  Where ``--attack`` may be repeated, that is no way to change one's mind.
    """

    def check_typed(self, values: Any, options: list[Any]) -> None:
        """Refuse empty values, and an option that holds one value and is given twice."""
        super().check_typed(values, options)
        times = Counter(map(_long_name, options))
        for option in options:
            name = _long_name(option)
            if times[name] > 1 and not option.multiple and not option.is_flag:
                raise UserError(f"{name} is given {times[name]} times; it takes one value")


def _long_name(parameter: Any) -> str:
    """Return how a parameter is typed: ``--eps``, or the name of an argument."""
    return max(parameter.opts, key=len, default="")
