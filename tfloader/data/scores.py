"""Precision, recall and F1 of spans: entities, words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tfloader.data.tags import Span
from tfloader.errors import DataError


class Score(NamedTuple):
    """Counts of spans: those found that are right, those found, those that are there."""

    right: int
    found: int
    there: int

    @property
    def precision(self) -> float:
        """Which share of those found is right; 0 if none is found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Which share of those there is found; 0 if none is there."""
        return self.right / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.found + self.there) if self.found + self.there else 0.0


def score_spans(there: Sequence[Collection[Span]], found: Sequence[Collection[Span]]) -> tuple[Score, dict[str, Score]]:
    """Scores the spans found in sentences; one is right if its start, end and label are.

    Returns:
        The score over all spans (micro average), and that of each label in alphabetical order, as conlleval counts.

    Raises:
        DataError: not as many sentences in one as in the other.
    """
    if len(there) != len(found):
        raise DataError(f"found: there are {len(there)} sentences, but spans were found for {len(found)}.")
    counts: dict[str, list[int]] = {}
    for here, got in zip(map(set, there), map(set, found), strict=True):
        for column, spans in enumerate((here & got, got, here)):
            for span in spans:
                counts.setdefault(span.label, [0, 0, 0])[column] += 1
    labels = {label: Score(*counts[label]) for label in sorted(counts)}
    return Score(*map(sum, zip(*labels.values(), strict=True))) if labels else Score(0, 0, 0), labels
