"""What changes the scores of the next token, with Hugging Face's meaning and in its order, as TensorFlow graphs.

Every processor takes float32 logits [rows, vocab] of any size (log-probabilities, in beam search) and returns the same,
with -inf where a token is ruled out. What may change from call to call travels as tensors (`numbers`), so that a new
value compiles nothing; `signature` tells apart what does.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.errors import GenerationError
from tfloader.generation import constraints, filters
from tfloader.generation.filters import RULED_OUT, places_of, rule_out
from tfloader.generation.option_rules import FILTERS, ids_of
from tfloader.generation.options import GenerationOptions
from tfloader.generation.trie import Trie

FAULTS = {
    1: "the model's logits hold NaN or infinity: its weights or its precision (float16?) are at fault",
    2: "no token is allowed to come next: the constraints of this call exclude each other",
    3: "a logits_processor, or penalties and a temperature far from 1, made NaN or infinity of a score",
}


class Context(NamedTuple):
    """What has been written.

    Attributes:
        tokens: int32 [rows, length], prompt (padded on the left) and then what was generated.
        real: bool [rows, length], False at padding.
        generated: int32, number of new tokens so far.
    """

    tokens: tf.Tensor
    real: tf.Tensor
    generated: tf.Tensor


def repetition_penalty(logits: Any, context: Context, penalty: Any) -> Any:
    """Makes every token of the context less likely: divides its score, or multiplies a negative one."""
    penalty = tf.cast(penalty, logits.dtype)
    places = places_of(context.real & (context.tokens < tf.shape(logits)[1]), context.tokens)
    scores = tf.gather_nd(logits, places)
    scores = tf.where(scores < 0, scores * penalty, scores / penalty)
    return tf.tensor_scatter_nd_update(logits, places, scores)


def no_repeat_ngram(logits: Any, context: Context, size: int) -> Any:
    """Rules out what would complete an n-gram (n = `size`) that the row has already."""
    before = [[0, 0], [size - 1, 0]]  # no special case for short rows
    tokens, real = tf.pad(context.tokens, before), tf.pad(context.real, before)
    count = tf.shape(context.tokens)[1]
    repeated = real[:, size - 1 :] & (context.tokens < tf.shape(logits)[1])
    for at in range(size - 1):
        same = tokens[:, at : at + count] == tokens[:, count + at, None]
        repeated &= same & real[:, at : at + count] & real[:, count + at, None]
    return rule_out(logits, places_of(repeated, context.tokens))


def bad_words(logits: Any, context: Context, words: Any) -> Any:
    """Rules out the last token of each word (int32 [words, longest], -1 on its left) whose other tokens precede."""
    longest = tf.shape(words)[1]
    tokens = tf.where(context.real, context.tokens, -2)
    latest = tf.pad(tokens, [[0, 0], [longest - 1, 0]], constant_values=-2)[:, tf.shape(tokens)[1] :]
    same = (latest[:, None, :] == words[:, :-1]) | (words[:, :-1] == -1)
    begun = tf.reduce_all(same, axis=-1)
    return rule_out(logits, places_of(begun, tf.broadcast_to(words[:, -1], tf.shape(begun))))


def hide(logits: Any, ids: Any, now: Any = True) -> Any:
    """Rules out ids [n] in all rows, if `now`."""
    chosen = tf.fill([tf.shape(logits)[0], tf.size(ids)], now)
    return rule_out(logits, places_of(chosen, tf.broadcast_to(ids, tf.shape(chosen))))


def force(logits: Any, ids: Any, now: Any) -> Any:
    """Rules out everything but ids [n], which get 0, if `now`."""

    def forced() -> Any:
        row = tf.reduce_max(tf.one_hot(ids, tf.shape(logits)[1], 0.0, RULED_OUT), axis=0)
        return tf.broadcast_to(row, tf.shape(logits))

    return tf.cond(now, forced, lambda: logits)


def call_users(logits: Any, context: Context, functions: tuple[Callable, ...]) -> Any:
    """Applies a user's own processors in turn."""
    for function in functions:
        changed = tf.cast(function(logits, context), tf.float32)
        message = "a logits_processor must keep the shape [rows, vocab]"
        tf.debugging.assert_equal(tf.shape(changed), tf.shape(logits), message)
        logits = changed
    return logits


class Step(NamedTuple):
    """One option's processor.

    Attributes:
        off: values of the option with which it does nothing.
        number: makes the array that travels to the graph from the option's value, under the option's name.
        apply: (logits, context, its number, all numbers, options) -> logits; of the options it reads only what
            `signature` has.
    """

    off: tuple
    number: Callable[[Any], Any] | None
    apply: Callable[[Any, Context, Any, dict[str, Any], GenerationOptions], Any]


def id_array(value: Any) -> np.ndarray:
    return np.array(ids_of(value), "int32")


def word_array(words: tuple[tuple[int, ...], ...]) -> np.ndarray:
    longest = max(map(len, words))
    return np.array([(-1,) * (longest - len(word)) + word for word in words], "int32")


