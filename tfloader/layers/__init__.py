"""Keras layers of tfloader's models, in `keras.ops`, registered under the package name "tfloader"."""

from __future__ import annotations

from tfloader.layers.attention import AttentionMask, MultiHeadAttention
from tfloader.layers.crf import ConditionalRandomField
from tfloader.layers.embeddings import (
    PositionEmbedding,
    PositionRows,
    RelativePositionBias,
    SegmentEmbedding,
    TokenEmbedding,
    Zeros,
)
from tfloader.layers.feed_forward import FeedForward
from tfloader.layers.gated_attention import GatedAttentionUnit
from tfloader.layers.heads import Add, Bias, FirstToken, LastToken, Scale
from tfloader.layers.initializers import TruncatedNormal
from tfloader.layers.memm import MaximumEntropyMarkovModel
from tfloader.layers.normalization import (
    ConditionalLayerNormalization,
    ConditionalRMSNormalization,
    PlainRMSNormalization,
    RMSNormalization,
)
from tfloader.layers.pointers import EfficientGlobalPointer, GlobalPointer, pointer_spans
from tfloader.layers.relative import RelativeAttention
from tfloader.layers.rotary import RotaryAttention, SinusoidalPosition
from tfloader.layers.viterbi import ViterbiDecoder, tag_constraints, viterbi_decode

__all__ = [
    "Add",
    "AttentionMask",
    "Bias",
    "ConditionalLayerNormalization",
    "ConditionalRMSNormalization",
    "ConditionalRandomField",
    "EfficientGlobalPointer",
    "FeedForward",
    "FirstToken",
    "GatedAttentionUnit",
    "GlobalPointer",
    "LastToken",
    "MaximumEntropyMarkovModel",
    "MultiHeadAttention",
    "PlainRMSNormalization",
    "PositionEmbedding",
    "PositionRows",
    "RMSNormalization",
    "RelativeAttention",
    "RelativePositionBias",
    "RotaryAttention",
    "Scale",
    "SegmentEmbedding",
    "SinusoidalPosition",
    "TokenEmbedding",
    "TruncatedNormal",
    "ViterbiDecoder",
    "Zeros",
    "pointer_spans",
    "tag_constraints",
    "viterbi_decode",
]
