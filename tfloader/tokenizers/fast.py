"""Tokenizers that the Rust library runs, and among them any Hugging Face tokenizer.json."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfloader.errors import TokenizerError, listing
from tfloader.files import parse_json, read_text, show
from tfloader.tokenizers.added import check_ids
from tfloader.tokenizers.base import BaseTokenizer, Offsets
from tfloader.tokenizers.bounds import border, check_cost
from tfloader.tokenizers.sequences import as_ids
from tfloader.tokenizers.settings import ROLES
from tfloader.tokenizers.vocabulary import tokens_by_id

USUAL_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "bos": ("<s>", "<|endoftext|>"),
    "eos": ("</s>", "<|endoftext|>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}
BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
# Decoders that turn token after token into text.
STEADY = {"BPEDecoder", "ByteFallback", "CTC", "Metaspace", "Replace", "Strip", "WordPiece"}
PROBES = ("a", "的", "0", ".")


class RustTokenizer(BaseTokenizer):
    """A tokenizer that the Rust library runs."""

    _rust: Any
    _vocab: dict[str, int]
    _tokens: dict[int, str]
    _whole: dict[int, str]

    def _add(self, added_tokens: Iterable[Any]) -> None:
        """Adds tokens and the roles' to those that stand in a text whole, or do not if they are special."""
        self._adopt(added_tokens)
        self._rust.add_tokens([*self.added_tokens.values()])
        if wrong := [show(token) for token, id in self._beyond.items() if self._rust.token_to_id(token) != id]:
            raise TokenizerError(
                f"added_tokens: the vocabulary has gaps, so that the ids of others are not certain:\n{listing(wrong)}\n"
                "Give a vocabulary with the ids 0, 1, 2, ..., or one that holds these tokens."
            )
        self._tokens |= {id: token for token, id in self._beyond.items()}
        known = {token.content for token in self._rust.get_added_tokens_decoder().values()}
        self._rust.add_special_tokens(sorted(set(self.special_tokens.values()) - known))
        self._rust.encode_special_tokens = not self.keeps_special_tokens
        added = self._rust.get_added_tokens_decoder().items()
        self._whole = {id: token.content for id, token in added if self.keeps_special_tokens or not token.special}

    def _find(self, token: str) -> int | None:
        return self._vocab.get(token, self._beyond.get(token))

    def _name(self, index: int) -> str | None:
        return self._tokens.get(index)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        with border("texts"):
            return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=False)]

    def _pieces(self, text: str) -> tuple[list[str], list[int], Offsets]:
        return self._named(self._encoding(text))

    def _named(self, encoding: Any) -> tuple[list[str], list[int], Offsets]:
        # The library gives an added token together with the spaces that it takes in.
        tokens = [self._whole.get(id) or token for id, token in zip(encoding.ids, encoding.tokens, strict=True)]
        return tokens, encoding.ids, encoding.offsets

    def _encoding(self, text: str) -> Any:
        with border("text"):
            return self._rust.encode(text, add_special_tokens=False)


def open_json(text: str, path: str) -> Any:
    """The Rust library's tokenizer of the text of a tokenizer.json."""
    import tokenizers

    with border(path):
        return tokenizers.Tokenizer.from_str(text)


