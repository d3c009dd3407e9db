"""Google's WordPiece rules as TensorFlow operations, so that a SavedModel takes strings with TensorFlow alone.

The rules themselves are not written again. What they do to a single character is asked of the tokenizer for every
character that there is and laid down in tables; here is only what joins characters: final sigmas, words, pieces.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.tokenizers.vocabulary import CJK_RANGES
from tfloader.tokenizers.wordpiece import BETWEEN, CASED, PUNCTUATION, SPACE, Tokenizer

SIGMA, FINAL_SIGMA = 0x03A3, 0x03C2
WORD, BLANK, SINGLE = 0, 1, 2
OTHER, CASED_LETTER, IGNORABLE = 0, 1, 2
NONE, UNKNOWN = -1, -2
HIGHEST_MARK = "\u0345"  # alone in the highest combining class: Unicode's normal form puts all other marks before it


def reasons_against(tokenizer: Any) -> list[str]:
    """Why a tokenizer cannot be laid down exactly in a graph; empty if it can."""
    if type(tokenizer) is not Tokenizer:
        return [f"only WordPiece (tfloader.Tokenizer) can; this is a {type(tokenizer).__name__}"]
    whole = whole_tokens(tokenizer)
    reasons = {
        "pre_tokenize is a Python function": tokenizer._pre_tokenize,
        "token_translate is not part of WordPiece": tokenizer._translate,
        "added tokens have options (lstrip, rstrip, single_word, normalized)": any(
            token.lstrip or token.rstrip or token.single_word or token.normalized for token in whole
        ),
        "added tokens may overlap in a text": may_overlap([token.content for token in whole]),
        "there are too many added tokens": len(whole) > len(STAND_INS),
        "the vocabulary has private characters": max("".join(tokenizer._vocab)) >= chr(STAND_INS[0]),
        "padding_side='left'": tokenizer.padding_side == "left",
        "it has no padding token": tokenizer.pad_token_id is None,
    }
    return [reason for reason, found in reasons.items() if found]


def whole_tokens(tokenizer: Tokenizer) -> list[Any]:
    """The tokens that are kept whole in a text, the longest first."""
    tokens = tokenizer._rust.get_added_tokens_decoder()
    return sorted((tokens[id] for id in tokenizer._whole), key=lambda token: -len(token.content))


def may_overlap(tokens: Sequence[str]) -> bool:
    """Whether an end of one of them is the beginning of another, so that a text may hold both in part."""
    begins: dict[str, set[str]] = {}
    for token in tokens:
        for size in range(1, len(token)):
            begins.setdefault(token[:size], set()).add(token)
    return any(begins.get(token[-size:], {token}) != {token} for token in tokens for size in range(1, len(token)))


class WordPieceInGraph(tf.Module):
    """A `tfloader.Tokenizer` as a function of strings.

    Args:
        tokenizer: one for which `reasons_against` finds none.
        limit: most tokens of a row, or None.
        truncate: cut longer rows as the tokenizer does; if False they are an error.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int | None = None, truncate: bool = False) -> None:
        super().__init__()
        self.tokenizer, self.limit, self.truncate = tokenizer, limit, truncate
        self.normal = Replacements(each_character(tokenizer._rust.normalizer.normalize_str))
        # Each token that is kept whole is one character while a text is split; such that a text has become another.
        whole = dict(zip(map(chr, STAND_INS), (token.content for token in whole_tokens(tokenizer)), strict=False))
        self.stand_ins = [(f"[{chr(STAND_INS[0])}-{chr(STAND_INS[-1])}]", chr(NOBODY))] if whole else []
        self.stand_ins += [(re.escape(token), character) for character, token in whole.items()]
        self.kinds = Ranges(kinds(tokenizer.tokenize_chinese_chars, len(whole)))
        self.cases = Ranges(cases()) if tokenizer.do_lower_case else None
        strips = tokenizer.do_lower_case if tokenizer.strip_accents is None else tokenizer.strip_accents
        self.marks = Ranges(mark_ranks()) if strips else None
        ids = {character: tokenizer.token_to_id(token) for character, token in whole.items()}
        pieces = [*tokenizer._vocab.items(), *ids.items()]
        self.longest = min(max(len(piece) for piece, _ in pieces), tokenizer.word_maxlen)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant([piece for piece, _ in pieces]), tf.constant([id for _, id in pieces], tf.int32)
            ),
            default_value=-1,
        )

    def __call__(self, texts: Any) -> tuple[Any, Any]:
        """Strings [batch], UTF-8 -> (ids, mask), int32 [batch, length], as calling the tokenizer gives them."""
        for pattern, stand_in in self.stand_ins:
            texts = tf.strings.regex_replace(texts, pattern, stand_in)
        start, end = (
            tf.tile(tf.constant([self.tokenizer.tokens_to_ids(tokens)], tf.int32), [tf.size(texts), 1])
            for tokens in (self.tokenizer._start, self.tokenizer._end)
        )
        inner = self.fitted(self.pieces(*self.words(texts)), start.shape[1] + end.shape[1])
        ids = tf.concat([start, inner, end], axis=1)
        return ids.to_tensor(self.tokenizer.pad_token_id), tf.sequence_mask(ids.row_lengths(), dtype=tf.int32)

    def fitted(self, ids: Any, extra: int) -> Any:
        """Rows with room for `extra` more within the limit."""
        if self.limit is None:
            return ids
        room = self.limit - extra
        if not self.truncate:
            message = f"A text has more than {self.limit} tokens. Shorten it, or export with max_length."
            tf.debugging.assert_less_equal(ids.row_lengths(), tf.constant(room, tf.int64), message)
            return ids
        if self.tokenizer.truncation_side == "right":
            return ids[:, :room]
        kept = tf.minimum(ids.row_lengths(), room)
        places = tf.ragged.range(ids.row_lengths() - kept, ids.row_lengths())
        return tf.gather(ids, places, batch_dims=1)

    def words(self, texts: Any) -> tuple[Any, Any, Any]:
        """(all words in turn, the row of each, number of rows)"""
        characters = tf.strings.unicode_decode(texts, "UTF-8", errors="strict")
        points, rows = self.normal(self.with_final_sigmas(characters))
        self.check_marks(points, rows)
        kind = self.kinds(points)
        same_row = tf.equal(rows[1:], rows[:-1])
        goes_on = same_row & tf.equal(kind[1:], WORD) & tf.equal(kind[:-1], WORD)
        begins = tf.concat([tf.ones_like(kind[:1], tf.bool), ~goes_on], axis=0)
        solid = tf.not_equal(kind, BLANK)
        word = tf.cumsum(tf.cast(tf.boolean_mask(begins, solid), tf.int64)) - 1
        spelled = tf.RaggedTensor.from_value_rowids(tf.boolean_mask(points, solid), word)
        return (
            tf.strings.unicode_encode(spelled, "UTF-8", errors="strict"),
            tf.boolean_mask(rows, begins & solid),
            characters.nrows(),
        )

    def with_final_sigmas(self, characters: Any) -> Any:
        """A capital sigma at a word's end has a small form of its own, which it shows only there."""
        if self.cases is None:
            return characters
        # The case of a neighbour counts, ignorable characters (and those that are dropped) apart.
        points, rows = characters.flat_values, characters.value_rowids()
        case = tf.where(self.normal.drops(points), IGNORABLE, self.cases(points))
        telling = tf.where(tf.not_equal(case, IGNORABLE))[:, 0]
        count = tf.cumsum(tf.cast(tf.not_equal(case, IGNORABLE), tf.int32))

        def is_cased(index: Any) -> Any:
            there = (index >= 0) & (index < tf.size(telling))
            place = tf.gather(tf.concat([telling, [0]], axis=0), tf.where(there, index, 0))
            return there & tf.equal(tf.gather(rows, place), rows) & tf.equal(tf.gather(case, place), CASED_LETTER)

        sigma = tf.equal(points, SIGMA)
        final = sigma & is_cased(count - 2) & ~is_cased(count)
        return characters.with_flat_values(tf.where(final, FINAL_SIGMA, points))

    def check_marks(self, points: Any, rows: Any) -> None:
        """Unicode's normal form sorts certain marks where several follow each other; here it is not done."""
        if self.marks is None:
            return
        rank = self.marks(points)
        swapped = tf.equal(rows[1:], rows[:-1]) & (rank[1:] > 0) & (rank[:-1] > rank[1:])
        message = "A text has musical or tone marks in an order that this function does not sort."
        tf.debugging.assert_equal(tf.reduce_any(swapped), False, message)

    def pieces(self, words: Any, rows: Any, count: Any) -> Any:
        """The ids of each row: of every word the longest known pieces from the left."""
        words, place = tf.unique(words)
        lengths = tf.strings.length(words, unit="UTF8_CHAR")
        usable = lengths <= self.tokenizer.word_maxlen
        sizes = tf.range(1, self.longest + 1)[None]

        def longest_piece(start: Any, found: Any, step: Any) -> tuple[Any, Any, Any]:
            left = lengths - start
            at = tf.where(left > 0, start, 0)[:, None] + tf.zeros_like(sizes)
            texts = tf.strings.substr(words[:, None], at, sizes + tf.zeros_like(at), unit="UTF8_CHAR")
            ids = self.table.lookup(tf.where(at > 0, tf.strings.join(["##", texts]), texts))
            size = tf.reduce_max(tf.where((ids >= 0) & (sizes <= left[:, None]), sizes, 0), axis=1)
            best = tf.gather(ids, tf.maximum(size - 1, 0), batch_dims=1)
            unknown = (left > 0) & (size == 0)
            best = tf.where(unknown, UNKNOWN, tf.where(left > 0, best, NONE))
            return tf.where(unknown, lengths, start + size), found.write(step, best), step + 1

        start = tf.where(usable, 0, lengths)
        found = tf.TensorArray(tf.int32, size=0, dynamic_size=True, element_shape=[None])
        first = tf.where(usable, NONE, UNKNOWN)
        _, found, _ = tf.while_loop(
            lambda start, found, step: tf.reduce_any(start < lengths),
            longest_piece,
            (start, found.write(0, first), tf.constant(1)),
        )
        ids = tf.transpose(found.stack())
        is_unknown = tf.reduce_any(tf.equal(ids, UNKNOWN), axis=1)
        whole = tf.one_hot(tf.zeros_like(lengths), tf.shape(ids)[1], self.tokenizer.unk_token_id, NONE, dtype=tf.int32)
        ids = tf.where(is_unknown[:, None], whole, ids)
        of_words = tf.gather(tf.ragged.boolean_mask(ids, tf.not_equal(ids, NONE)), place)
        return tf.RaggedTensor.from_value_rowids(
            of_words.flat_values, tf.repeat(rows, of_words.row_lengths()), nrows=count
        )


