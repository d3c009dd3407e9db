"""Losses in `keras.ops`: functions of (y_true, y_pred), Keras losses with options, and losses that are layers.

Scores come without activation. All compute in float32 in any precision, and stay finite where scores are masked.
"""

from __future__ import annotations

from tfloader.losses.crossentropy import (
    MultilabelCategoricalCrossentropy,
    SmoothedSparseCategoricalCrossentropy,
    SparseMultilabelCategoricalCrossentropy,
    multilabel_categorical_crossentropy,
    smoothed_sparse_categorical_crossentropy,
    sparse_multilabel_categorical_crossentropy,
)
from tfloader.losses.layer import Loss
from tfloader.losses.margin import AMSoftmax, ArcFace, CosineDense, NormalizedSoftmax, margin_softmax
from tfloader.losses.pairs import CoSENT, RDrop, SimCSE, cosent, simcse, symmetric_divergence
from tfloader.losses.sampled import NoiseContrastiveEstimation, SampledSoftmax

__all__ = [
    "AMSoftmax",
    "ArcFace",
    "CoSENT",
    "CosineDense",
    "Loss",
    "MultilabelCategoricalCrossentropy",
    "NoiseContrastiveEstimation",
    "NormalizedSoftmax",
    "RDrop",
    "SampledSoftmax",
    "SimCSE",
    "SmoothedSparseCategoricalCrossentropy",
    "SparseMultilabelCategoricalCrossentropy",
    "cosent",
    "margin_softmax",
    "multilabel_categorical_crossentropy",
    "simcse",
    "smoothed_sparse_categorical_crossentropy",
    "sparse_multilabel_categorical_crossentropy",
    "symmetric_divergence",
]
