"""A batch of token ids: fitted to a length, padded to one, and given to a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfloader.errors import DataError, TokenizerError
from tfloader.tokenizers.sequences import share

Ids = list[int]
Row = tuple[Ids, int]
PADDINGS = ("longest", "max_length", True, False)


class TokenBatch(NamedTuple):
    """Token ids of a batch: three int32 arrays of shape [batch, length].

    `attention_mask` is 1 at real tokens and 0 at padding. It alone tells them apart where the tokenizer has no padding
    token (GPT-2), because the padding id is then an ordinary token. `batch["input_ids"]` and `**batch` work as well.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    attention_mask: np.ndarray

    def keys(self) -> tuple[str, ...]:
        return self._fields

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if key in self._fields else tuple.__getitem__(self, key)

    def inputs(self, model: Any) -> list[np.ndarray]:
        """The inputs of a model, in its order: `model.predict(batch.inputs(model))`.

        Args:
            model: a Keras model with the inputs Input-Token, Input-Segment and Input-Mask, or some of them.

        Raises:
            DataError: the model has other inputs, takes another id for padding, or has fewer positions than a row.
        """
        arrays = dict(zip(("Input-Token", "Input-Segment", "Input-Mask"), self, strict=True))
        names = [tensor.name.removeprefix("Encoder-") for tensor in model.inputs]
        layers = {layer.name: layer for layer in model.layers}
        if others := [name for name in names if name not in arrays]:
            raise DataError(
                f"The model has the inputs {', '.join(others)}, which are not in a batch of texts. Give them yourself, "
                "beside batch.input_ids and the others; an encoder alone is model.transformer.encoder."
            )
        if "Input-Mask" not in names:
            self._check_padding(getattr(layers.get("Embedding-Token"), "pad_token_id", None))
        self._check_length(model)
        return [arrays[name] for name in names]

    def _check_padding(self, pad_token_id: int | None) -> None:
        padding = self.attention_mask == 0
        # Without an id for padding the model is a language model, in which no token looks at what is behind it.
        wrong = padding[:, :1].any() if pad_token_id is None else (self.input_ids[padding] != pad_token_id).any()
        if wrong:
            expected = "nothing" if pad_token_id is None else f"the id {pad_token_id}"
            raise DataError(
                f"The model takes {expected} for padding; the batch is padded with id {self.input_ids[padding][0]}, "
                "perhaps on the left. Load the model with custom_attention_mask=True, or give it its own tokenizer."
            )

    def _check_length(self, model: Any) -> None:
        layers = {layer.name: layer for layer in model.layers}
        positions, width = positions_of(model), self.input_ids.shape[1]
        lengths = self.attention_mask.sum(axis=1)
        counted = layers.get("Position-Rows")
        if counted is not None:
            lengths = (self.input_ids != counted.pad_token_id).sum(axis=1)
            width = lengths.max(initial=0)
        if positions is not None and width > positions:
            only = layers["Embedding-Position"].hierarchical is not None or counted is not None
            more = "" if only else ", or load the model with hierarchical_position=True, if its family can"
            raise DataError(
                f"texts[{lengths.argmax()}] has {lengths.max()} tokens and rows have {width}, but the model has "
                f"{positions} positions. Give the tokenizer max_length={positions} or divide the text{more}."
            )


def positions_of(model: Any) -> int | None:
    """How many real tokens a model has positions for; None: any number.

    RoBERTa gives positions to real tokens only, behind the row of padding.
    """
    layers = {layer.name: layer for layer in model.layers}
    rows = getattr(layers.get("Embedding-Position"), "input_dim", None)
    if rows is None:
        return None
    if "Position-Rows" in layers:
        return rows - layers["Position-Rows"].pad_token_id - 1
    return rows if layers["Embedding-Position"].hierarchical is None else rows**2


def fitted(
    first: Iterable[Ids], second: Iterable[Ids], extra: int, max_length: int | None, truncation: bool, side: str
) -> Iterator[tuple[Ids, Ids]]:
    """Pairs of ids, cut on a side so that they and `extra` more have room in `max_length`."""
    for i, (one, two) in enumerate(zip(first, second, strict=True)):
        length = len(one) + len(two) + extra
        if max_length is None or length <= max_length:
            yield one, two
            continue
        if not truncation:
            raise TokenizerError(
                f"texts[{i}] has {length} tokens, max_length is {max_length}. "
                "Raise max_length, shorten the text, or let truncation=True cut it."
            )
        if extra > max_length:
            raise TokenizerError(f"max_length={max_length} leaves no room: {extra} tokens stand around a text.")
        kept = share(len(one), len(two), max_length - extra)
        if side == "right":
            yield one[: kept[0]], two[: kept[1]]
        else:
            yield one[len(one) - kept[0] :], two[len(two) - kept[1] :]


def padded_length(lengths: Sequence[int], padding: str | bool, max_length: int | None, multiple: int) -> int:
    """The length of a batch's rows. `padding` and the others are arguments of a tokenizer's call."""
    if padding not in PADDINGS or (padding == "max_length" and max_length is None):
        raise TokenizerError(
            f"padding: expected 'longest', True, False, or 'max_length' together with max_length; found {padding!r:.70}"
        )
    if not isinstance(multiple, int) or multiple < 1:
        raise TokenizerError(f"pad_to_multiple_of: expected a number from 1 on; found {multiple!r:.80}.")
    if padding is False and len(set(lengths)) > 1:
        raise TokenizerError(f"padding=False: the rows have different lengths, {sorted(set(lengths))[:9]}. Pad them.")
    length = max_length if padding == "max_length" and max_length else max(lengths, default=0)
    return -(-length // multiple) * multiple


def stack(rows: Sequence[Row], width: int, filler: int, second_segment: int, left: bool) -> TokenBatch:
    """Pads rows to a width; a row is its ids and the place where its second segment begins."""
    shape = (len(rows), width)
    batch = TokenBatch(np.full(shape, filler, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    for i, (ids, boundary) in enumerate(rows):
        begin = width - len(ids) if left else 0
        end = begin + len(ids)
        batch.input_ids[i, begin:end] = ids
        batch.segment_ids[i, begin + boundary : end] = second_segment
        batch.attention_mask[i, begin:end] = 1
    return batch
