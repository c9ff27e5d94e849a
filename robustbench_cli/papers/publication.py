"""What papers and leaderboards say of themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where numbers were published."""

    name: str
    title: str
    authors: str
    year: int
    venue: str = ""
    arxiv: str = ""
    about: str = ""
    """The source of the numbers, and how far they can be trusted."""

    @property
    def citation(self) -> str:
        """Authors, venue, year and link in one line."""
        link = f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""
        return ", ".join(filter(None, (self.authors, self.venue, str(self.year), link)))