class JsonTokenizer(RustTokenizer):
    """A tokenizer that exists only as tokenizer.json.

    What the file says is followed: its special tokens are kept whole in a text, and what it puts around a text is put
    there. Its truncation and padding settings are not: calls decide those.

    Args:
        path: the file.
        tokens: the token of each role ("pad", "cls", ...), as tokenizer_config.json has them. Without it the usual
            names are taken where the file declares them special.
        special_tokens: False makes special tokens in a text ordinary text.
    """

    def __init__(
        self, path: str | os.PathLike[str], tokens: Mapping[str, str] | None = None, *, special_tokens: bool = True
    ) -> None:
        path = os.fspath(path)
        text = read_text(path, TokenizerError)
        self.content = parse_json(text, path, TokenizerError)
        self._rust = open_json(text, path)
        check_cost(path, self.content)
        if dropout := (self.content.get("model") or {}).get("dropout"):
            raise TokenizerError(
                f"{path}: model.dropout is {dropout}: every call would give other ids. Set it to null."
            )
        self._rust.no_truncation()
        self._rust.no_padding()
        self.keeps_special_tokens = special_tokens
        added = {token.content: token.special for token in self._rust.get_added_tokens_decoder().values()}
        if tokens is None:
            found = {role: [name for name in names if added.get(name)] for role, names in USUAL_NAMES.items()}
            tokens = {role: names[0] for role, names in found.items() if names}
        if missing := sorted(token for token in tokens.values() if self._rust.token_to_id(token) is None):
            raise TokenizerError(f"{path}: the special tokens {missing} are not in its vocabulary.")
        super().__init__(tokens)
        self._vocab = self._rust.get_vocab(with_added_tokens=True)
        self._tokens = tokens_by_id(self._vocab, path)
        self.vocab_size = max(self._tokens) + 1
        stated = [(token["id"], token["content"]) for token in self.content.get("added_tokens") or ()]
        check_ids(path, stated, self._find)
        self._add(())
        with border(path):
            self._learn_template(path)

    def _learn_template(self, path: str) -> None:
        """Finds out what the file puts around one text and between two, by encoding short ones."""
        for probe in PROBES:
            plain = self._rust.encode(probe, add_special_tokens=False).ids
            one, two = self._rust.encode(probe), self._rust.encode(probe, probe)
            if plain and self._template(plain, one, two):
                return
        raise TokenizerError(
            f"{path}: its post_processor arranges texts in a way that is not implemented: expected fixed tokens "
            "before, between and after the texts, and segments 0 and then 0 or 1."
        )

    def _template(self, plain: list[int], one, two) -> bool:
        size = len(plain)
        for begin in range(len(one.ids) - size + 1):
            start, end = one.ids[:begin], one.ids[begin + size :]
            middle = two.ids[begin + size : len(two.ids) - size - len(end)]
            whole = [*start, *plain, *middle, *plain, *end]
            boundary = begin + size + len(middle)
            segment = two.type_ids[boundary] if boundary < len(two.ids) else 0
            segments = [0] * boundary + [segment] * (len(two.ids) - boundary)
            fits = one.ids[begin : begin + size] == plain and two.ids == whole and two.type_ids == segments
            if fits and not any(one.type_ids):
                self._start, self._between, self._end = map(self.ids_to_tokens, (start, middle, end))
                self._second_segment = segment
                return True
        return False

    def decode(self, ids: Iterable[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids by the file's own decoder; ids outside its vocabulary decode to nothing."""
        ids = as_ids(ids) if tokens is None else self.tokens_to_ids(tokens)
        known = [id for id in ids if self._name(id) is not None]
        with border("ids"):
            return self._rust.decode(known, skip_special_tokens=skip_special_tokens)

    def settled(self, ids: Sequence[int]) -> str:
        decoder: dict[str, Any] = self.content.get("decoder") or {"type": "Fuse"}
        parts: list[dict[str, Any]] = decoder.get("decoders", [decoder])
        kinds = [part["type"] for part in parts]
        whole = next((place for place, kind in enumerate(kinds) if kind in ("Fuse", "ByteLevel")), len(kinds))
        if not STEADY.issuperset(kinds[:whole]) or not {"Strip"}.issuperset(kinds[whole + 1 :]):
            return ""  # rules for the whole text may change any part of it
        end = len(ids)
        # Bytes in a row become text together, or none of them.
        while end and "ByteFallback" in kinds and self._is_byte(ids[end - 1]):
            end -= 1
        return super().settled(ids[:end])

    def _is_byte(self, id: int) -> bool:
        """Whether it is no token, one that decode leaves out, or one such as <0xE4>."""
        return BYTE.fullmatch(self._name(id) or "") is not None or not self.decode([id])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "split_special_tokens": not self.keeps_special_tokens,
            **{f"{role}_token": self.special_tokens.get(role) for role in ROLES},
        }
        self._write(folder, {"tokenizer.json": self._rust.to_str().encode()}, config)
