"""An n-gram model with interpolated modified Kneser-Ney smoothing (Chen & Goodman, 1999): what to beat.

An n-gram is one whole number, its tokens being the digits, so that counting is sorting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Where the counts are too few for the formula.
FALLBACK = (0.5, 1.0, 1.5)


class KneserNey:
    """Probabilities of tokens given the `order - 1` before them; above the unigrams, every token is equally likely.

    The first token of a sequence is context and nothing else, as it is for a language model without a start token.

    Args:
        sequences: lists of token ids from 0 to vocab_size - 1.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], vocab_size: int, order: int = 3) -> None:
        self.vocab_size, self.order = vocab_size, order
        self.base = vocab_size + 1  # one more for what stands before a sequence
        if self.base**order >= 2**63:
            raise ValueError(f"{order}-grams of {vocab_size} tokens do not fit into 64 bits: choose a lower order.")
        grams, counts = np.unique(np.concatenate([self.grams(item) for item in sequences]), return_counts=True)
        self.levels = [Level(grams, counts, self.base)]
        for size in range(order - 1, 0, -1):
            # A shorter n-gram counts once for every different token that precedes it.
            grams, counts = np.unique(grams % self.base**size, return_counts=True)
            self.levels.insert(0, Level(grams, counts, self.base))

    def grams(self, sequence: Sequence[int]) -> np.ndarray:
        """The n-gram that ends with each token but the first."""
        before = np.full(self.order - 2, self.vocab_size)
        digits = np.concatenate([before, np.asarray(sequence, "int64")])
        windows = np.lib.stride_tricks.sliding_window_view(digits, self.order)
        return windows @ self.base ** np.arange(self.order - 1, -1, -1)

    def probabilities(self, grams: np.ndarray) -> np.ndarray:
        """The probability of the last token of each n-gram, given the others."""
        found = np.full(len(grams), 1 / self.vocab_size)
        for size, level in enumerate(self.levels, 1):
            found = level.interpolated(grams % self.base**size, found)
        return found

    def log_probabilities(self, sequence: Sequence[int]) -> np.ndarray:
        """[length - 1]: of each token but the first."""
        return np.log(self.probabilities(self.grams(sequence)))


class Level:
    """The n-grams of one length, sorted: what is taken off their counts, and what each context gives away."""

    def __init__(self, grams: np.ndarray, counts: np.ndarray, base: int) -> None:
        self.grams, self.base = grams, base
        taken = discounts(counts)[np.minimum(counts, 3)]
        self.contexts, context = np.unique(grams // base, return_inverse=True)
        self.totals = np.bincount(context, counts)
        self.given_away = np.bincount(context, taken)
        self.kept = counts - taken

    def interpolated(self, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Their own share, and the probabilities of the shorter n-grams for what their contexts give away."""
        at, known = places(self.contexts, grams // self.base)
        gram, seen = places(self.grams, grams)
        own = np.where(seen, self.kept[gram], 0.0)
        return np.where(known, (own + self.given_away[at] * shorter) / self.totals[at], shorter)


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken off a count of 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (float(np.sum(counts == number)) for number in (1, 2, 3, 4))
    if not n1 or not n2 or not n3:
        return np.array([0.0, *FALLBACK])
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    possible = all(0 <= value <= number for number, value in enumerate(found, 1))
    return np.array([0.0, *(found if possible else FALLBACK)])


def places(table: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values stand in a sorted table, and whether they do."""
    at = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return at, table[at] == values
