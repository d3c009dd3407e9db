"""The filters of sampling, each equal to Hugging Face's: which tokens remain of logits float32 [rows, vocab].

Sorting 50 thousand logits takes longer than a model's step: a filter by probability mass puts them into buckets, and
sorts only the bucket where the mass is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

RULED_OUT = -math.inf
BUCKETS = 2048
BUCKETS_PER_NAT = 64


def temperature(logits: Any, value: Any) -> Any:
    """Divides the logits."""
    return logits / tf.cast(value, logits.dtype)


def top_k(logits: Any, k: Any) -> Any:
    """The k likeliest tokens, and those as likely as the last of them."""
    least = tf.math.top_k(logits, tf.minimum(k, tf.shape(logits)[1])).values[:, -1:]
    return tf.where(logits < least, RULED_OUT, logits)


def top_p(logits: Any, p: Any, few: bool = False) -> Any:
    """The likeliest tokens, up to and including the one with which their mass reaches p.

    Of equally likely tokens at the border the highest ids remain.

    Args:
        few: all but a few tokens are ruled out already, so that sorting them is the quickest.
    """
    p = tf.cast(tf.convert_to_tensor(p, dtype_hint=tf.float64), tf.float64)  # tf.cast takes a number as float32
    tail = tf.cast(1.0 - p, logits.dtype)
    probabilities = tf.nn.softmax(logits)
    if few:
        places, before, result = tf.where(logits > RULED_OUT), tf.zeros([1, 1], tf.float64), logits
    else:
        bucket = BUCKETS - 1 - bucket_of(tf.reduce_max(logits, axis=-1, keepdims=True) - logits)
        border, before = border_bucket(bucket, probabilities, lambda mass: mass > tail)
        places, result = tf.where(bucket == border), tf.where(bucket < border, RULED_OUT, logits)
    _, ids, sums = in_order(logits, probabilities, places, before)
    # The last, likeliest one stays even where rounding loses the whole mass.
    removed = (sums[:, :-1] <= tail) & (ids[:, :-1] >= 0)
    return rule_out(result, places_of(removed, ids[:, :-1]))


def min_p(logits: Any, share: Any) -> Any:
    """The tokens at least `share` times as likely as the likeliest."""
    probabilities = tf.nn.softmax(logits)
    least = tf.cast(share, logits.dtype) * tf.reduce_max(probabilities, axis=-1, keepdims=True)
    return tf.where(probabilities < least, RULED_OUT, logits)


def typical(logits: Any, mass: Any) -> Any:
    """The tokens whose surprise is nearest to the entropy, until their mass reaches `mass`, and equally near ones."""
    mass = tf.cast(mass, logits.dtype)
    log_probabilities, probabilities = tf.nn.log_softmax(logits), tf.nn.softmax(logits)
    terms = tf.math.multiply_no_nan(log_probabilities, tf.exp(log_probabilities))
    distance = tf.abs(tf.reduce_sum(terms, axis=-1, keepdims=True) - log_probabilities)
    bucket = bucket_of(distance)
    border, before = border_bucket(bucket, probabilities, lambda found: found >= mass)
    distances, ids, sums = in_order(distance, probabilities, tf.where(bucket == border), before)
    short = tf.pad(sums < mass, [[0, 0], [1, 0]], constant_values=True)[:, :-1] & (ids >= 0)
    farthest = tf.reduce_max(tf.where(short, distances, -math.inf), axis=-1, keepdims=True)
    removed = (bucket > border) | ((bucket == border) & (distance > farthest))
    return tf.where(removed, RULED_OUT, logits)


def bucket_of(distance: Any) -> Any:
    """Numbers from 0 that rise with distances >= 0; 0 for NaN."""
    bucket = tf.cast(tf.minimum(distance * BUCKETS_PER_NAT, BUCKETS - 1.0), tf.int32)
    return tf.maximum(bucket, 0)


def border_bucket(bucket: Any, probabilities: Any, enough: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The bucket in which the sum of probabilities from bucket 0 on becomes enough, and the sum before it, [rows, 1].

    Sums are made in double precision and compared in single, as Hugging Face's are: at the border that matters.
    """
    exact = tf.cast(probabilities, tf.float64)
    masses = tf.math.bincount(bucket, weights=exact, minlength=BUCKETS, maxlength=BUCKETS, dtype=tf.float64, axis=-1)
    sums = tf.cumsum(masses, axis=-1)
    short = tf.math.count_nonzero(~enough(tf.cast(sums, tf.float32)), axis=-1, keepdims=True, dtype=tf.int32)
    border = tf.minimum(short, BUCKETS - 1)
    return border, tf.gather(tf.pad(sums, [[0, 0], [1, 0]]), border, batch_dims=1)


def in_order(keys: Any, probabilities: Any, places: Any, before: Any) -> tuple[Any, Any, Any]:
    """The tokens at places [m, 2] by key, then id: keys, ids, and the sums of probabilities up to each, [rows, n].

    Padding comes first, with the id -1. Sums are float32, and go on from `before`.
    """

    def dense(x: Any, padding: Any) -> Any:
        rows = tf.shape(keys, tf.int64)[0]
        return tf.RaggedTensor.from_value_rowids(x, places[:, 0], rows, validate=False).to_tensor(padding)

    found = dense(tf.gather_nd(keys, places), -math.inf)
    weights = dense(tf.cast(tf.gather_nd(probabilities, places), tf.float64), 0.0)
    order = tf.argsort(found, stable=True)
    found, ids, weights = (tf.gather(x, order, batch_dims=1) for x in (found, dense(places[:, 1], -1), weights))
    return found, ids, tf.cast(before + tf.cumsum(weights, axis=-1), tf.float32)


def places_of(chosen: Any, ids: Any) -> Any:
    """[n, 2] rows and ids of the chosen entries of ids [rows, m]."""
    places = tf.where(chosen)
    return tf.stack([places[:, 0], tf.cast(tf.gather_nd(ids, places), tf.int64)], axis=1)


def rule_out(logits: Any, places: Any) -> Any:
    """Sets the logits at places [n, 2] to -inf."""
    return tf.tensor_scatter_nd_update(logits, places, tf.fill(tf.shape(places)[:1], RULED_OUT))
