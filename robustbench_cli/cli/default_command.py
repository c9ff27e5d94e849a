"""Groups of commands one of which may be left out: ``advbench study FILE``."""

from collections.abc import Sequence
from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """A group whose most usual command may be left out, with its words in place."""

    default: ClassVar[str]
    """The name of that command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, also one that begins with the words of the usual command."""
        return super().parse_args(ctx, self._completed(args, ctx.help_option_names))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant, with its words."""
        return super().resolve_command(ctx, self._completed(args))

    def begins_default(self, word: str) -> bool:
        """Return True if a word that is no command is the first one of the usual command."""
        return True

    def _completed(self, args: list[str], own: Sequence[str] = ()) -> list[str]:
        """Return the words with the command that was left out."""
        named = not args or args[0] in (*self.commands, *own)
        return args if named or not self.begins_default(args[0]) else [self.default, *args]
