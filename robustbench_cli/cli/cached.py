"""``advbench cache``: what was decoded and kept, and its deletion."""

from typing import Annotated

import typer

from robustbench_cli.cli import options


def cache_command(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete it; whatever is needed is made again.")
    ] = False,
    debug: options.DebugOption = False,
) -> None:
    """Show what is kept so that no command decodes again what another one has decoded.

    It lies in $ADVBENCH_CACHE, else in advbench under $XDG_CACHE_HOME or ~/.cache.

    \b
    advbench cache
    advbench cache --clear
    """
    from robustbench_cli.core.cache_folder import ROOMS, cache_files, cache_folder, clear_cache

    if clear:
        typer.echo(f"freed {_size(clear_cache())} in {cache_folder()}")
        return
    files = cache_files()
    typer.echo(f"{_size(sum(each.size for each in files))} in {cache_folder()}")
    for name, content in ROOMS.items():
        sizes = [each.size for each in files if each.room == name]
        if sizes:
            count = f"{len(sizes)} file{'s' * (len(sizes) > 1)}"
            typer.echo(f"{name:<8}  {_size(sum(sizes)):>9}  {count:<10}  {content}")
    if files:
        typer.echo("advbench cache --clear deletes it")


def _size(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units:
        if size < 1000 or unit == units[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
