"""Which tokens a model's result depends on: gradients with respect to their embeddings. `pictures.py` draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.selection import layer_named


@public
def saliency(
    model: keras.Model,
    inputs: Any,
    target: int | Sequence[int] | Callable[[Any], Any] | None = None,
    layer: str | keras.layers.Layer = "Embedding-Token",
    method: str = "gradient_x_input",
    steps: int = 50,
    baseline: Any = 0.0,
    occurrence: int = 0,
) -> np.ndarray:
    """How much each token raises a result of the model, or (negative) lowers it: [batch, length] float32.

    "gradient_x_input" is the gradient of the result with respect to a token's embedding, times that embedding.
    "integrated_gradients" (Sundararajan et al., 2017, arXiv:1703.01365) averages the gradient over the line from a
    baseline, so that the numbers of a row sum to its result(inputs) - result(baseline). Dropout is off.

    Args:
        model: any Keras model on TensorFlow that looks tokens up in an embedding layer.
        inputs: a batch, as the model takes it.
        target: the result, one number a row: None, the largest output; an integer, or one a row: the output of that
            class; or a function from the outputs to [batch], such as `lambda logits: logits[:, -1, 42]`.
        layer: the embedding layer, whose output is [batch, length, size], or its name (see `tfloader.selection`).
        steps: points on the line (Gauss-Legendre); 50 give the sum to several digits.
        baseline: the embeddings of nothing; broadcast against [batch, length, size].
        occurrence: which call of the layer, where the model calls it more than once: T5's source is 0, its target 1.

    Raises:
        TrainingError: no such layer (with near names), an output that needs a function as target, no gradient.
    """
    inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
    embedding = layer_named(model, layer)
    if target is None:  # the class must stay the same along the line
        target = np.argmax(_as_rows(model(inputs, training=False)), axis=-1)

    def gradient_times_difference(share: float) -> Any:
        """The gradient at a share of the line from the baseline to the embeddings, times their difference."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def move(x):
                moved = baseline + share * (x - baseline)
                tape.watch(moved)
                return moved

            with tapped(embedding, occurrence, move) as calls:
                result = _result(model(inputs, training=False), target)
        if len(calls) <= occurrence:
            raise TrainingError(
                f"The model called the layer {layer!r} {len(calls)} times, so there is no occurrence={occurrence}. "
                "(Quantised layers cannot be watched.)"
            )
        x, moved = calls[occurrence]
        gradient = tape.gradient(result, moved)
        if gradient is None:
            raise TrainingError(f"The result has no gradient with respect to the output of the layer {layer!r}.")
        return tf.cast(tf.convert_to_tensor(gradient), "float32") * tf.cast(x - baseline, "float32")

    if method == "gradient_x_input":
        points = [(1.0, 1.0)]
    elif method == "integrated_gradients":
        shares, weights = np.polynomial.legendre.leggauss(steps)
        points = zip((shares + 1) / 2, weights / 2, strict=True)
    else:
        raise TrainingError(f"method must be 'gradient_x_input' or 'integrated_gradients', found {method!r}.")
    return tf.reduce_sum(sum(weight * gradient_times_difference(share) for share, weight in points), axis=-1).numpy()


@contextmanager
def tapped(layer: keras.layers.Layer, occurrence: int, move: Callable[[Any], Any]) -> Iterator[list[tuple[Any, Any]]]:
    """While the model runs, replaces the output x of one call of a layer by move(x).

    Yields a list that gets (own output, what replaces it) for each call.
    """
    plain, calls = layer.call, []
    moving = keras.layers.Lambda(move, mask=lambda _, mask: mask, autocast=False)  # a layer hands the mask on

    def call(*args, **kwargs):
        x = plain(*args, **kwargs)
        moved = moving(x) if len(calls) == occurrence else x
        calls.append((x, moved))
        return moved

    layer.call = call
    try:
        yield calls
    finally:
        del layer.call


def _result(outputs: Any, target: Any) -> Any:
    """One number a row."""
    if not callable(target):
        rows = _as_rows(outputs)
        target = np.broadcast_to(np.asarray(target), (len(rows),))
        if target.min() < 0 or target.max() >= rows.shape[1]:
            raise TrainingError(f"target must be from 0 to {rows.shape[1] - 1}, found {target.tolist()}.")
        return tf.gather(rows, target, axis=1, batch_dims=1)
    result = tf.convert_to_tensor(target(outputs))
    if len(result.shape) != 1:
        raise TrainingError(f"The target function must give one number a row, [batch]; it gave {tuple(result.shape)}.")
    return result


def _as_rows(outputs: Any) -> Any:
    """[batch, classes] from the outputs of a classifier."""
    shapes = keras.tree.map_structure(lambda item: tuple(item.shape), outputs)
    if isinstance(outputs, (list, tuple, dict)) or not 1 <= len(outputs.shape) <= 2:
        raise TrainingError(
            f"The model's output has the shape {shapes}, not [batch, classes]. Pass as target a function from it to "
            "one number a row, such as lambda logits: logits[:, -1, 42]."
        )
    return outputs if len(outputs.shape) == 2 else outputs[:, None]
