"""What a run tells whoever watches it.  The default says nothing."""

from robustbench_cli.training.trainer import HistoryRow, Watch


class Display:
    """Override what you show; a run calls these as it goes."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def training(self, epochs: int, done: int) -> None:
        """Training starts, ``done`` epochs having been finished by an earlier process."""

    def batch(self, watch: Watch) -> None:
        """A training batch is done."""

    def epoch(self, row: HistoryRow) -> None:
        """An epoch is done."""

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        """An attack (or ``clean``, or a certificate) starts on ``n`` examples.

        Args:
            what: which accuracy ``judged`` will tell.
        """

    def judged(self, done: int, accuracy: float) -> None:
        """``done`` examples have their verdict, with this accuracy so far."""
