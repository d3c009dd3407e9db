"""Random draws in which no row depends on another: each sequence has a stream of its own, SplitMix64's.

Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014. A stream is a state, uint64, from which the
graph computes the number of any step at once.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import tensorflow as tf

from tfloader.generation.options import GenerationOptions


def streams(tokens: np.ndarray, real: np.ndarray, options: GenerationOptions) -> np.ndarray:
    """uint64 [prompts * num_return_sequences], decided by seed, prompt, and number among the prompt's sequences."""
    seeds = options.seed if isinstance(options.seed, tuple) else [options.seed] * len(tokens)
    found = []
    for seed, prompt, present in zip(seeds, tokens, real, strict=True):
        entropy = secrets.randbits(128) if seed is None else [seed, *prompt[present].tolist()]
        found.append(np.random.SeedSequence(entropy).generate_state(options.num_return_sequences, np.uint64))
    return np.concatenate(found)


def uniform(streams: Any, step: Any) -> Any:
    """float64 [rows] in (0, 1]: each stream's number at this step."""
    mixed = streams + tf.cast(step + 1, tf.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = _folded(mixed, 30) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = _folded(mixed, 27) * np.uint64(0x94D049BB133111EB)
    high = tf.bitwise.right_shift(_folded(mixed, 31), np.uint64(11))
    return (tf.cast(tf.cast(high, tf.int64), tf.float64) + 1.0) * 2.0**-53


def draw(logits: Any, numbers: Any) -> Any:
    """Draws a token from each row of logits [rows, vocab] by inversion, given numbers in (0, 1]: int32 [rows]."""
    # In double precision: single loses the mass of rare tokens in the sum of fifty thousand.
    mass = tf.cumsum(tf.nn.softmax(tf.cast(logits, tf.float64)), axis=1)
    chosen = tf.searchsorted(mass, numbers[:, None] * mass[:, -1:])[:, 0]
    return tf.minimum(chosen, tf.shape(logits)[1] - 1)  # NaN lies nowhere


def _folded(x: Any, by: int) -> Any:
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, np.uint64(by)))
