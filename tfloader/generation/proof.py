"""A model with classes from outside of tfloader is shown to generate what it computes, or is refused.

What mixes positions elsewhere than in attention, such as a convolution in a block, cannot be read a token at a time:
no cache holds what it needs. So the logits of a few random texts, padded and shared by rows as in generation, are
compared with the model's own: short ones, and ones that fill the model's positions, because a window or a dilation
shows only in texts that are longer than it. tfloader's classes are not asked: its tests show it of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType, MethodType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.generation.cache import begin
from tfloader.generation.reading import Prompts
from tfloader.models.transformer import Transformer

SHORT, STEPS = (3, 1), 2
# Tokens of the longest text, and where positions are unlimited.
LONGEST, UNLIMITED = 2048, 512
# Share of the logits' range by which they may differ.
TOLERANCE = {"float32": 2e-4, "float64": 2e-4, "bfloat16": 0.1, "float16": 0.02}


def prove(reader: Prompts, transformer: Transformer) -> None:
    """
    Raises:
        ConfigError: a class from outside, where a step gives other logits than the model, or fails.
    """
    foreign = from_outside(transformer)
    if not foreign:
        return
    who = f"{', '.join(foreign)}: this {transformer.config.family!r} model"
    model: Any = transformer.model  # it was built
    try:
        with keras.StatelessScope(state_mapping=varied(model.variables, np.random.default_rng(0))):
            difference = largest_difference(reader, transformer)
    except Exception as error:
        raise ConfigError(f"{who} cannot be read a token at a time, with a cache: {error}") from error
    if not difference <= TOLERANCE[reader.dtype]:
        raise ConfigError(
            f"{who} cannot generate with a cache: read a token at a time, its logits differ by {difference:.1%} of "
            "their range from those of whole texts. What mixes positions elsewhere than in attention (a convolution in "
            "a block, say) needs the whole text each time: AutoRegressiveDecoder takes any model."
        )


def from_outside(transformer: Transformer) -> list[str]:
    """The names of what is not tfloader's or Keras': classes of family and layers, and functions put on ours."""
    layers = transformer.layers.values()
    classes = list(dict.fromkeys((*type(transformer).__mro__, *map(type, layers))))
    functions = [
        (f"{getattr(item, '__name__', type(item).__name__)}.{name}", value)
        for item in (*filter(is_ours, classes), transformer, *layers)
        for name, value in vars(item).items()
        if isinstance(value, FunctionType | MethodType)
    ]
    named = [*((kind.__name__, kind) for kind in classes), *functions]
    return list(dict.fromkeys(name for name, item in named if not is_ours(item)))


def is_ours(item: Any) -> bool:
    return (item.__module__ or "").split(".")[0] in ("tfloader", "keras", "tensorflow", "builtins")


def varied(variables: list[Any], random: np.random.Generator) -> list[tuple[Any, Any]]:
    """Values for variables that are all zeros or ones, behind which what is not trained yet would hide."""
    floating = [item for item in variables if tf.as_dtype(item.dtype).is_floating]
    constant = [item for item in floating if tf.reduce_min(item) == tf.reduce_max(item)]
    return [(item, tf.cast(item + random.normal(0, 0.05, item.shape), item.dtype)) for item in constant]


def largest_difference(reader: Prompts, transformer: Transformer) -> float:
    """Of logits (or probabilities, where the model gives these) of all steps, as a share of their range."""
    most = max(min(transformer.config.max_position_embeddings or UNLIMITED, LONGEST) - STEPS, 1)
    short = tuple(min(length, most) for length in SHORT)
    steps = range(STEPS + 1)
    cases = ((short, 1, steps), (short, 2, steps), ((most, (most + 1) // 2), 1, steps[STEPS:]))
    return float(np.max([difference(reader, transformer, *case) for case in cases]))


def difference(reader: Prompts, transformer: Transformer, lengths: Sequence[int], copies: int, steps: range) -> float:
    """The same for prompts of these lengths, each continued by `copies` rows, after so many steps."""
    random, config = np.random.default_rng(0), transformer.config
    ids = np.setdiff1d(np.arange(config.vocab_size), [-1 if config.pad_token_id is None else config.pad_token_id])
    prompts = [random.choice(ids, length).astype("int32") for length in lengths]
    new = random.choice(ids, (copies * len(prompts), STEPS)).astype("int32")
    found = with_cache(reader, prompts, new, copies)[:, list(steps)]
    expected = np.stack([own(transformer, prompts[row // copies], ids, steps) for row, ids in enumerate(new)])
    if expected.min() >= 0 and np.allclose(expected.sum(axis=-1), 1, atol=1e-2):
        found = tf.nn.softmax(found).numpy()
    return np.abs(found - expected).max() / max(np.ptp(expected), 1e-30)


def with_cache(reader: Prompts, prompts: list[np.ndarray], new: np.ndarray, copies: int) -> np.ndarray:
    """Logits [rows, STEPS + 1, vocab] of the tokens behind prompts and behind new ones."""
    longest = max(map(len, prompts))
    tokens = tf.constant([np.pad(row, (longest - len(row), 0)) for row in prompts], tf.int32)
    real = tf.constant([np.arange(longest) >= longest - len(row) for row in prompts])
    read = reader.prefill(tokens, real)
    # With free slots as in generation, so that what counts slots in place of tokens shows.
    prompt, cache = begin(read.prompt, copies, reader.shares_prompts)
    shared = copies if reader.shares_prompts else 1
    prompt, position = reader.prepared(prompt, shared), tf.repeat(read.position, copies)
    found = [tf.repeat(read.logits, copies, axis=0)]
    for step in range(STEPS):
        logits, _, cache = reader.step(tf.constant(new[:, step : step + 1]), position + step, prompt, cache, shared)
        found.append(logits)
    return np.stack(found, axis=1)


def own(transformer: Any, prompt: np.ndarray, new: np.ndarray, steps: range) -> np.ndarray:
    """What the model itself gives for the token behind the prompt and so many of the new ones, [steps, vocab].

    The whole text is read once: what a token reads of later ones, which a cache cannot hold, is a difference too.
    """
    text = np.concatenate([prompt, new])
    values = {
        "Input-Token": text,
        "Input-Segment": (np.arange(len(text)) >= len(prompt)) & (transformer.config.application == "unilm"),
        "Input-Position": np.arange(len(text)),
        "Input-Mask": np.ones(len(text)),
        "Encoder-Input-Token": prompt,
        "Encoder-Input-Mask": np.ones(len(prompt)),
    }
    if transformer.answers_sources:
        values["Decoder-Input-Token"] = np.concatenate([[transformer.start_token_id], new])
    names = [item.name.removeprefix(transformer.prefix) for item in transformer.model.inputs]
    unknown = [name for name in names if name not in values]
    if unknown:
        raise ConfigError(f"it has inputs of its own ({', '.join(unknown)}), which prompts do not fill.")
    inputs = [tf.constant(values[name][None].astype("int32")) for name in names]
    outputs = keras.tree.flatten(transformer.model(inputs if len(inputs) > 1 else inputs[0], training=False))
    scores = [output for output in outputs if output.shape[-1] == transformer.config.vocab_size]
    return tf.cast(scores[-1][0, -1 - len(new) :], tf.float32).numpy()[list(steps)]
