"""GlobalPointer: a score for every span of a sentence and every type, so that entities may nest.

Su, kexue.fm/archives/8373 (2021); the efficient form, archives/8877 (2022). Both: Su et al., arXiv 2208.03054.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.errors import ConfigError
from tfloader.layers.base import MaskReader, arguments, dense
from tfloader.layers.masking import keep_scores, padded
from tfloader.layers.rotary import rotate_by_position
from tfloader.optimizers.building import build_optimizer_around


class SpanScorer(MaskReader):
    """What both forms share: [batch, length, size] -> scores [batch, heads, start, end] in the compute dtype.

    A span with padding at either end, or (with `tril_mask`) an end before its start, scores `masking.MASKED`: below any
    threshold, and left out by `tfloader.losses.multilabel_categorical_crossentropy` and its sparse form, the losses to
    train with.

    Args:
        heads: number of span types.
        head_size: width of a start's query and an end's key; even with RoPE.
        RoPE: turn queries and keys by their positions, so that scores know distances.
        use_bias: whether the dense layers have one.
        tril_mask: rule out spans that end before they start.
    """

    @public
    def __init__(
        self,
        heads: int,
        head_size: int,
        RoPE: bool = True,  # noqa: N803 - bert4keras' name
        use_bias: bool = True,
        tril_mask: bool = True,
        kernel_initializer: Any = "lecun_normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if RoPE and head_size % 2:
            raise ConfigError(f"head_size is {head_size}; with RoPE it must be even.")
        self.heads = heads
        self.head_size = head_size
        self.RoPE = RoPE
        self.use_bias = use_bias
        self.tril_mask = tril_mask
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def products(self, query: Any, key: Any) -> Any:
        """query . key / sqrt(head_size) of [batch, length, heads, head_size] each -> [batch, heads, start, end]."""
        if self.RoPE:
            query, key = rotate_by_position(query), rotate_by_position(key)
        return ops.einsum("bshd,behd->bhse", query / math.sqrt(self.head_size), key)

    def masked(self, scores: Any, mask: Any) -> Any:
        """The scores with the spans that cannot be ruled out."""
        build_optimizer_around(self)
        position = ops.arange(ops.shape(scores)[-1])
        allowed = position[None, :] >= position[:, None] if self.tril_mask else ops.ones_like(position, "bool")
        if mask is not None:
            mask = ops.cast(mask, "bool")
            allowed = ops.logical_and(allowed, (mask[:, None, :] & mask[:, :, None])[:, None])
        return keep_scores(scores, allowed)

    def compute_output_shape(self, x_shape: Any) -> Any:
        return (x_shape[0], self.heads, x_shape[1], x_shape[1])

    def get_config(self) -> dict[str, Any]:
        names = ("heads", "head_size", "RoPE", "use_bias", "tril_mask", "kernel_initializer")
        return {**super().get_config(), **arguments(self, *names)}


@keras.saving.register_keras_serializable("tfloader")
class GlobalPointer(SpanScorer):
    """Each type has queries and keys of its own; see `SpanScorer` for arguments and result."""

    def build(self, x_shape: Any) -> None:
        self.qk_dense = dense(self, "dense", self.heads * self.head_size * 2)
        self.qk_dense.build(x_shape)

    def call(self, x: Any, mask: Any = None) -> Any:
        shape = ops.shape(x)
        qk = ops.reshape(self.qk_dense(x), (shape[0], shape[1], self.heads, 2 * self.head_size))
        return self.masked(self.products(qk[..., : self.head_size], qk[..., self.head_size :]), mask)


@keras.saving.register_keras_serializable("tfloader")
class EfficientGlobalPointer(SpanScorer):
    """One query and key for all types find spans, and two numbers a type and position tell their type.

    About `head_size` times fewer weights a type than `GlobalPointer`; see `SpanScorer` for arguments and result.
    """

    def build(self, x_shape: Any) -> None:
        self.p_dense = dense(self, "p_dense", 2 * self.head_size)
        self.q_dense = dense(self, "q_dense", 2 * self.heads)
        self.p_dense.build(x_shape)
        self.q_dense.build((*x_shape[:-1], 2 * self.head_size))

    def call(self, x: Any, mask: Any = None) -> Any:
        qk = self.p_dense(x)
        spans = self.products(qk[:, :, None, 0::2], qk[:, :, None, 1::2])
        of_type = ops.transpose(self.q_dense(qk), (0, 2, 1)) / 2
        return self.masked(spans + of_type[:, 0::2, None, :] + of_type[:, 1::2, :, None], mask)


@public
def pointer_spans(scores: Any, threshold: float = 0.0) -> list:
    """The spans whose score is above the threshold, as (type, start, end) with the end included.

    Args:
        scores: [heads, start, end] -> a list of spans, or [batch, heads, start, end] -> such a list for each row; also
            ragged, as `predict` gives them for batches of different lengths.
        threshold: 0 is what the multilabel crossentropies train for.
    """
    scores = ops.convert_to_numpy(padded(scores))
    if scores.ndim == 4:
        return [pointer_spans(row, threshold) for row in scores]
    if scores.ndim != 3:
        raise ConfigError(f"scores have shape {scores.shape}; expected [heads, start, end], or that with a batch.")
    return [tuple(span) for span in np.argwhere(scores > threshold).tolist()]
