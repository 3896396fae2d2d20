"""Panoptic quality (PQ, arXiv 1801.00868) from the counts of matched segments."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

OFFSET = 256**3
"""Greater than any segment number."""
VOID = 0
"""Segment number of pixels that belong to no segment."""


@dataclass
class PQStatCat:
    """Counts of one category.

    Attributes:
        iou: Sum of the intersections over unions of the matched segments.
        tp: Number of matched segments.
        fp: Number of predicted segments without a match.
        fn: Number of true segments without a match.
    """

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: 'PQStatCat') -> 'PQStatCat':
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self

    def quality(self) -> dict[str, float]:
        """Return panoptic (``pq``), segmentation (``sq``), recognition quality (``rq``), 0 to 1."""
        segments = self.tp + 0.5 * self.fp + 0.5 * self.fn
        if not segments:
            return {'pq': 0.0, 'sq': 0.0, 'rq': 0.0}
        sq = self.iou / self.tp if self.tp else 0.0
        return {'pq': self.iou / segments, 'sq': sq, 'rq': self.tp / segments}


class PQStat:
    """Counts of all categories, by category id in the annotation file."""

    def __init__(self) -> None:
        self.pq_per_cat = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iter__(self) -> Iterator[tuple[int, PQStatCat]]:
        return iter(self.pq_per_cat.items())

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for category, counts in other:
            own = self[category]
            own += counts
        return self

    def pq_average(
        self, categories: dict[int, dict], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Average the qualities over categories.

        Args:
            categories: The annotation file's categories by id, each with ``isthing``.
            isthing: True for things only, False for stuff only, None for all.

        Returns:
            ``pq``, ``sq`` and ``rq``, averaged over the ``n`` requested categories that have a
            segment, true or predicted (0 if there are none), and the three of each requested
            category.
        """
        asked = [
            number
            for number, category in categories.items()
            if isthing is None or bool(category['isthing']) == isthing
        ]
        per_category = {number: self[number].quality() for number in asked}
        present = [
            per_category[number]
            for number in asked
            if self[number].tp or self[number].fp or self[number].fn
        ]
        total = {name: sum(quality[name] for quality in present) for name in ('pq', 'sq', 'rq')}
        average = {name: value / max(len(present), 1) for name, value in total.items()}
        return {**average, 'n': len(present)}, per_category