# Option -> its processor, in Hugging Face's order. x: logits, c: context, v: its number, n: numbers, o: options.
STEPS = {
    "repetition_penalty": Step((1,), np.float64, lambda x, c, v, n, o: repetition_penalty(x, c, v)),
    "no_repeat_ngram_size": Step((0,), None, lambda x, c, v, n, o: no_repeat_ngram(x, c, o.no_repeat_ngram_size)),
    "bad_words_ids": Step((None,), word_array, lambda x, c, v, n, o: bad_words(x, c, v)),
    "min_new_tokens": Step((0,), np.int32, lambda x, c, v, n, o: hide(x, n["eos_token_id"], c.generated < v)),
    "prefix_allowed_tokens_fn": Step(
        (None,), None, lambda x, c, v, n, o: constraints.constrain(x, c, n, o.rows_per_prompt, o.beams_per_group)
    ),
    "forced_bos_token_id": Step((None,), id_array, lambda x, c, v, n, o: force(x, v, c.generated == 0)),
    "forced_eos_token_id": Step(
        (None,), id_array, lambda x, c, v, n, o: force(x, v, c.generated == n["max_new_tokens"] - 1)
    ),
    "suppress_tokens": Step((None,), id_array, lambda x, c, v, n, o: hide(x, v)),
    "logits_processor": Step((None,), None, lambda x, c, v, n, o: call_users(x, c, o.logits_processor)),
    "temperature": Step((1,), np.float64, lambda x, c, v, n, o: filters.temperature(x, v)),
    "top_k": Step((None,), np.int32, lambda x, c, v, n, o: filters.top_k(x, v)),
    "top_p": Step((None, 1), np.float64, lambda x, c, v, n, o: filters.top_p(x, v, few=few(o))),
    "min_p": Step((None, 0), np.float64, lambda x, c, v, n, o: filters.min_p(x, v)),
    "typical_p": Step((None, 1), np.float64, lambda x, c, v, n, o: filters.typical(x, v)),
}
# Options that processors and strategies read while they are traced, as they are.
TRACED = operator.attrgetter(
    "no_repeat_ngram_size", "logits_processor", "do_sample", "num_beams", "num_beam_groups", "num_return_sequences",
    "early_stopping", "pad_token_id",
)  # fmt: skip


def few(options: GenerationOptions) -> bool:
    """Whether top_k leaves so few tokens to the filters after it that they need not save sorting."""
    return options.top_k is not None and options.top_k <= 1024


def active(options: GenerationOptions) -> tuple[str, ...]:
    """The options that ask for a processor, in order."""
    names = [name for name in STEPS if options.do_sample or name not in FILTERS]
    return tuple(name for name in names if getattr(options, name) not in STEPS[name].off)


def numbers(options: GenerationOptions) -> dict[str, Any]:
    """What travels as tensors: the same names, types and ranks for the same signature.

    `eos_token_id` (int32 [n], n may be 0), `max_new_tokens` and the numbers of the strategies (float32) are always
    there.
    """
    found: dict[str, Any] = {
        "eos_token_id": id_array(options.eos_token_ids),
        "length_penalty": np.float32(options.length_penalty),
        "diversity_penalty": np.float32(options.diversity_penalty),
        "penalty_alpha": np.float32(options.penalty_alpha or 0),
        "max_new_tokens": np.int32(options.max_new_tokens),
    }
    if options.prefix_allowed_tokens_fn is not None:
        found |= constraints.numbers(options)
    steps = {name: STEPS[name] for name in active(options)}
    return found | {name: step.number(getattr(options, name)) for name, step in steps.items() if step.number}


def signature(options: GenerationOptions) -> Hashable:
    """Equal for options that one graph serves, given their `numbers`."""
    return (
        active(options),
        TRACED(options),
        isinstance(options.prefix_allowed_tokens_fn, Trie),
        few(options),
        options.penalty_alpha is not None and options.top_k,
        options.sliding_context is not None,
        len(options.eos_token_ids),
    )


def build(options: GenerationOptions) -> Callable[[Any, Context, dict[str, Any]], Any]:
    """All active processors as one function (logits, context, numbers) -> logits."""

    def process(logits: Any, context: Context, numbers: dict[str, Any]) -> Any:
        for name in active(options):
            logits = STEPS[name].apply(logits, context, numbers.get(name), numbers, options)
        return logits

    return process


def fault(logits: Any, processed: Any, live: Any, over: Any = False) -> Any:
    """What is wrong with a step, int32: 0 for nothing, else a key of `FAULTS`.

    Args:
        logits, processed: float32 [rows, n] before and after the processors; a row may hold all beams of a prompt.
        live: bool [rows]; nothing is wrong with a row that has ended.
        over: bool [rows]; whether a row may end here without a token.
    """
    # NaN and infinity survive a sum, and -inf alone is no fault.
    broken, spoilt = (_is_no_score(tf.reduce_sum(x, axis=-1)) for x in (logits, processed))
    empty = tf.reduce_max(processed, axis=-1) == RULED_OUT
    code = tf.where(broken, 1, tf.where(spoilt, 3, tf.where(empty & ~tf.convert_to_tensor(over), 2, 0)))
    return tf.reduce_max(tf.where(live, code, 0))


def _is_no_score(total: Any) -> Any:
    # Not "not less than infinity": TensorFlow turns that into >=, which is false for NaN.
    return tf.math.is_nan(total) | (total == math.inf)


def raise_fault(code: int, options: GenerationOptions) -> None:
    """Raises what `fault` found, or what the user's own `prefix_allowed_tokens_fn` raised; 0 passes.

    Raises:
        GenerationError: a step could not be done.
    """
    failure = constraints.FAILURES.pop(id(options), None)
    if failure is not None:
        raise failure
    if code:
        raise GenerationError(f"Generation stopped: {FAULTS[int(code)]}.")
