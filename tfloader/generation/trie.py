"""Phrases of which a constrained generation may write one: a forest of token ids in sorted arrays.

Each group of phrases (one for all prompts, or one a prompt) has a root; roots are the first nodes. Nodes are numbered
level by level, so that the sorted edges lead to the nodes `groups`, `groups + 1`, ... in turn and need no targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from tfloader.border import public
from tfloader.errors import ConfigError

PHRASES = "A Trie needs phrases for each prompt: lists of token ids, none empty and none negative"
SHIFT = 32  # an edge is (node << SHIFT) + token


class Trie:
    """The phrases that an output may be; after a whole phrase comes the stop token.

    Args:
        phrases: lists of token ids, none empty, the same for every prompt.

    Attributes:
        edges: int64, sorted; one for each node that is no root.
        ends: bool [nodes], where a phrase ends.
        groups: number of roots.
        largest: the largest token id.
    """

    @public
    def __init__(self, phrases: Iterable[Sequence[int]]) -> None:
        self._build([phrases], everywhere=False)

    @classmethod
    def per_prompt(cls, groups: Iterable[Iterable[Sequence[int]]]) -> Self:
        """Phrases of their own for each prompt."""
        return cls.__new__(cls)._build(groups, everywhere=False)

    @classmethod
    def spans(cls, sources: Iterable[Sequence[int]], longest: int) -> Self:
        """Any stretch of at most `longest` tokens of each prompt's own source (reading comprehension)."""
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise ConfigError(f"longest is {longest!r}, expected a whole number of at least 1.")
        stretches = ([source[at : at + longest] for at in range(len(source))] for source in map(list, sources))
        return cls.__new__(cls)._build(stretches, everywhere=True)

    def _build(self, groups: Iterable[Iterable[Sequence[int]]], everywhere: bool) -> Self:
        try:
            arrays = [[np.asarray(phrase) for phrase in phrases] for phrases in groups]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{PHRASES}; {error}.") from None
        phrases = [phrase for group in arrays for phrase in group]
        faulty = [x for x in phrases if x.ndim != 1 or not len(x) or x.dtype.kind not in "iu" or x.min() < 0]
        if faulty or not arrays or not all(arrays):
            raise ConfigError(f"{PHRASES}; found {faulty[0].tolist() if faulty else 'none'}.")
        self.groups = len(arrays)
        self.largest = int(max(phrase.max() for phrase in phrases))
        node = np.repeat(np.arange(self.groups), [len(group) for group in arrays])
        lengths = np.array([len(phrase) for phrase in phrases])
        flat, starts = np.concatenate(phrases).astype("int64"), np.cumsum(lengths) - lengths
        levels, ends, count = [], [np.full(self.groups, False)], self.groups
        for depth in range(lengths.max()):
            alive = np.flatnonzero(lengths > depth)
            keys, child = np.unique((node[alive] << SHIFT) + flat[starts[alive] + depth], return_inverse=True)
            here = np.full(len(keys), everywhere)
            here[child[lengths[alive] == depth + 1]] = True
            node[alive] = child + count
            count += len(keys)
            levels.append(keys)
            ends.append(here)
        self.edges, self.ends = np.concatenate(levels), np.concatenate(ends)
        return self
