"""Against exposure bias: in training, some of the decoder's input tokens are replaced by random ones.

A decoder trained on correct inputs alone does not recover from its first mistake. Strategy and rates: Su,
kexue.fm/archives/7259 (2020); his other remedy, a gradient penalty on the embeddings, is `GradientPenalty`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.optimizers.extension import check_number


class Replacement:
    """The checked arguments that the layer and the function share; see `RandomTokenReplacement`."""

    def __init__(self, rate: float, row_rate: float, vocab_size: int | None, special_ids: Collection[int]) -> None:
        check_number("Replacement of tokens", "rate", rate, most=1)
        check_number("Replacement of tokens", "row_rate", row_rate, most=1)
        self.rate, self.row_rate, self.vocab_size = float(rate), float(row_rate), vocab_size
        self.special_ids = sorted({int(token) for token in special_ids})
        self.vocabulary = None
        if vocab_size is not None:
            self.vocabulary = np.setdiff1d(np.arange(vocab_size, dtype="int32"), self.special_ids)
            if not self.vocabulary.size:
                raise TrainingError(f"vocab_size={vocab_size!r} leaves no token that is not in special_ids.")


@keras.saving.register_keras_serializable("tfloader")
class RandomTokenReplacement(keras.layers.Layer):
    """Replaces tokens of the target in training: token ids [batch, length] -> token ids.

        replaced = RandomTokenReplacement(special_ids=[0, 101, 102])(token_ids, segment_ids)
        outputs = model([replaced, segment_ids])  # labels are still those of token_ids

    Call arguments:
        token_ids: integers [batch, length].
        target: what is not 0 where a token belongs to the target: segment ids of a UniLM model (0 at padding), or a
            mask; None: all.

    Args:
        rate, row_rate: share of a row's tokens that is replaced, each by itself; share of the rows where any is.
        vocab_size: new tokens come evenly from the whole vocabulary; None: from the places of the row's own target.
        special_ids: ids that neither go nor come: padding, start, [CLS], [SEP], end.
        seed: of the draws.
    """

    @public
    def __init__(
        self,
        rate: float = 0.3,
        row_rate: float = 0.5,
        vocab_size: int | None = None,
        special_ids: Collection[int] = (),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.replacement = Replacement(rate, row_rate, vocab_size, special_ids)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, token_ids: Any, target: Any = None, training: bool = False) -> Any:
        if not training:
            return token_ids
        shape, rule, draw = ops.shape(token_ids), self.replacement, {"seed": self.seed_generator}
        free = ops.ones_like(token_ids, "bool") if target is None else ops.not_equal(target, 0)
        for token in rule.special_ids:
            free = ops.logical_and(free, ops.not_equal(token_ids, token))
        chosen = ops.logical_and(
            keras.random.uniform(shape, **draw) < rule.rate, keras.random.uniform((shape[0], 1), **draw) < rule.row_rate
        )
        if rule.vocabulary is None:
            places = keras.random.categorical(ops.where(free, 0.0, -1e9), shape[1], **draw)
            new = ops.take_along_axis(token_ids, ops.cast(places, "int32"), axis=1)
        else:
            new = ops.take(rule.vocabulary, keras.random.randint(shape, 0, len(rule.vocabulary), **draw))
        return ops.where(ops.logical_and(free, chosen), ops.cast(new, token_ids.dtype), token_ids)

    def get_config(self) -> dict[str, Any]:
        names = ("rate", "row_rate", "vocab_size", "special_ids")
        return {**super().get_config(), **{name: getattr(self.replacement, name) for name in names}, "seed": self.seed}


@public
def replace_random_tokens(
    token_ids: Any,
    target: Any = None,
    rate: float = 0.3,
    row_rate: float = 0.5,
    vocab_size: int | None = None,
    special_ids: Collection[int] = (),
    random: np.random.Generator | int | None = None,
) -> np.ndarray:
    """The same in NumPy, for data generators: a new array; arguments as for `RandomTokenReplacement`.

    Args:
        token_ids: integers [length] or [batch, length].
        random: a NumPy generator, or the seed of a new one.
    """
    rule, random = Replacement(rate, row_rate, vocab_size, special_ids), np.random.default_rng(random)
    tokens = np.array(token_ids)
    rows = tokens[None] if tokens.ndim == 1 else tokens
    free = ~np.isin(rows, rule.special_ids)
    if target is not None:
        free &= np.reshape(target, rows.shape) != 0
    chosen = free & (random.random(rows.shape) < rule.rate) & (random.random((len(rows), 1)) < rule.row_rate)
    for row, may, goes in zip(rows, free, chosen, strict=True):
        if goes.any():
            row[goes] = random.choice(row[may] if rule.vocabulary is None else rule.vocabulary, goes.sum())
    return tokens