# ---- what the tokenizer says of characters


class Ranges:
    """A number for each character, as a function of code points; most neighbours have the same."""

    def __init__(self, values: np.ndarray) -> None:
        changes = np.flatnonzero(np.diff(values)) + 1
        self.starts = np.concatenate([[0], changes]).astype("int32")
        self.values = values[self.starts].astype("int32")

    def __call__(self, points: Any) -> Any:
        return tf.gather(tf.constant(self.values), tf.searchsorted(self.starts, points, side="right") - 1)


class Replacements:
    """What stands for each character: itself, others, or nothing.

    Args:
        texts: of `each_character`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        changed = [(point, text) for point, text in zip(POINTS, texts, strict=True) if text != chr(point)]
        rows = np.zeros(CHARACTERS, "int64")
        rows[[point for point, _ in changed]] = np.arange(1, len(changed) + 1)
        self.rows = Ranges(rows)
        self.lengths = np.array([1, *(len(text) for _, text in changed)], "int32")
        self.points = np.array([0, *(ord(character) for _, text in changed for character in text)], "int32")

    def drops(self, points: Any) -> Any:
        return tf.equal(tf.gather(tf.constant(self.lengths), self.rows(points)), 0)

    def __call__(self, characters: Any) -> tuple[Any, Any]:
        """Ragged code points -> (new ones, the row of each)"""
        row = self.rows(characters.flat_values)
        ragged = tf.RaggedTensor.from_row_lengths(tf.constant(self.points), tf.constant(self.lengths))
        new = tf.gather(ragged, row)
        itself = tf.equal(tf.repeat(row, new.row_lengths()), 0)
        points = tf.where(itself, tf.repeat(characters.flat_values, new.row_lengths()), new.flat_values)
        return points, tf.repeat(characters.value_rowids(), new.row_lengths())


CHARACTERS = 0x110000
# Where Unicode has characters; all others are unassigned or private, and no rule has anything to say of them.
INHABITED = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
POINTS = [point for region in INHABITED for point in region]
STAND_INS, NOBODY = range(0x10F000, 0x10FF00), 0x10FFFD  # private characters, of which no vocabulary has any
SEPARATOR = "0"  # which no rule changes or drops
CHUNK = 4096


def each_character(rule: Callable[[str], str]) -> list[str]:
    """What a rule makes of each character of POINTS."""
    texts = list(map(chr, POINTS))
    texts[ord(SEPARATOR)] = ""
    answers = []
    for begin in range(0, len(texts), CHUNK):
        answers += rule(SEPARATOR.join(texts[begin : begin + CHUNK])).split(SEPARATOR)
    answers[ord(SEPARATOR)] = SEPARATOR
    return answers


def matching(pattern: str) -> np.ndarray:
    """[characters] booleans: those that a regular expression of the Rust library matches."""
    from tokenizers import Regex, normalizers

    rule = normalizers.Replace(Regex(pattern), "")
    found = np.zeros(CHARACTERS, bool)
    found[POINTS] = [not text for text in each_character(rule.normalize_str)]
    return found


@functools.cache
def kinds(chinese_apart: bool, stand_ins: int = 0) -> np.ndarray:
    """Whether a character is a part of a word, blank, or a word of its own."""
    single = matching(f"[{CJK_RANGES}]|{PUNCTUATION}" if chinese_apart else PUNCTUATION)
    single[STAND_INS.start : STAND_INS.start + stand_ins] = True
    return np.where(matching(SPACE), BLANK, np.where(single, SINGLE, WORD))


@functools.cache
def cases() -> np.ndarray:
    """Whether a character is a letter with case, or is looked through."""
    ignorable = matching(BETWEEN.removesuffix("*"))
    return np.where(matching(CASED), CASED_LETTER, np.where(ignorable, IGNORABLE, OTHER))


@functools.cache
def mark_ranks() -> np.ndarray:
    """The order of the combining marks that are not stripped, from 1 on; 0 for all other characters."""
    from tokenizers import normalizers

    nfd = normalizers.NFD().normalize_str
    behind = each_character(lambda text: nfd(HIGHEST_MARK + text.replace(SEPARATOR, SEPARATOR + HIGHEST_MARK)))
    stripped = matching(r"\p{Mn}")
    pairs = ((chr(point), text) for point, text in zip(POINTS, behind, strict=True) if not stripped[point])
    marks = [mark for mark, text in pairs if text == mark + HIGHEST_MARK]
    ranks = np.zeros(CHARACTERS, "int32")
    for mark in marks:
        ranks[ord(mark)] = 1 + sum(nfd(mark + other) == other + mark for other in marks)
    return ranks
