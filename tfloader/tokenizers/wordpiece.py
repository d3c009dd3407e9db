"""Google BERT's tokenizer: basic splitting, then the longest WordPieces from the left.

The rules are made of the Rust library's building blocks, because its BertNormalizer differs from Google's code: it
deletes private-use characters, lowercases a final sigma to σ, strips accents before it lowercases, misses 256 Chinese
characters and gives up on words above 100 characters (Google: 200).
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfloader.border import public
from tfloader.errors import TokenizerError
from tfloader.tokenizers.added import added_token
from tfloader.tokenizers.base import Offsets
from tfloader.tokenizers.bounds import MOST
from tfloader.tokenizers.fast import RustTokenizer
from tfloader.tokenizers.sequences import foreign
from tfloader.tokenizers.vocabulary import CJK_RANGES, is_cjk, is_punctuation, load_vocab, tokens_by_id, vocab_lines

# As regular expressions of the Rust library (Oniguruma).
SPACE = r"[\t\n\r\p{Z}]+"
CONTROL = r"[\p{Cc}\p{Cf}\x{FFFD}&&[^\t\n\r]]"
PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
CASED, BETWEEN = r"[\p{Cased}&&[^\p{Case_Ignorable}]]", r"\p{Case_Ignorable}*"
FINAL_SIGMA = rf"{CASED}{BETWEEN}\KΣ(?!{BETWEEN}{CASED})"
SHORT = "re|m|s|t|ve|d|ll"  # what is written without a space behind an apostrophe: it's
UNSETTLED = re.compile("(?<=') (r|v|l|" + SHORT + ")$")  # loses its space once another word follows
# Punctuation after which bert4keras writes no space: Chinese marks, and signs that open or join.
TIGHT = (
    "\uff02-\uff0d\uff0f\uff1a-\uff1e\uff20\uff3b-\uff40\uff5b-\uff60\uff62-\uff64\u3000\u3001\u3003\u3008-\u3011"
    "\u3014-\u301f\u3030\u303e\u303f\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\ufe4f\ufe51\ufe54\xb7"
    "\uff01\uff1f\uff61\u3002+\\-/={(<\\["
)


class Tokenizer(RustTokenizer):
    """WordPiece tokenizer of BERT and its relatives, with bert4keras' arguments.

    Args:
        token_dict: a dictionary from token to id, or the path of a vocabulary file.
        do_lower_case: lowercases the text and strips its accents, for an uncased vocabulary.
        token_start, token_end: tokens put around a text; None for none, as GPT2_ML wants.
        pre_tokenize: a function that splits a text into words; those in the vocabulary are kept whole (WoBERT).
        token_translate: tokens to be replaced by others after splitting.
        word_maxlen: a longer word becomes one unknown token; at most 1000.
        strip_accents: strips accents (Unicode's Mn) even without lowercasing, or keeps them in spite of it. None
            follows `do_lower_case`.
        tokenize_chinese_chars: makes each Chinese character a word.
        added_tokens: tokens that are kept whole wherever they stand in a text, as strings or as tokenizers.AddedToken;
            special ones of the latter only with `special_tokens`. What the vocabulary lacks gets the next ids.
        special_tokens: keeps special tokens that stand in a text whole ("[MASK]" is one token), as Hugging Face does.
            By Google's rule they are text like any other ("[", "mask", "]").

    The token of a word that the vocabulary cannot spell is the word itself; its id is the unknown token's. Unicode
    categories are the Rust library's, which may be newer than those of your Python, and so of Google's code.
    """

    @public
    def __init__(
        self,
        token_dict: Mapping[str, int] | str | os.PathLike[str],
        do_lower_case: bool = False,
        token_start: str | None = "[CLS]",
        token_end: str | None = "[SEP]",
        token_unk: str = "[UNK]",
        token_pad: str | None = "[PAD]",
        token_mask: str | None = "[MASK]",
        pre_tokenize: Callable[[str], Iterable[str]] | None = None,
        token_translate: Mapping[str, str] | None = None,
        word_maxlen: int = 200,
        *,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        special_tokens: bool = False,
        added_tokens: Iterable[Any] = (),
    ) -> None:
        vocab = dict(token_dict) if isinstance(token_dict, Mapping) else load_vocab(token_dict)
        self._vocab, self._tokens = vocab, tokens_by_id(vocab, "token_dict", repeats=True)
        added_tokens = [*map(added_token, added_tokens)]
        known = {*vocab, *(token.content for token in added_tokens)}
        roles = {"pad": token_pad, "unk": token_unk, "cls": token_start, "sep": token_end, "mask": token_mask}
        for argument, role in (("token_unk", "unk"), ("token_start", "cls"), ("token_end", "sep")):
            if roles[role] not in known and (roles[role] is not None or role == "unk"):
                raise TokenizerError(
                    f"{argument}: {roles[role]!r} is not among the {len(vocab)} tokens of the vocabulary. Name "
                    + ("its unknown token." if role == "unk" else f"another token, or {argument}=None.")
                )
        super().__init__({role: token for role, token in roles.items() if token in known}, token_start, token_end)
        self.vocab_size = max(vocab.values()) + 1
        self.do_lower_case, self.strip_accents = do_lower_case, strip_accents
        self.tokenize_chinese_chars, self.keeps_special_tokens = tokenize_chinese_chars, special_tokens
        if not isinstance(word_maxlen, int) or not 0 <= word_maxlen <= MOST:
            raise TokenizerError(f"word_maxlen: expected a number from 0 to {MOST}, found {word_maxlen!r:.80}.")
        self.word_maxlen = word_maxlen
        self._pre_tokenize: Any = pre_tokenize
        self._translate = dict(token_translate or {})
        self._folded: dict[str, str] = {}
        self._rust, self._lowering = self._build()
        self._add(added_tokens)

    def _build(self):
        import tokenizers
        from tokenizers import Regex, models, normalizers, pre_tokenizers

        strips = self.do_lower_case if self.strip_accents is None else self.strip_accents
        lowering = []
        if self.do_lower_case:
            lowering += [normalizers.Replace(Regex(FINAL_SIGMA), "ς"), normalizers.Lowercase()]
        if strips:
            lowering += [normalizers.NFD(), normalizers.Replace(Regex(r"\p{Mn}"), "")]
        single = f"[{CJK_RANGES}]|{PUNCTUATION}" if self.tokenize_chinese_chars else PUNCTUATION
        rust = tokenizers.Tokenizer(
            models.WordPiece(
                self._vocab,
                unk_token=self.special_tokens["unk"],
                max_input_chars_per_word=self.word_maxlen,
                continuing_subword_prefix="##",
            )
        )
        rust.normalizer = normalizers.Sequence([normalizers.Replace(Regex(CONTROL), ""), *lowering])
        rust.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(SPACE), "removed"), pre_tokenizers.Split(Regex(single), "isolated")]
        )
        return rust, normalizers.Sequence(lowering)

    def is_special(self, token: str) -> bool:
        return (token[:1] == "[" and token[-1:] == "]" and len(token) > 1) or super().is_special(token)

    # Text to tokens

    @property
    def _splits_at_spaces(self) -> bool:
        return not self._pre_tokenize and all(len(content.split()) == 1 for content in self.added_tokens)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if self._pre_tokenize or self._translate:
            return [self._pieces(text)[1] for text in texts]
        return super()._ids(texts)

    def _pieces(self, text: str) -> tuple[list[str], list[int], Offsets]:
        if self._pre_tokenize:
            tokens = [
                token for part, whole in self._parts(text) for token in ([part] if whole else self._segment(part))
            ]
            ids, found = self.tokens_to_ids(tokens), self._search(text, tokens)
            offsets = [(places[0], places[-1] + 1) if places else (0, 0) for places in found]
        else:
            tokens, ids, offsets = self._native_pieces(text)
        if self._translate:
            tokens = [self._translate.get(token, token) for token in tokens]
            ids = self.tokens_to_ids(tokens)
        return tokens, ids, offsets

    def _segment(self, text: str) -> list[str]:
        """The tokens of a text that pre_tokenize splits into words."""
        words = self._pre_tokenize(self._lowering.normalize_str(text))
        return [token for word in words for token in ([word] if word in self._vocab else self._native_pieces(word)[0])]

    def _native_pieces(self, text: str) -> tuple[list[str], list[int], Offsets]:
        encoding = self._encoding(text)
        tokens, ids, offsets = self._named(encoding)
        if self.unk_token_id in ids:
            words, places = self._words(text, encoding), encoding.word_ids
            unknown = self.special_tokens["unk"]
            tokens = [words[places[i]] if token == unknown else token for i, token in enumerate(tokens)]
        return tokens, ids, offsets

    def _words(self, text: str, encoding: Any = None) -> list[str]:
        words: list[str] = []
        for part, whole in self._parts(text, encoding):
            normal = "" if whole else self._rust.normalizer.normalize_str(part)
            words += [part] if whole else [word for word, _ in self._rust.pre_tokenizer.pre_tokenize_str(normal)]
        return words

    def _parts(self, text: str, encoding: Any = None) -> Iterator[tuple[str, bool]]:
        """A text in parts, and which of them are tokens that are kept whole."""
        place = 0
        if self._whole:
            encoding = encoding or self._encoding(text)
            pieces = zip(encoding.word_ids, encoding.ids, encoding.offsets, strict=True)
            for _, (first, *more) in itertools.groupby(pieces, key=operator.itemgetter(0)):
                _, id, (start, end) = first
                token = self._whole.get(id)
                # An unknown word has the id of the unknown token, which may be kept whole itself.
                if token is not None and not more and self._folds(text[start:end].strip()) == self._folds(token):
                    yield from ((text[place:start], False), (token, True))
                    place = end
        yield text[place:], False

    # Tokens back to characters

    def _keeps(self, character: str) -> bool:
        return self._fold(character) != ""

    def _fold(self, character: str) -> str:
        """What one character becomes. Both small sigmas are one: which it is depends on its neighbours."""
        if character not in self._folded:
            self._folded[character] = self._rust.normalizer.normalize_str(character).replace("ς", "σ")
        return self._folded[character]

    def _folds(self, text: str) -> str:
        return "".join(map(self._fold, text))

    def _has_unreliable_offsets(self, text: str) -> bool:
        """Where Unicode's normal form puts marks in another order."""
        if text.isascii():
            return False
        return unicodedata.normalize("NFD", text) != "".join(unicodedata.normalize("NFD", part) for part in text)

    def _search(self, text: str, tokens: Sequence[str], own: Any = None, offsets: Any = None) -> list[list[int]]:
        folded, origin = [], []
        for i, character in enumerate(text):
            piece = self._fold(character)
            folded.append(piece)
            origin += [i] * len(piece)
        whole, place, found = "".join(folded), 0, []
        for token in tokens:
            piece = self._folds(token.removeprefix("##") if len(token) > 2 else token)
            begin = whole.find(piece, place)
            if begin < 0:
                raise foreign(token, text)
            place = begin + len(piece)
            found.append(sorted(set(origin[begin:place])))
        return found

    # Tokens to text

    def decode(self, ids: Iterable[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Returns readable text of ids: pieces joined, spaces where English wants them and Chinese does not.

        Tokens in square brackets ("[SEP]", "[UNK]") are left out unless `skip_special_tokens` is False.
        """
        tokens = self.ids_to_tokens(ids) if tokens is None else tokens
        if skip_special_tokens:
            tokens = [token for token in tokens if not self.is_special(token)]
        return join(tokens)

    def settled(self, ids: Sequence[int]) -> str:
        return UNSETTLED.sub("", super().settled(ids))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes vocab.txt, tokenizer.json and tokenizer_config.json.

        Transformers reads tokenizer.json, which holds these exact rules, and gives the same ids.
        """
        roles = {**dict.fromkeys(("unk", "sep", "pad", "cls", "mask")), **self.special_tokens}
        config = {
            # This class, unlike BertTokenizer, makes transformers follow tokenizer.json to the letter.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": self.do_lower_case,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.tokenize_chinese_chars,
            "max_input_chars_per_word": self.word_maxlen,
            "split_special_tokens": not self.keeps_special_tokens,
            **{f"{role}_token": token for role, token in roles.items()},
            **self._common_settings(),
        }
        files = {"vocab.txt": vocab_lines(self._vocab).encode(), "tokenizer.json": self._json().encode()}
        self._write(folder, files, config)

    def _json(self) -> str:
        import tokenizers
        from tokenizers.processors import TemplateProcessing

        rust = tokenizers.Tokenizer.from_str(self._rust.to_str())
        start, end = self._start, self._end
        if start or end:
            rust.post_processor = TemplateProcessing(
                single=[*start, "$A", *end],
                pair=[*start, "$A", *end, "$B:1", *(f"{token}:1" for token in end)],
                special_tokens=[(token, self.token_to_id(token)) for token in {*start, *end}],
            )
        rust.decoder = tokenizers.decoders.WordPiece(prefix="##")
        return rust.to_str()


def join(tokens: Iterable[str]) -> str:
    """Joins WordPieces to a text, spaced as bert4keras did: as English wants it, and Chinese does not."""
    parts, last = [], ""
    for token in tokens:
        if token.startswith("##"):
            part = token[2:]
        elif len(token) == 1 and is_cjk(token):
            part = token
        elif len(token) == 1 and is_punctuation(token):
            part = token + " "
        else:
            part = token if last and is_cjk(last) else " " + token
        parts.append(part)
        last = part[-1:] or last
    text = re.sub(" +", " ", "".join(parts))
    text = re.sub(f"' ({SHORT}) ", r"'\1 ", text)
    text = re.sub(f"([{TIGHT}]) ", r"\1", text)
    return re.sub(r"(\d\.) (\d)", r"\1\2", text).strip()
