"""SentencePiece models (T5, mT5, CPM), with bert4keras' arguments and T5's sentinels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfloader.border import public
from tfloader.errors import TokenizerError
from tfloader.files import read_bytes
from tfloader.tokenizers.added import added_token
from tfloader.tokenizers.base import BaseTokenizer, Offsets
from tfloader.tokenizers.sequences import as_ids

MAX_EXTRA_IDS = 100_000
USUAL_NAMES = {"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


class SpTokenizer(BaseTokenizer):
    """Tokenizer of a SentencePiece model.

    Args:
        sp_model_path: the model file.
        token_start, token_end: pieces put around a text; None for none. T5 ends a text with "</s>".
        pre_tokenize: a function that splits a text into words, which are then joined by single spaces.
        token_translate: pieces to be replaced by others after splitting, and back before decoding.
        extra_ids: how many sentinels "<extra_id_N>" follow the pieces of the model, counted from the end as T5 does: N
            has the id `pieces + extra_ids - 1 - N`. In a text each is a single token.
        added_tokens: tokens that are kept whole wherever they stand in a text, as strings or as tokenizers.AddedToken;
            special ones of the latter only with `special_tokens`. What the model lacks gets the next ids.
        special_tokens: keeps the model's other special pieces that stand in a text whole ("</s>"), as Hugging Face
            does. By SentencePiece's rule they are text like any other.

    Ids from `vocab_size` on, which a model with a padded embedding may produce, decode to nothing.
    """

    @public
    def __init__(
        self,
        sp_model_path: str | os.PathLike[str],
        token_start: str | None = None,
        token_end: str | None = "</s>",
        pre_tokenize: Callable[[str], Iterable[str]] | None = None,
        token_translate: Mapping[str, str] | None = None,
        *,
        extra_ids: int = 0,
        special_tokens: bool = False,
        added_tokens: Iterable[Any] = (),
    ) -> None:
        path = os.fspath(sp_model_path)
        if not isinstance(extra_ids, int) or isinstance(extra_ids, bool) or not 0 <= extra_ids <= MAX_EXTRA_IDS:
            raise TokenizerError(f"extra_ids: expected a number from 0 to {MAX_EXTRA_IDS}; found {extra_ids!r}.")
        self._model = read_bytes(path, TokenizerError)
        self._sp = _open(self._model, path)
        self._size, self.extra_ids = self._sp.GetPieceSize(), extra_ids
        self.vocab_size = self._size + extra_ids
        self.keeps_special_tokens = special_tokens
        self._pre_tokenize, self._translate = pre_tokenize, dict(token_translate or {})
        roles = {
            role: self._sp.IdToPiece(id)
            for role in ("pad", "unk", "bos", "eos")
            if (id := getattr(self._sp, f"{role}_id")()) >= 0
        }
        roles |= {role: piece for role, piece in USUAL_NAMES.items() if self._find(piece) is not None}
        for argument, token in (("token_start", token_start), ("token_end", token_end)):
            if token is not None and self._find(token) is None:
                raise TokenizerError(
                    f"{argument}: the model {path} has no piece {token!r}; its special pieces are "
                    f"{sorted(set(roles.values()))}. Name one of them, or {argument}=None."
                )
        super().__init__(roles, token_start, token_end)
        self._adopt(added_tokens)
        usual = [*(roles.values() if special_tokens else ()), *(f"<extra_id_{i}>" for i in range(extra_ids))]
        given = {text: token for text, token in self.added_tokens.items() if special_tokens or not token.special}
        whole = {token: added_token(token) for token in usual} | given
        self._marks = _finder([*whole.values()])
        self._whole = dict(enumerate(whole, 1))

    @property
    def has_t5_layout(self) -> bool:
        """Whether padding, end and unknown are the ids 0, 1 and 2 and nothing starts a text, as in T5."""
        sp = self._sp
        return (sp.pad_id(), sp.eos_id(), sp.unk_id(), sp.bos_id()) == (0, 1, 2, -1)

    @property
    def holds_sentinels(self) -> bool:
        """Whether the model's own pieces contain sentinels, as mT5's do."""
        return any(self._find(piece) is not None for piece in ("<extra_id_0>", "▁<extra_id_0>"))

    def _find(self, token: str) -> int | None:
        if (number := sentinel_number(token)) in range(self.extra_ids):
            return self._size + self.extra_ids - 1 - number
        id = self._sp.PieceToId(token)
        return id if self._sp.IdToPiece(id) == token else self._beyond.get(token)

    def _name(self, index: int) -> str | None:
        if index >= self.vocab_size:
            return ""
        if index >= self._size + self.extra_ids:
            return [*self._beyond][index - self._size - self.extra_ids]
        if index >= self._size:
            return f"<extra_id_{self._size + self.extra_ids - 1 - index}>"
        return self._sp.IdToPiece(index) if index >= 0 else None

    # Text to pieces

    def _parts(self, text: str) -> list[tuple[str, str | None]]:
        """A text in parts, and the token of each that is kept whole."""
        found = self._marks.encode(text, add_special_tokens=False)
        return [(text[slice(*place)], self._whole.get(id)) for id, place in zip(found.ids, found.offsets, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if self._pre_tokenize or self._translate:
            return [self._pieces(text)[1] for text in texts]
        split = [self._parts(text) for text in texts]
        plain = iter(self._sp.encode([part for parts in split for part, whole in parts if not whole], out_type=int))
        return [
            [id for _, whole in parts for id in ([self.token_to_id(whole)] if whole else next(plain))]
            for parts in split
        ]

    def _pieces(self, text: str) -> tuple[list[str], list[int], Offsets]:
        if self._pre_tokenize:
            text = " ".join(self._pre_tokenize(text))
        tokens: list[str] = []
        ids, offsets, place = [], [], 0
        for part, whole in self._parts(text):
            found = ([whole], [self.token_to_id(whole)], [(0, len(part))]) if whole else _locate(self._sp, part)
            tokens += found[0]
            ids += found[1]
            offsets += [(place + start, place + end) for start, end in found[2]]
            place += len(part)
        if self._translate:
            tokens = [self._translate.get(token, token) for token in tokens]
            ids = self.tokens_to_ids(tokens)
        return tokens, ids, offsets

    def offsets(self, text: str) -> Offsets:
        self._need_offsets()
        return super().offsets(text)

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        self._need_offsets()
        return super().rematch(text, tokens)

    def _has_unreliable_offsets(self, text: str) -> bool:
        self._need_offsets()
        return super()._has_unreliable_offsets(text)

    def _need_offsets(self) -> None:
        if self._pre_tokenize:
            raise TokenizerError(
                "pre_tokenize rewrites the text before SentencePiece sees it, so there are no offsets in the original. "
                "Apply pre_tokenize yourself and give its text to a tokenizer without it."
            )

    # Pieces to text

    def decode(self, ids: Iterable[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids.

        Unknown pieces read " ⁇ ". Special pieces and sentinels are left out, unless `skip_special_tokens` is False.
        """
        if tokens is not None or self._translate:
            back = {new: old for old, new in self._translate.items()}
            tokens = self.ids_to_tokens(ids) if tokens is None else tokens
            ids = self.tokens_to_ids(back.get(token, token) for token in tokens if token)
        texts: list[str] = []
        run: list[int] = []
        for id in [*as_ids(ids), None]:
            token = "" if id is None else self.id_to_token(id)
            added = self.added_tokens.get(token)
            if added is not None and added.special and skip_special_tokens:
                continue
            if id is not None and id < self._size and (skip_special_tokens or not self._sp.IsControl(id)):
                run.append(id)
            elif id is None or token in self._beyond or (not skip_special_tokens and id < self.vocab_size):
                texts += [self._sp.DecodeIds(run)] if run else []
                texts += [token] if token else []
                run = []
        return " ".join(texts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes spiece.model and tokenizer_config.json."""
        roles = [role for role in ("eos", "unk", "pad") if role in self.special_tokens]
        is_t5 = self.has_t5_layout and not self._start and self._end == [self.special_tokens["eos"]]
        keeps = self.keeps_special_tokens
        config = {
            "extra_ids": self.extra_ids,
            # Left out where possible: it would make transformers split the sentinels as well.
            **(
                {"split_special_tokens": not keeps} if (keeps := self.keeps_special_tokens) or self.added_tokens else {}
            ),
            **{f"{role}_token": self.special_tokens[role] for role in roles},
            **self._common_settings(),
            "tokenizer_class": "T5Tokenizer" if is_t5 else "SpTokenizer",
        }
        self._write(folder, {"spiece.model": self._model}, config)


def sentinel_number(token: str) -> int:
    """Which sentinel a token is; -1 if it is none."""
    found = re.fullmatch(r"<extra_id_(0|[1-9][0-9]{0,5})>", token)
    return int(found[1]) if found else -1


def _finder(tokens: list[Any]) -> Any:
    """The Rust library's tokenizer that tells only tokens apart, with the ids 1, 2, ..., and else gives id 0."""
    import tokenizers

    finder = tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token=""))
    finder.add_tokens(tokens)
    return finder


def _open(model: bytes, path: str):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
        processor.IdToPiece(list(range(processor.GetPieceSize())))  # fails now rather than later
    except Exception as reason:
        raise TokenizerError(f"{path}: not a SentencePiece model. Download it again.") from reason
    return processor


def _locate(processor, text: str) -> tuple[list[str], list[int], Offsets]:
    try:
        found = processor.encode(text, return_type="offset_mapping")
    except TypeError:  # sentencepiece before 0.2.2 has another way to ask
        pieces = processor.encode(text, out_type="immutable_proto").pieces
        found = {
            "pieces": [piece.piece for piece in pieces],
            "ids": [piece.id for piece in pieces],
            "offsets": [(piece.begin, piece.end) for piece in pieces],
        }
    return found["pieces"], found["ids"], found["offsets"]
