"""Keras layers of tfloader's models, in `keras.ops`, registered under the package name "tfloader"."""

from __future__ import annotations

from tfloader.layers.attention import AttentionMask, MultiHeadAttention
from tfloader.layers.embeddings import PositionEmbedding, RelativePositionBias, TokenEmbedding
from tfloader.layers.feed_forward import FeedForward
from tfloader.layers.heads import Add, Bias, FirstToken, Scale
from tfloader.layers.initializers import TruncatedNormal
from tfloader.layers.normalization import ConditionalLayerNormalization, ConditionalRMSNormalization, RMSNormalization

__all__ = [
    "Add",
    "AttentionMask",
    "Bias",
    "ConditionalLayerNormalization",
    "ConditionalRMSNormalization",
    "FeedForward",
    "FirstToken",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RMSNormalization",
    "RelativePositionBias",
    "Scale",
    "TokenEmbedding",
    "TruncatedNormal",
]
