"""From new token ids to text: as it stands behind its prompt, as far as it is certain, and up to a stop string."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property

from tfloader.tokenizers.base import BaseTokenizer
from tfloader.tokenizers.bounds import checked

# What may stand beside a stop string: the spaces in a text depend on it.
NEIGHBOURS = ("", "a", "1", ".", "中")


class Detokenizer:
    """
    Args:
        tokenizer: what `tfloader.load_tokenizer` returned.
        ends: the model's stop tokens, which are no text.
        vocab_size: how many ids the model has.
        continues: whether new text goes on behind its prompt; otherwise it stands alone.
    """

    def __init__(self, tokenizer: BaseTokenizer, ends: Iterable[int], vocab_size: int, continues: bool) -> None:
        self.tokenizer, self.vocab_size, self.continues = tokenizer, vocab_size, continues
        named = (getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "cls", "sep", "pad"))
        self.left_out = {*ends, *named} - {None}

    def text(self, ids: Sequence[int], prompt: Sequence[int]) -> str:
        """The text of new ids behind a prompt's, with the space between them if there is one."""
        alone = self.decode(ids)
        if not self.continues:
            return alone
        before, whole = self.decode(prompt), self.decode([*prompt, *ids])
        if whole.startswith(before):
            return whole[len(before) :]
        # The end of the prompt reads otherwise with what follows: "it' s" and "it's good".
        return " " * whole.removesuffix(alone).endswith(" ") + alone

    def settled(self, ids: Sequence[int], prompt: Sequence[int]) -> str:
        """The beginning of `text` that stays as it is whatever ids come next."""
        text, every = self.text(ids, prompt), self.shown([*prompt, *ids] if self.continues else ids)
        open_end = len(self.tokenizer.decode(every)) - len(self.tokenizer.settled(every))
        return text[: max(len(text) - open_end, 0)]

    def stop_of(self, ids: Sequence[int], prompt: Sequence[int], stops: Iterable[str] | None) -> int | None:
        """How many ids it takes until one of the texts is complete; None where none is."""

        def has_stop(end: int) -> bool:
            text = self.text(ids[:end], prompt)
            return any(stop in text for stop in stops or ())

        end = len(ids)
        if not stops or not has_stop(end):
            return None
        # From the end on: what stood there for a moment, before a later token changed it, stops nothing.
        while has_stop(end - 1):
            end -= 1
        return end

    def token_of(self, text: str) -> int | None:
        """The id of the token with this text that decoding leaves out, such as "[SEP]"; None for other texts."""
        id = checked(self.tokenizer._find, text, "stop_strings")
        if id is None or text not in self.tokenizer.decode([id], skip_special_tokens=False):
            return None
        return None if self.decode([id]) else id

    def can_write(self, text: str) -> bool:
        """Whether new text may hold this one; False where it surely cannot."""
        around = [one + text + two for one, two in itertools.product(NEIGHBOURS, repeat=2)]
        if any(text in self.written(whole) for whole in around):
            return True
        # Tokens may write what no text is split into, such as the end of a word; but spaces are the decoder's.
        packed, found = text.replace(" ", ""), (self.written(whole).replace(" ", "") for whole in around)
        return self.alphabet.issuperset(text) and not any(packed in whole for whole in found)

    def written(self, text: str) -> str:
        """A text as the decoder writes it."""
        return self.tokenizer.decode(self.tokenizer.encode(text)[0])

    @cached_property
    def without_token(self) -> list[int]:
        """The model's ids for which there is no token, such as the padding of its vocabulary."""
        return [id for id in range(self.vocab_size) if not self.tokenizer._name(id)]

    @cached_property
    def alphabet(self) -> set[str]:
        """The characters that tokens write, and the space between two."""
        ids = set(range(self.vocab_size)).difference(self.without_token)
        return {" "}.union(*(self.decode([id]) for id in ids))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(self.shown(ids))

    def shown(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token not in self.left_out]
