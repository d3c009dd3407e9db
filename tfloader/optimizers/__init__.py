"""Optimizers: parts that extend any Keras optimizer, and two that Keras has not, or not right.

What Keras (3.13 to 3.15) has and tests/optimizers checks is used as it is: SGD, AdamW's formula, Lion, schedules, and
within one replica clipping. What differs is here, and each class says how Keras' own does.
"""

from __future__ import annotations

from tfloader.optimizers.accumulation import GradientAccumulation
from tfloader.optimizers.adafactor import AdaFactor
from tfloader.optimizers.adam import Adam
from tfloader.optimizers.averaging import EvaluateAverage, ExponentialMovingAverage, Lookahead
from tfloader.optimizers.decay import NORMS_AND_BIASES, WeightDecay
from tfloader.optimizers.extended import (
    extend,
    extend_with_exponential_moving_average,
    extend_with_exponential_moving_average_v2,
    extend_with_gradient_accumulation,
    extend_with_gradient_accumulation_v2,
    extend_with_layer_adaptation,
    extend_with_layer_adaptation_v2,
    extend_with_lazy_optimization,
    extend_with_lazy_optimization_v2,
    extend_with_lookahead,
    extend_with_lookahead_v2,
    extend_with_parameter_wise_lr,
    extend_with_parameter_wise_lr_v2,
    extend_with_piecewise_linear_lr,
    extend_with_piecewise_linear_lr_v2,
    extend_with_weight_decay,
    extend_with_weight_decay_v2,
)
from tfloader.optimizers.extension import Extension
from tfloader.optimizers.rates import (
    ParameterWiseLearningRate,
    PiecewiseLinear,
    PiecewiseLinearLearningRate,
    layer_wise_decay,
)
from tfloader.optimizers.updates import LayerAdaptation, LazyOptimization

__all__ = [
    "NORMS_AND_BIASES",
    "AdaFactor",
    "Adam",
    "EvaluateAverage",
    "ExponentialMovingAverage",
    "Extension",
    "GradientAccumulation",
    "LayerAdaptation",
    "LazyOptimization",
    "Lookahead",
    "ParameterWiseLearningRate",
    "PiecewiseLinear",
    "PiecewiseLinearLearningRate",
    "WeightDecay",
    "extend",
    "extend_with_exponential_moving_average",
    "extend_with_exponential_moving_average_v2",
    "extend_with_gradient_accumulation",
    "extend_with_gradient_accumulation_v2",
    "extend_with_layer_adaptation",
    "extend_with_layer_adaptation_v2",
    "extend_with_lazy_optimization",
    "extend_with_lazy_optimization_v2",
    "extend_with_lookahead",
    "extend_with_lookahead_v2",
    "extend_with_parameter_wise_lr",
    "extend_with_parameter_wise_lr_v2",
    "extend_with_piecewise_linear_lr",
    "extend_with_piecewise_linear_lr_v2",
    "extend_with_weight_decay",
    "extend_with_weight_decay_v2",
    "layer_wise_decay",
]
