"""The cut of a vocabulary: tokens that are kept, in a new order, and new ones made of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfloader.config import ids_of, shown
from tfloader.errors import ConfigError, WeightsError


class VocabularyCut:
    """Applies `keep_tokens` and `compound_tokens` to arrays with a vocabulary axis.

    Args:
        size: tokens of the checkpoint.
        keep_tokens: ids of the tokens to keep, in their new order; None: all.
        compound_tokens: new tokens, each a list of ids (after `keep_tokens`) or (ids, weights); a new row is the
            (weighted) mean of theirs.
        uncut_size: tokens before an earlier cut of the checkpoint; None: there was none.

    Attributes:
        size: tokens after the cut.
        uncut_size: tokens before it, or before the earlier one.

    Raises:
        ConfigError, WeightsError: ids that are none, twice the same, or outside the vocabulary; a second cut.
    """

    def __init__(
        self,
        size: int,
        keep_tokens: Sequence[int] | None,
        compound_tokens: Sequence[Any] | None,
        uncut_size: int | None = None,
    ) -> None:
        self.cuts = keep_tokens is not None or bool(compound_tokens)
        self.refuse_again(uncut_size)
        self.keep_tokens = None if keep_tokens is None else _checked_ids(keep_tokens, size)
        kept = size if self.keep_tokens is None else len(self.keep_tokens)
        self.compound_tokens = [_checked_compound(item, kept) for item in compound_tokens or ()]
        self.size = kept + len(self.compound_tokens)
        self.uncut_size = size if self.cuts else uncut_size

    def refuse_again(self, uncut_size: int | None) -> None:
        """Refuses to cut a checkpoint whose vocabulary was cut before, when it had `uncut_size` tokens."""
        if self.cuts and uncut_size is not None:
            raise ConfigError(
                f"keep_tokens, compound_tokens: the checkpoint was saved after such a cut, of {uncut_size} tokens; "
                "applied again, they would choose other ones. Leave them out. (For a further cut, give ids of the "
                "smaller vocabulary and uncut_vocab_size=None.)"
            )

    def moved(self, special: Mapping[str, Any], fixed: Collection[str] = ()) -> dict[str, Any]:
        """Ids of special tokens after the cut, by the config fields that name them; without those that are None.

        A field may name several, as a tuple.

        Raises:
            ConfigError: naming all that are not kept, or that are `fixed` and move.
        """
        named = {name: token for name, token in special.items() if token is not None}
        if self.keep_tokens is None:
            return named
        new = {old: index for index, old in enumerate(self.keep_tokens.tolist())}
        if lost := [f"{name} = {token}" for name, token in named.items() if not new.keys() >= {*ids_of(token)}]:
            raise ConfigError(
                f"keep_tokens leaves out ids that the config names: {', '.join(lost)}. Keep them, or say by keyword "
                "what takes their place: an id of the smaller vocabulary, or None."
            )
        if stuck := [f"{name} = {named[name]}" for name in fixed if name in named and new[named[name]] != named[name]]:
            raise ConfigError(f"keep_tokens moves {', '.join(stuck)}, which this family must have at that place.")
        moved = {name: tuple(new[id] for id in ids_of(token)) for name, token in named.items()}
        return {name: ids if isinstance(named[name], tuple) else ids[0] for name, ids in moved.items()}

    def apply(self, array: np.ndarray, axis: int) -> np.ndarray:
        if self.keep_tokens is not None:
            array = np.take(array, self.keep_tokens, axis=axis)
        if not self.compound_tokens:
            return array
        new = [
            np.average(np.take(array, ids, axis=axis).astype("float64"), axis=axis, weights=weights)
            for ids, weights in self.compound_tokens
        ]
        rows = [np.expand_dims(item, axis).astype(array.dtype) for item in new]
        return np.concatenate([array, *rows], axis=axis)


def _whole_numbers(ids: Any) -> list[int]:
    """The ids as a list; an empty one if there are none, or something else."""
    ids = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else []
    return [int(token) for token in ids] if all(map(is_whole, ids)) else []


def _checked_ids(given: Any, limit: int) -> np.ndarray:
    ids = _whole_numbers(given)
    if not ids:
        raise ConfigError(f"keep_tokens must be a list of token ids, found {shown(given)}.")
    if outside := [token for token in ids if not 0 <= token < limit]:
        raise WeightsError(
            f"keep_tokens asks for id {outside[0]}, but the checkpoint's vocabulary has {limit} tokens. If the "
            "checkpoint was saved after such a cut, leave keep_tokens out."
        )
    if len(set(ids)) < len(ids):
        raise ConfigError("keep_tokens names a token twice.")
    return np.array(ids, "int64")


def _checked_compound(item: Any, limit: int) -> tuple[list[int], list[float] | None]:
    pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], (list, tuple, np.ndarray))
    given, weights = item if pair else (item, None)
    ids = _whole_numbers(given)
    if not ids or not all(0 <= token < limit for token in ids):
        raise ConfigError(f"compound_tokens: {item!r} must name ids from 0 to {limit - 1} (those after keep_tokens).")
    if weights is not None:
        weights = list(weights) if isinstance(weights, Iterable) else []
        if len(weights) != len(ids) or not np.isfinite(weights).all() or not sum(weights):
            raise ConfigError(
                f"compound_tokens: {item!r} needs one weight for each id, finite and with a sum that is not 0."
            )
    return ids, weights


def is_whole(token: Any) -> bool:
    return isinstance(token, (int, np.integer)) and not isinstance(token, bool)
