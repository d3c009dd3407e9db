"""Words that are given one by one, and the pieces that a tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfloader.border import public
from tfloader.errors import DataError
from tfloader.tokenizers import BaseTokenizer


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
    text = " ".join(words)
    owners = [number for number, word in enumerate(words) for _ in (" " + word if number else word)]
    pieces, firsts = _first_characters(tokenizer, text)
    tokens = [*tokenizer._start, *pieces, *tokenizer._end]
    ids = tokenizer.encode(tokens, maxlen=max_length)[0]
    found: dict[int, tuple[int, int]] = {}
    for piece, character in enumerate(firsts, len(tokenizer._start)):
        if character is not None:
            owner = owners[character]
            found[owner] = (found.get(owner, (piece, piece))[0], piece + 1)
    places = []
    following = len(tokens) - len(tokenizer._end)
    for number in reversed(range(len(words))):
        start, end = found.get(number, (following, following))
        places.insert(0, (start, end))
        following = start
    if len(ids) < len(tokens):
        stop = len(ids) - len(tokenizer._end)
        places = [(start, min(end, stop)) for start, end in places if start < stop]
    return AlignedWords(ids, places)


def _first_characters(tokenizer: BaseTokenizer, text: str) -> tuple[list[str], list[int | None]]:
    """The tokens of a text, and where the first character of each is, which special tokens have not."""
    tokens, _, offsets = tokenizer._checked(tokenizer._pieces, text)
    kept = [next((at for at in range(*span) if tokenizer._keeps(text[at])), None) for span in offsets]
    empty = [token for token, first in zip(tokens, kept, strict=True) if first is None]
    if tokenizer._has_unreliable_offsets(text) or not all(map(tokenizer.is_special, empty)):
        return tokens, [next(iter(places), None) for places in tokenizer.rematch(text, tokens)]
    return tokens, [None if tokenizer.is_special(token) else first for token, first in zip(tokens, kept, strict=True)]
