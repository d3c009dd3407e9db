"""Words that are given one by one, and the pieces that a tokenizer makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tfloader.border import public
from tfloader.errors import DataError
from tfloader.tokenizers import BaseTokenizer
from tfloader.tokenizers.bounds import checked
from tfloader.tokenizers.sequences import cut

Found = tuple[list[int], list[tuple[int, int]]]  # the ids of some words, and where each word's stand


class AlignedWords(NamedTuple):
    """Token ids of a sentence, and for each word where its pieces begin and end in them.

    A word that the tokenizer drops (a control character, a lone accent) has an empty place before the next piece.
    """

    ids: list[int]
    places: list[tuple[int, int]]


@public
def align_words(tokenizer: BaseTokenizer, words: Sequence[str], max_length: int | None = None) -> AlignedWords:
    """Joins words with spaces, encodes them, and finds the pieces of each word.

    Args:
        max_length: the most ids. What is too long loses its end, and `places` has only the words that begin before it.

    Raises:
        DataError: a word is empty.
    """
    if not all(words):
        raise DataError(f"words[{list(map(bool, words)).index(False)}] is empty. Leave it out, with its tag.")
    start, end = tokenizer.tokens_to_ids(tokenizer._start), tokenizer.tokens_to_ids(tokenizer._end)
    inner, places = (_one_by_one if tokenizer._splits_at_spaces else _by_characters)(tokenizer, words, len(start))
    ids = [*start, *inner, *end]
    if max_length is not None and len(ids) > max_length:
        cut(ids, len(ids) - max_length, -len(end) - 1, max_length, (len(start), len(end)))
        stop = len(ids) - len(end)
        places = [(begin, min(after, stop)) for begin, after in places if begin < stop]
    return AlignedWords(ids, places)


def _one_by_one(tokenizer: BaseTokenizer, words: Sequence[str], before: int) -> Found:
    rows = checked(tokenizer._ids, list(words), "words")
    places = itertools.pairwise(itertools.accumulate(map(len, rows), initial=before))
    return [id for row in rows for id in row], list(places)


def _by_characters(tokenizer: BaseTokenizer, words: Sequence[str], before: int) -> Found:
    """What words give that are joined by spaces, by the first character of each piece."""
    text = " ".join(words)
    owners = [number for number, word in enumerate(words) for _ in (" " + word if number else word)]
    tokens, ids, offsets = checked(tokenizer._pieces, text)
    firsts = [next((at for at in range(*span) if tokenizer._keeps(text[at])), None) for span in offsets]
    empty = [token for token, first in zip(tokens, firsts, strict=True) if first is None]
    if tokenizer._has_unreliable_offsets(text) or not all(map(tokenizer.is_special, empty)):
        firsts = [next(iter(found), None) for found in tokenizer.rematch(text, tokens)]
    spans: dict[int, tuple[int, int]] = {}
    for piece, first in enumerate(firsts, before):
        if first is not None:
            owner = owners[first]
            spans[owner] = (spans.get(owner, (piece, piece))[0], piece + 1)
    places, following = [], before + len(tokens)
    for number in reversed(range(len(words))):
        places.append(spans.get(number, (following, following)))
        following = places[-1][0]
    return ids, places[::-1]
