"""`extend`: an optimizer class with further parts, and bert4keras' names for it.

    from tfloader.optimizers import extend_with_lookahead, extend_with_parameter_wise_lr

    Optimizer = extend_with_lookahead(extend_with_parameter_wise_lr(keras.optimizers.AdamW))
    optimizer = Optimizer(2e-5, weight_decay=0.01, paramwise_lr_schedule={"head": 10}, steps_per_slow_update=5)

The order of the calls does not matter: the parts always stand in the order of EXTENSIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfloader.border import public
from tfloader.errors import TrainingError, listing
from tfloader.optimizers.accumulation import GradientAccumulation
from tfloader.optimizers.averaging import ExponentialMovingAverage, Lookahead
from tfloader.optimizers.decay import OwnDecay, WeightDecay
from tfloader.optimizers.extension import Extension
from tfloader.optimizers.rates import ParameterWiseLearningRate, PiecewiseLinearLearningRate
from tfloader.optimizers.updates import LayerAdaptation, LazyOptimization

# From the outermost to the one next to Keras' optimizer.
EXTENSIONS = (
    GradientAccumulation,
    PiecewiseLinearLearningRate,
    ExponentialMovingAverage,
    Lookahead,
    ParameterWiseLearningRate,
    WeightDecay,
    LayerAdaptation,
    LazyOptimization,
)
# Optimizers of Keras, the parts that they cannot have, and why.
REFUSED = {
    "LossScaleOptimizer": (Extension, "wraps an optimizer: extend the class of the optimizer inside"),
    "MultiOptimizer": (Extension, "has no update of its own: extend the classes of the optimizers inside"),
    "Muon": (OwnDecay, "decays its matrices and its other weights at two rates, by code of its own"),
    "Ftrl": (
        (LayerAdaptation, Lookahead, ParameterWiseLearningRate),
        "computes weights from its state, which a change of theirs does not reach",
    ),
    "ScheduleFreeAdamW": (
        (LayerAdaptation, Lookahead),
        "keeps weights in its state, which a change of theirs does not reach",
    ),
    "Adafactor": (
        ParameterWiseLearningRate,
        "bounds the learning rate by 1/sqrt(step) after any multiplier: use tfloader.optimizers.AdaFactor",
    ),
}


class Extended(Extension):
    """The last part of every class that `extend` makes: saves which parts it was made of.

    All these classes are saved under one name, so that `import tfloader.optimizers` is enough to read them.
    """

    base: type[keras.optimizers.Optimizer]
    parts: tuple[type[Extension], ...] = ()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "optimizer": keras.saving.get_registered_name(self.base),
            "extensions": [part.__name__ for part in self.parts],
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
        config = dict(config)
        name, parts = config.pop("optimizer"), set(config.pop("extensions"))
        base = keras.saving.get_registered_object(name, custom_objects) or getattr(keras.optimizers, name, None)
        if base is None:
            raise TrainingError(
                f"The optimizer class {name!r} is not known. Import the module that registers it with "
                "keras.saving.register_keras_serializable, or give it as custom_objects."
            )
        of_a_user = cls is not Extended and "base" not in vars(cls)  # a subclass that somebody registered
        made: Any = cls if of_a_user else extend(base, *(part for part in EXTENSIONS if part.__name__ in parts))
        return super(Extended, made).from_config(config, custom_objects)


_register = keras.saving.register_keras_serializable("tfloader", "ExtendedOptimizer")
_register(Extended)


def extend(
    optimizer: type[keras.optimizers.Optimizer], *parts: type[Extension], name: str | None = None
) -> type[keras.optimizers.Optimizer]:
    """An optimizer class that also has these parts, and takes their arguments as keywords.

    Without parts it is the class with whole gradients (see `WholeGradients`).

    Args:
        optimizer: a class of Keras, of tfloader, of yours, or one that `extend` made.
        parts: some of EXTENSIONS.

    Raises:
        TrainingError: for what is no optimizer class, a part that it has already, or one that it cannot have.
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, keras.optimizers.Optimizer)):
        raise TrainingError(f"Only a class of optimizers can be extended, found {optimizer!r}.")
    base, present = (optimizer.base, optimizer.parts) if issubclass(optimizer, Extended) else (optimizer, ())
    problems = [f"{part.__name__} is there already" for part in parts if part in present or parts.count(part) > 1]
    problems += [
        f"{theirs} cannot have {part.__name__}: it {reason}"
        for theirs, (refused, reason) in REFUSED.items()
        for part in (*parts, Extension)
        if issubclass(base, getattr(keras.optimizers, theirs, ())) and issubclass(part, refused)
    ]
    if problems:
        raise TrainingError(f"{optimizer.__name__} cannot be extended so:\n{listing(dict.fromkeys(problems))}")
    ordered = tuple(part for part in EXTENSIONS if part in (*present, *parts))
    name = name or "".join(part.__name__ for part in ordered) + base.__name__
    doc = f"{base.__name__} with {', '.join(part.__name__ for part in ordered) or 'whole gradients'}; made by `extend`."
    return _register(
        type(name, (*ordered, Extended, base), {"base": base, "parts": ordered, "__module__": __name__, "__doc__": doc})
    )


def _extender(part: type[Extension]) -> Callable[..., type[keras.optimizers.Optimizer]]:
    def extend_with(
        BaseOptimizer: type[keras.optimizers.Optimizer],  # noqa: N803
        name: str | None = None,
    ) -> type[keras.optimizers.Optimizer]:
        return extend(BaseOptimizer, part, name=name)

    extend_with.__doc__ = f"bert4keras' name for `extend(BaseOptimizer, {part.__name__}, name=name)`.\n\n{part.__doc__}"
    return public(extend_with)


# bert4keras also had each under a name for TensorFlow's own Keras.
extend_with_gradient_accumulation = extend_with_gradient_accumulation_v2 = _extender(GradientAccumulation)
extend_with_piecewise_linear_lr = extend_with_piecewise_linear_lr_v2 = _extender(PiecewiseLinearLearningRate)
extend_with_exponential_moving_average = extend_with_exponential_moving_average_v2 = _extender(ExponentialMovingAverage)
extend_with_lookahead = extend_with_lookahead_v2 = _extender(Lookahead)
extend_with_parameter_wise_lr = extend_with_parameter_wise_lr_v2 = _extender(ParameterWiseLearningRate)
extend_with_weight_decay = extend_with_weight_decay_v2 = _extender(WeightDecay)
extend_with_layer_adaptation = extend_with_layer_adaptation_v2 = _extender(LayerAdaptation)
extend_with_lazy_optimization = extend_with_lazy_optimization_v2 = _extender(LazyOptimization)
