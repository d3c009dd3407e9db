"""Constraints on the text so far: only these tokens may come next.

A user's function is called from inside the graph; a `Trie` is walked by the graph itself. Both travel as tensors, so
that another function or other phrases compile nothing.
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import tensorflow as tf

from tfloader.errors import ConfigError
from tfloader.generation.options import GenerationOptions
from tfloader.generation.trie import SHIFT, Trie

# The functions of running generations, by the number that the graph has in their place, and what went wrong in them.
CALLS: WeakValueDictionary[int, GenerationOptions] = WeakValueDictionary()
FAILURES: dict[int, Exception] = {}


def numbers(options: GenerationOptions) -> dict[str, Any]:
    """What the graph needs of `prefix_allowed_tokens_fn`."""
    allowed = options.prefix_allowed_tokens_fn
    if isinstance(allowed, Trie):
        return {"trie_edges": allowed.edges, "trie_ends": allowed.ends, "trie_groups": np.int64(allowed.groups)}
    CALLS[id(options)] = options
    FAILURES.pop(id(options), None)  # of an earlier object with this id
    return {"prefix_allowed_tokens_fn": np.int64(id(options))}


def constrain(logits: Any, context: Any, numbers: dict[str, Any], rows_per_prompt: int, beams: int) -> Any:
    """Rules out all tokens but the allowed ones.

    Where other processors have ruled out all the allowed tokens of a prompt's `beams` rows, the constraint wins.
    """
    if "trie_edges" in numbers:
        places = continuations(context, numbers, rows_per_prompt)
    else:
        arguments = (numbers["prefix_allowed_tokens_fn"], context.tokens, context.real, tf.shape(logits)[1])
        places = tf.numpy_function(_ask, arguments, tf.int64)
        places.set_shape([None, 2])
    values = tf.gather_nd(logits, places)
    group, groups = places[:, 0] // beams, tf.shape(logits, tf.int64)[0] // beams
    best = tf.math.unsorted_segment_max(values, group, groups)
    # A maximum over segments is never less than the least finite number.
    values = tf.where(tf.gather(best, group) <= values.dtype.min, 0.0, values)
    return tf.tensor_scatter_nd_update(tf.fill(tf.shape(logits), -math.inf), places, values)


def continuations(context: Any, numbers: dict[str, Any], rows_per_prompt: int) -> Any:
    """[n, 2] rows and tokens that continue the phrases which the rows' new tokens begin."""
    edges, ends, groups = numbers["trie_edges"], numbers["trie_ends"], numbers["trie_groups"]
    rows, length = tf.unstack(tf.shape(context.tokens))
    tokens = tf.cast(context.tokens[:, length - context.generated :], tf.int64)
    prompt = tf.range(tf.cast(rows, tf.int64)) // rows_per_prompt
    root = tf.where(groups > 1, prompt, 0)

    def follow(step: Any, node: Any) -> tuple[Any, Any]:
        edge = tf.bitwise.left_shift(node, SHIFT) + tokens[:, step]
        at = tf.minimum(tf.searchsorted(edges, edge, out_type=tf.int64), tf.size(edges, tf.int64) - 1)
        return step + 1, tf.where(tf.gather(edges, at) == edge, at + groups, -1)

    def more(step: Any, node: Any) -> Any:
        return (step < context.generated) & tf.reduce_any(node >= 0)

    node = tf.while_loop(more, follow, (0, root))[1]
    # -1, off the tree, has no edges.
    first, last = (tf.searchsorted(edges, tf.bitwise.left_shift(n, SHIFT), out_type=tf.int64) for n in (node, node + 1))
    within = tf.ragged.range(first, last)
    inner = tf.gather(edges, within.values) & (2**SHIFT - 1)
    inner = tf.stack([within.value_rowids(), inner], axis=1)
    stops = tf.cast(numbers["eos_token_id"], tf.int64)
    done = tf.where(tf.gather(ends, tf.maximum(node, 0)) & (node >= 0))[:, 0]
    outer = tf.stack([tf.repeat(done, tf.size(stops)), tf.tile(stops, [tf.size(done)])], axis=1)
    return tf.concat([inner, outer], axis=0)


def _ask(handle: Any, tokens: Any, real: Any, vocab: Any) -> Any:
    """[n, 2] rows and tokens that the user's function allows; what it raises is kept for the caller of generation."""
    try:
        return _answers(CALLS[int(handle)], tokens, real, int(vocab))
    except Exception as error:
        FAILURES[int(handle)] = error
        return np.zeros((0, 2), "int64")


def _answers(options: GenerationOptions, tokens: Any, real: Any, vocab: int) -> Any:
    function: Any = options.prefix_allowed_tokens_fn
    places = []
    for row, (ids, present) in enumerate(zip(tokens, real, strict=True)):
        prompt = row // options.rows_per_prompt
        allowed = np.asarray(list(function(prompt, ids[present].tolist())), "int64")
        if allowed.size and not 0 <= allowed.min() <= allowed.max() < vocab:
            raise ConfigError(
                f"prefix_allowed_tokens_fn gave {allowed.min()} to {allowed.max()} for prompt {prompt}, "
                f"but the vocabulary has the ids 0 to {vocab - 1}."
            )
        places.append(np.stack([np.full(allowed.size, row), allowed], axis=1))
    return np.concatenate(places)
