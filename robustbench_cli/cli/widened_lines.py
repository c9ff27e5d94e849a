"""What the summary of an evaluation says of how many images it took."""

from robustbench_cli.runs.records import Run


def widened_lines(run: Run) -> list[str]:
    """Return a line on the looks of an evaluation that took ever more images, if it did."""
    if (widened := run.widened) is None:
        return []
    looks = ", ".join(map(str, widened.sizes[: widened.looks]))
    of = f"{run.n} of {widened.sizes[-1]} images in random order (looks at {looks})"
    reached = f"±{widened.points:.2f} points at most, ±{widened.asked:g} asked for"
    verdict = "enough" if widened.enough else "not enough, and there are no more"
    if widened.goes_on:
        verdict = "not enough yet: the same command goes on"
    sure = f"{1 - widened.alpha:.0%} confidence over all looks"
    return [f"{of}: {reached}, {verdict}; intervals hold with {sure}"]
