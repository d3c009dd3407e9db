"""The parts that need no TensorFlow, compiled by Keras' JAX backend, against NumPy; see tests/test_jax.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests import test_jax

pytestmark = test_jax.pytestmark

PROBE = """
import sys
import jax, keras, numpy as np
assert keras.backend.backend() == "jax", keras.backend.backend()
from tests.optimizers import reference
from tfloader import optimizers
from tfloader.errors import TrainingError

made = optimizers.extend(
    optimizers.Adam, optimizers.PiecewiseLinearLearningRate, optimizers.ExponentialMovingAverage,
    optimizers.ParameterWiseLearningRate, optimizers.WeightDecay, optimizers.LayerAdaptation,
    optimizers.LazyOptimization,
)
optimizer = made(
    reference.RATE, lr_schedule={2: 1, 6: 0.5}, ema_momentum=0.75, paramwise_lr_schedule={"kernel": 2, "table": 0.5},
    weight_decay_rate=0.125, exclude_from_layer_adaptation=["table"], include_in_lazy_optimization=["table"],
    global_clipnorm=0.5,
)
variables = reference.variables(reference.starts(), "float32")
optimizer.build(variables)
weights, state = [v.value for v in variables], [v.value for v in optimizer.variables]
step, history = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2)), []
for batch in reference.gradients():
    gradients = [np.asarray(batch[v.path], "float32") for v in variables]
    weights, state = step(state, gradients, weights)
    history.append({v.path: np.asarray(w) for v, w in zip(variables, weights)})
expected, averages = reference.Reference(
    reference.Adam(1e-6, keras=False), decay=0.125, undecayed=("dense/bias",), adapted=("dense/kernel", "dense/bias"),
    lazy=("table/embeddings",), schedule={2: 1.0, 6: 0.5}, average=0.75, global_clipnorm=0.5,
    multipliers={"dense/kernel": 2.0, "table/embeddings": 0.5},
).run(reference.starts(), reference.gradients())
for variable, value in zip((*variables, *optimizer.variables), (*weights, *state)):
    variable.assign(value)
with optimizer.ema_weights():
    inside = {v.path: np.asarray(v) for v in variables}
refused = 0
for part in (optimizers.GradientAccumulation, optimizers.Lookahead):
    try:
        optimizers.extend(optimizers.Adam, part)()
    except TrainingError:
        refused += 1
print([reference.largest_error(history, expected), reference.largest_error([inside], [averages]), refused])
"""


def test_parts_train_under_jax_as_in_numpy():
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run(
        [test_jax.PYTHON, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    error, of_average, refused = json.loads(done.stdout.splitlines()[-1])
    assert error < 1e-6 and of_average < 1e-6 and refused == 2
