"""GPT-2's tokenizer: byte-pair merges over UTF-8 bytes, so that every text has an exact way back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfloader.border import public
from tfloader.errors import TokenizerError
from tfloader.files import MAX_TEXT_BYTES, read_json, read_text
from tfloader.tokenizers.added import added_token
from tfloader.tokenizers.fast import RustTokenizer
from tfloader.tokenizers.settings import ROLES
from tfloader.tokenizers.vocabulary import tokens_by_id

END_OF_TEXT = "<|endoftext|>"


class BytePairTokenizer(RustTokenizer):
    """Byte-level BPE of GPT-2, from OpenAI's encoder.json and vocab.bpe or from vocab.json and merges.txt.

    Args:
        vocab: a dictionary from token to id, or the path of its JSON file.
        merges: pairs of tokens in the order in which they are merged, or the path of their file.
        token_start, token_end: tokens put around a text (RoBERTa: "<s>" and "</s>"); GPT-2 has none.
        tokens: the token of each role ("bos", "eos", "unk", "pad", ...) that the model has.
        added_tokens: tokens that are kept whole wherever they stand in a text, as strings or as tokenizers.AddedToken;
            special ones of the latter only with `special_tokens`. What the vocabulary lacks gets the next ids.
        special_tokens: keeps special tokens that stand in a text whole, as Hugging Face does. OpenAI's encoder takes
            "<|endoftext|>" for text like any other, and so do we unless asked.

    There is no padding token in GPT-2; batches are padded with "<|endoftext|>" (or id 0 without one), and only the
    attention mask tells such a position from a real one.
    """

    @public
    def __init__(
        self,
        vocab: Mapping[str, int] | str | os.PathLike[str],
        merges: Sequence[tuple[str, str]] | str | os.PathLike[str],
        token_start: str | None = None,
        token_end: str | None = None,
        *,
        tokens: Mapping[str, str] | None = None,
        special_tokens: bool = False,
        added_tokens: Iterable[Any] = (),
    ) -> None:
        name = "vocab" if isinstance(vocab, Mapping) else os.fspath(vocab)
        self._vocab = dict(vocab) if isinstance(vocab, Mapping) else read_json(name, TokenizerError, MAX_TEXT_BYTES)
        self._merges = _read_merges(os.fspath(merges)) if isinstance(merges, (str, os.PathLike)) else list(merges)
        self._tokens = tokens_by_id(self._vocab, name)
        if tokens is None:
            tokens = {role: END_OF_TEXT for role in ("bos", "eos") if END_OF_TEXT in self._vocab}
        added_tokens = [*map(added_token, added_tokens)]
        known = {*self._vocab, *(token.content for token in added_tokens)}
        for token in (token_start, token_end, *tokens.values()):
            if token is not None and token not in known:
                raise TokenizerError(f"{name}: the special token {token!r} is not in the vocabulary.")
        super().__init__(tokens, token_start, token_end)
        if token_start is not None and token_end is not None:  # RoBERTa's pairs
            self._between, self._second_segment = [token_end, token_end], 0
        self.vocab_size = max(self._tokens) + 1
        self.keeps_special_tokens = special_tokens
        self._rust = self._build(name)
        self._add(added_tokens)

    def _build(self, name: str):
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        if missing := [c for c in pre_tokenizers.ByteLevel.alphabet() if c not in self._vocab]:
            raise TokenizerError(
                f"{name}: {len(missing)} of the 256 byte symbols are missing (the first is {min(missing)!r}), so some "
                "texts would lose characters. Is this a byte-level vocabulary?"
            )
        try:
            rust = tokenizers.Tokenizer(models.BPE(self._vocab, self._merges))
        except Exception as reason:
            raise TokenizerError(
                f"{name}: vocabulary and merges do not fit together ({reason}). Take both from the same checkpoint."
            ) from reason
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
        return rust

    def decode(self, ids: Iterable[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids, byte for byte; bytes that are no valid UTF-8 become U+FFFD."""
        tokens = self.ids_to_tokens(ids) if tokens is None else list(tokens)
        if skip_special_tokens:
            tokens = [token for token in tokens if not self.is_special(token)]
        return self._rust.decoder.decode(tokens)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes vocab.json, merges.txt and tokenizer_config.json."""
        if len(self._tokens) < self.vocab_size:
            gap = next(id for id in range(self.vocab_size) if id not in self._tokens)
            raise TokenizerError(f"The vocabulary has gaps, such as the id {gap}; no file can hold it.")
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        config = {
            "tokenizer_class": "RobertaTokenizer" if self._start else "GPT2Tokenizer",
            "add_prefix_space": False,
            "split_special_tokens": not self.keeps_special_tokens,
            **{f"{role}_token": self.special_tokens.get(role) for role in ROLES},
            **self._common_settings(),
        }
        if config["unk_token"] is None and END_OF_TEXT in self._vocab:
            del config["unk_token"]  # GPT-2's default, which byte-level BPE never needs, but CTranslate2 asks for
        vocab = json.dumps(dict(sorted(self._vocab.items(), key=lambda item: item[1])), ensure_ascii=False)
        self._write(folder, {"vocab.json": vocab.encode(), "merges.txt": f"#version: 0.2\n{merges}".encode()}, config)


def _read_merges(path: str) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(read_text(path, TokenizerError).rstrip("\r\n").split("\n"), 1):
        line = line.removesuffix("\r")
        if number == 1 and line.startswith("#version"):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise TokenizerError(f"{path}: line {number} is not a merge, two tokens and a space: {line[:60]!r}.")
        merges.append((pair[0], pair[1]))
    return merges
