"""What every tokenizer offers, built on two methods that a subclass supplies.

`_ids` turns texts into ids in one native call; `_pieces` turns one text into tokens, ids and character offsets. All
else is written once, here: special tokens around a text, pairs, truncation, padding, and the way back from tokens to
characters (`rematch`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfloader.errors import TokenizerError
from tfloader.files import TOKENIZER_FILES, json_bytes, write_files
from tfloader.tokenizers.added import added_token
from tfloader.tokenizers.batches import TokenBatch, fitted, padded_length, stack
from tfloader.tokenizers.bounds import checked
from tfloader.tokenizers.sequences import as_ids, cut, find_sublist, foreign, share

Offsets = list[tuple[int, int]]
PATTERNS = ("S*E*E", "S*E*SE")


def _role(role: str) -> property:
    def get(self: BaseTokenizer) -> int | None:
        token = self.special_tokens.get(role)
        return None if token is None else self.token_to_id(token)

    return property(get, doc=f"Id of the {role} token, or None where there is none.")


class BaseTokenizer:
    """The interface of all tokenizers.

    Attributes:
        vocab_size: number of ids, which is the highest id plus one.
        special_tokens: the token of each role ("pad", "unk", "bos", "eos", "cls", "sep", "mask") that exists.
        added_tokens: tokens that are kept whole, content -> tokenizers.AddedToken; special ones only if
            `keeps_special_tokens`.
        keeps_special_tokens: whether special tokens that stand in a text are kept whole.
        padding_side, truncation_side: "right" or "left"; what calling the tokenizer pads and cuts.
    """

    pad_token_id = _token_pad_id = _role("pad")
    unk_token_id = _token_unk_id = _role("unk")
    mask_token_id = _token_mask_id = _role("mask")
    bos_token_id = _role("bos")
    eos_token_id = _role("eos")
    cls_token_id = _role("cls")
    sep_token_id = _role("sep")

    @property
    def filler_id(self) -> int:
        """The id that rows are filled up with: that of padding, or else of the end of texts, or else 0."""
        return next((id for id in (self.pad_token_id, self.eos_token_id) if id is not None), 0)

    vocab_size: int
    added_tokens: Mapping[str, Any] = {}
    keeps_special_tokens = False
    padding_side = "right"
    truncation_side = "right"
    _splits_at_spaces = False  # whether words give the same tokens alone as with spaces between them

    _pre_tokenize: Callable[[str], Iterable[str]] | None = None
    _translate: Mapping[str, str] = {}  # tokens to be replaced by others after splitting
    _beyond: Mapping[str, int] = {}  # added tokens that the vocabulary itself lacks

    def __init__(
        self, special_tokens: Mapping[str, str], token_start: str | None = None, token_end: str | None = None
    ) -> None:
        self.special_tokens = dict(special_tokens)
        self._start, self._end = ([] if token is None else [token] for token in (token_start, token_end))
        self._between = self._end  # what stands between the two texts of a pair
        self._second_segment = 1

    def _adopt(self, added_tokens: Iterable[Any]) -> None:
        roles = self.special_tokens.values()
        states = (token.__getstate__() for token in map(added_token, added_tokens))
        made = (added_token({**each, "special": each["special"] or each["content"] in roles}) for each in states)
        self.added_tokens = {token.content: token for token in made}
        missing = (content for content in self.added_tokens if self._find(content) is None)
        more = {content: id for id, content in enumerate(missing, self.vocab_size)}
        self._beyond = {**self._beyond, **more}
        self.vocab_size += len(more)

    # What a subclass supplies

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without the special tokens around it, from one native batch call."""
        raise NotImplementedError

    def _pieces(self, text: str) -> tuple[list[str], list[int], Offsets]:
        """Tokens, ids and (start, end) character offsets of a text, without the special tokens around it."""
        raise NotImplementedError

    def _find(self, token: str) -> int | None:
        raise NotImplementedError

    def _name(self, index: int) -> str | None:
        raise NotImplementedError

    def decode(self, ids: Iterable[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids (or of `tokens`, when given)."""
        raise NotImplementedError

    def settled(self, ids: Sequence[int]) -> str:
        """Returns the beginning of the text of ids that stays as it is whatever ids come after them."""
        return self.decode(ids).rstrip("\ufffd")  # of a character whose bytes are not complete

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the tokenizer's files, as a Hugging Face folder has them, in the place of those of an earlier one.

        They appear all at once, and other files in the folder stay.

        Raises:
            TokenizerError: no file can hold it, or the folder cannot be written; nothing there has changed then.
        """
        raise NotImplementedError

    def _common_settings(self) -> dict[str, Any]:
        """What tokenizer_config.json says of every tokenizer but that of a tokenizer.json, which says it itself."""
        added = {str(self._find(content)): token.__getstate__() for content, token in self.added_tokens.items()}
        ends = {"token_start": next(iter(self._start), None), "token_end": next(iter(self._end), None)}
        return {**ends, **({"added_tokens_decoder": added} if added else {})}

    def _write(self, folder: str | os.PathLike[str], files: Mapping[str, bytes], config: Mapping[str, Any]) -> None:
        if self._pre_tokenize or self._translate:
            raise TokenizerError(
                "pre_tokenize and token_translate are Python objects that no tokenizer file can hold. Save a "
                f"{type(self).__name__} made without them, and give them again when you load it."
            )
        config = {**config, "padding_side": self.padding_side, "truncation_side": self.truncation_side}
        files = {**files, "tokenizer_config.json": json_bytes(config)}
        write_files(folder, files, TokenizerError, TOKENIZER_FILES.intersection)

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        around = " ".join([*self._start, "...", *self._end])
        return f"<{type(self).__name__}: {self.vocab_size} tokens, {around}, {self.special_tokens}>"

    # Tokens and ids

    _token_start_id = property(lambda self: self.token_to_id(self._start[0]) if self._start else None)
    _token_end_id = property(lambda self: self.token_to_id(self._end[-1]) if self._end else None)

    def token_to_id(self, token: str) -> int:
        """Returns the id of a token; the unknown token's id for a token outside the vocabulary."""
        if not isinstance(token, str):
            raise TokenizerError(f"token: expected a string, found {type(token).__name__} {token!r:.80}.")
        index = self._find(token)
        if index is None:
            unknown = self.special_tokens.get("unk")
            index = None if unknown is None else self._find(unknown)
        if index is None:
            raise TokenizerError(
                f"The token {token!r} is not in the vocabulary of {self.vocab_size} tokens, and there is no "
                "unknown token to stand for it. Check that tokenizer and tokens belong together."
            )
        return index

    def id_to_token(self, id: int) -> str:
        """Returns the token of an id."""
        if (token := self._name(*as_ids([id]))) is None:
            raise TokenizerError(
                f"The id {id} is not in the vocabulary, whose ids go from 0 to {self.vocab_size - 1}. "
                "Check that tokenizer and model belong together."
            )
        return token

    def tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """Returns the id of each token."""
        return [self.token_to_id(token) for token in tokens]

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the token of each id."""
        return [self.id_to_token(id) for id in as_ids(ids)]

    # One text

    def tokenize(self, text: str, maxlen: int | None = None) -> list[str]:
        """Splits a text into tokens, with the start and end token of the model around them.

        Over `maxlen` the tokens before the end token go.
        """
        tokens = [*self._start, *checked(self._pieces, text)[0], *self._end]
        if maxlen is not None:
            cut(tokens, len(tokens) - maxlen, -len(self._end) - 1, maxlen, (len(self._start), len(self._end)))
        return tokens

    def encode(
        self,
        first: str | Sequence[str],
        second: str | Sequence[str] | None = None,
        maxlen: int | None = None,
        pattern: str = "S*E*E",
        truncate_from: str | int = "right",
    ) -> tuple[list[int], list[int]]:
        """Returns the ids and segment ids of a text or a pair, as bert4keras does.

        A list in place of a text is taken as its tokens, complete with start and end. The pattern says whether the
        second text has a start token of its own ("S*E*SE") or not ("S*E*E"). Over `maxlen`, tokens go from the longer
        of the two (from the first where they are equal): before the end token ("right"), after the start token
        ("left"), or at an index of your choice.
        """
        if pattern not in PATTERNS:
            raise TokenizerError(f"pattern: expected one of {', '.join(PATTERNS)}; found {pattern!r}.")
        ends = {"right": -len(self._end) - 1, "left": len(self._start)}
        index = ends.get(truncate_from, truncate_from) if isinstance(truncate_from, str) else truncate_from
        if not isinstance(index, int) or isinstance(index, bool):
            raise TokenizerError(f"truncate_from: expected 'right', 'left' or an index; found {truncate_from!r}.")
        start, end = self.tokens_to_ids(self._start), self.tokens_to_ids(self._end)
        kept = (len(start), len(end)) if isinstance(truncate_from, str) else (0, 0)

        def side(given: str | Sequence[str], end: list[int]) -> list[int]:
            if isinstance(given, str):
                return start + checked(self._ids, [given])[0] + end
            if not isinstance(given, (list, tuple)):
                raise TokenizerError(f"expected a text, or a list of its tokens; found {type(given).__name__}.")
            return self.tokens_to_ids(given)

        one = side(first, end if second is None else self.tokens_to_ids(self._between))
        two = [] if second is None else side(second, end)
        dropped = len(start) if two and pattern == "S*E*E" else 0
        if maxlen is not None:
            keep_one, keep_two = share(len(one), len(two), maxlen + dropped)
            cut(one, len(one) - keep_one, index, maxlen, kept)
            cut(two, len(two) - keep_two, index, maxlen, kept)
        two = two[dropped:]
        return one + two, [0] * len(one) + [self._second_segment] * len(two)

    def offsets(self, text: str) -> Offsets:
        """Returns where each token of `tokenize(text)` stands: (start, end) in characters of the text.

        Start and end tokens stand nowhere: (0, 0). Unlike `rematch`, these include dropped characters that lie between
        kept ones.
        """
        inner = checked(self._pieces, text)[2]
        return [(0, 0)] * len(self._start) + inner + [(0, 0)] * len(self._end)

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        """Returns, for each token of this text, the indices of its characters in the text.

        Special tokens have none, also where they took the place of another ("[MASK]"). Characters that the tokenizer
        drops (control characters; accents, where it strips them) belong to no token. Truncated tokens are found as
        well: at the beginning if they agree with it, else at the end, else wherever they fit.
        """
        own, _, offsets = checked(self._pieces, text)
        inner, before = self._without_ends(list(tokens))
        begin = find_sublist(own, inner, self.is_special)
        places: list[list[int]] = [[] for _ in tokens]
        certain = begin is not None and not self._has_unreliable_offsets(text)
        for i, token in enumerate(inner if certain else ()):
            if not self.is_special(token):
                span = range(*offsets[(begin or 0) + i])
                places[before + i] = [place for place in span if self._keeps(text[place])]
                certain = certain and (not span or bool(places[before + i]))
        if certain:
            return places
        ordinary = [token for token in tokens if not self.is_special(token)]
        found = iter(self._search(text, ordinary, own, offsets))
        return [[] if self.is_special(token) else next(found) for token in tokens]

    def _has_unreliable_offsets(self, text: str) -> bool:
        """Whether the native offsets of this text may be wrong."""
        return False

    def _without_ends(self, tokens: list[str]) -> tuple[list[str], int]:
        """The tokens between the start and end tokens and padding, and how many stood before them."""
        size = len(tokens)
        while size and tokens[size - 1] == self.special_tokens.get("pad"):
            size -= 1
        if self._end and tokens[max(size - len(self._end), 0) : size] == self._end:
            size -= len(self._end)
        before = len(self._start) if tokens[: len(self._start)] == self._start else 0
        return tokens[before:size], before

    def is_special(self, token: str) -> bool:
        """Whether a token stands for no text of its own."""
        if token in self._start or token in self._end or token in self.special_tokens.values():
            return True
        return token in self.added_tokens and self.added_tokens[token].special

    def _keeps(self, character: str) -> bool:
        return True

    def _search(self, text: str, tokens: list[str], own: list[str], offsets: Offsets) -> list[list[int]]:
        found, place = [], 0
        for token in tokens:
            while place < len(own) and own[place] != token:
                place += 1
            if place == len(own):
                raise foreign(token, text)
            found.append(list(range(*offsets[place])))
            place += 1
        return found

    # Many texts

    def __call__(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None = None,
        max_length: int | None = None,
        padding: str | bool = "longest",
        truncation: bool = True,
        add_special_tokens: bool = True,
        pad_to_multiple_of: int = 1,
    ) -> TokenBatch:
        """Encodes a batch of texts, or of pairs, into padded arrays.

        Args:
            texts: the texts; a single string is a batch of one.
            pairs: as many second texts.
            max_length: longest row. Longer ones are cut, the longer text of a pair first; with
                `truncation=False` they are an error.
            padding: "longest" or True pads to the longest row, "max_length" to `max_length`. False refuses rows of
                different lengths.
            add_special_tokens: puts the model's start and end tokens around the texts.
            pad_to_multiple_of: rounds the length that is padded to up, so that fewer lengths are compiled.

        A tokenizer without a padding token pads with its eos id, or else 0: use the attention mask.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        around = (self._start, self._between, self._end) if add_special_tokens else ([], [], [])
        start, between, end = map(self.tokens_to_ids, around)
        first = checked(self._ids, texts)
        if pairs is None:
            second, between, segment = [[]] * len(texts), [], 0
        else:
            pairs = [pairs] if isinstance(pairs, str) else list(pairs)
            if len(pairs) != len(texts):
                raise TokenizerError(f"There are {len(texts)} texts but {len(pairs)} pairs; give one for each.")
            second, segment = checked(self._ids, pairs, "pairs"), self._second_segment
        pairs_of_ids = fitted(first, second, len(start + between + end), max_length, truncation, self.truncation_side)
        rows = [
            ([*start, *one, *between, *two, *end], len(start) + len(one) + len(between)) for one, two in pairs_of_ids
        ]
        width = padded_length([len(ids) for ids, _ in rows], padding, max_length, pad_to_multiple_of)
        return stack(rows, width, self.filler_id, segment, left=self.padding_side == "left")
