"""The numbers of a retrieval, as records keep them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from torch import Tensor

from robustbench_cli.metric_learning._recall import COLLAPSED, EmbeddingGallery, Ranked
from robustbench_cli.metric_learning.retrieval import RetrievalAttack
from robustbench_cli.metric_learning.retrieval._score import SCORE_PARTS, robustness_score
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.retrieval_rows import CLEAN_ROW

RECALLS = (1, 2, 4, 8)
"""The k of Recall@k."""
PUBLISHED_DEPTH = 10
"""The R of robrank's mAP@R, which is the same for all queries; Musgrave et al.'s is the number of
images of the query's class."""


class Sums:
    """Sums of numbers over queries, by name."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        """Add the numbers (B) of a batch."""
        self._totals[name] += float(values.double().sum())
        self._counts[name] += len(values)

    def add_ranks(self, ranked: Ranked, right: Tensor) -> None:
        """Add Recall@k and mAP@R of a batch.

        Args:
            right: whether the clean image finds its class first (B): R@1 counts no other query.
        """
        for k in RECALLS:
            found = ranked.recall(k)
            self.add(f"R@{k}", found & right if k == 1 else found)
        self.add("mAP", ranked.whole_average_precision())
        self.add("mAP@R", ranked.average_precision())
        self.add(f"mAP@{PUBLISHED_DEPTH}", ranked.average_precision(PUBLISHED_DEPTH))

    def mean(self, name: str) -> float:
        """Return the mean over the queries so far."""
        return self._totals[name] / max(1, self._counts[name])

    def count(self, name: str) -> int:
        """Return how many queries there were."""
        return self._counts[name]


def collapse_note(gallery: EmbeddingGallery) -> str:
    """Return what is to be said of embeddings that have collapsed; empty where they have not."""
    if gallery.spread >= COLLAPSED:
        return ""
    return (
        f"embeddings have collapsed: two of the gallery are {gallery.spread:.3g} norms apart on "
        f"average (warned below {COLLAPSED}), so that no attack can move them far"
    )


def clean_measures(sums: Sums, gallery: EmbeddingGallery) -> Iterator[Measure]:
    """Yield what clean queries find, and how far apart embeddings are."""
    yield from _recalls(CLEAN_ROW, sums, gallery)
    yield Measure(
        of=CLEAN_ROW,
        name="mean distance",
        value=gallery.spread,
        n=len(gallery.y),
        better="higher",
        note=collapse_note(gallery),
    )


def attack_measures(
    of: str, attack: RetrievalAttack, sums: Sums, gallery: EmbeddingGallery
) -> Iterator[Measure]:
    """Yield what is left under one attack at one radius."""
    if attack.as_query:
        yield from _recalls(of, sums, gallery)
    note = collapse_note(gallery)
    for name, scale in attack.scales.items():
        withheld = bool(note) and scale.lost_by_collapse
        yield Measure(
            of=of,
            name=name,
            value=None if withheld else sums.mean(name),
            n=sums.count(name),
            better=scale.better,
            unit=scale.unit,
            note=note,
        )


def worst_case(of: str, stood: Tensor, gallery: EmbeddingGallery) -> Measure:
    """Return the share of queries that find their class first under every attack.

    Args:
        stood: whether a query does (N, bool).
    """
    return Measure(
        of=of,
        name="R@1",
        value=float(stood.double().mean()),
        n=len(stood),
        better="higher",
        unit="%",
        note=collapse_note(gallery),
    )


def score_measures(
    of: str, found: Mapping[str, float], n: int, gallery: EmbeddingGallery, unit: bool
) -> Iterator[Measure]:
    """Yield the combined score ERS of all attacks at one radius, if all that it needs is there."""
    if not all(name in found for name in SCORE_PARTS):
        return
    note = collapse_note(gallery)
    if not unit:
        note = "ERS is made for embeddings of norm 1: a distance of 2 is the largest that it knows"
    value = None if note else robustness_score(found)
    yield Measure(of=of, name="ERS", value=value, n=n, better="higher", note=note)


def _recalls(of: str, sums: Sums, gallery: EmbeddingGallery) -> Iterator[Measure]:
    note = collapse_note(gallery)
    names = [f"R@{k}" for k in RECALLS] + ["mAP", "mAP@R", f"mAP@{PUBLISHED_DEPTH}"]
    for name in names:
        yield Measure(
            of=of,
            name=name,
            value=sums.mean(name),
            n=sums.count(name),
            better="higher",
            unit="%",
            note=note,
        )
