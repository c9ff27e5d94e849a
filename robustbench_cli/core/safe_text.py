"""Text from records and files, made safe to show: nothing in it can command a terminal."""


def printable(text: str) -> str:
    """Return the text with spaces for all that could move a cursor or command a terminal.

    Line breaks stay.  Names in a record come from anywhere.
    """
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """Return a name with unprintable characters and line breaks replaced by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)
