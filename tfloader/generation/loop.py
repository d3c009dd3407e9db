"""The compiled loop of one-token steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfloader.generation.cache import Prompt, StepCache
from tfloader.generation.fused import FusedOperations, cast_once
from tfloader.generation.reading import Prompts
from tfloader.layers.products import computing_with


class State(NamedTuple):
    """What the loop carries from step to step.

    Attributes:
        chosen: what was written; its type is the strategy's own: `Rows` or `Beams`.
        cache: keys and values of what was read.
        logits: float32 [rows, vocab] of the next token.
        hidden: [rows, size] last hidden states, where the strategy reads them, else ().
        position: int32 [rows] of the token that is read next.
        fresh: bool, whether logits are those of a prompt, from which no token was chosen yet.
    """

    chosen: Any
    cache: StepCache
    logits: Any
    hidden: Any
    position: Any
    fresh: Any

    @property
    def text_length(self) -> np.ndarray:
        """[rows] real tokens of prompt and output; the last was not read yet, unless logits are fresh from a prompt."""
        return self.position.numpy() + (not self.fresh)


def decoding_loop(
    reader: Prompts, selector: Any, process: Callable, kernels: Callable, variables: list[Any], one_row: bool
) -> Callable[[State, Prompt, dict[str, Any], Any], State]:
    """The function that takes steps until all rows are done, the cache is full, or `budget` steps are done.

    Args:
        selector: the strategy, which chooses the next tokens.
        process: changes their scores, given `numbers`.
        kernels: see `FusedOperations`; variables: the model's weights; one_row: whether there is known to be one row.
    """
    copies = selector.copies if reader.shares_prompts else 1

    def loop(state: State, prompt: Prompt, numbers: dict[str, Any], budget: Any) -> State:
        def choose(state: State) -> tuple[Any, Any]:
            return selector.select(state.chosen, state.logits, state.hidden, process, numbers)

        def more(state: State, steps: Any) -> Any:
            return (state.cache.free > 0) & (steps < budget) & ~selector.is_finished(state.chosen)

        def body(state: State, steps: Any) -> tuple[State, Any]:
            token = tf.reshape(state.chosen.last, (1 if one_row else -1, 1))
            logits, hidden, cache = reader.step(token, state.position, prompt, state.cache, copies)
            hidden = hidden if selector.reads_hidden else ()
            state = state._replace(cache=cache, logits=logits, hidden=hidden, position=state.position + 1)
            chosen, parents = choose(state)
            cache = cache if parents is None else cache.rows(parents)
            return state._replace(chosen=chosen, cache=cache), steps + 1

        # Buffers that went through tf.cond could not be written in place, so the cache stays outside. The order of its
        # rows does not matter yet: where logits are fresh, all rows of a prompt are alike.
        chosen = tf.cond(state.fresh, lambda: choose(state)[0], lambda: state.chosen)
        state = state._replace(chosen=chosen, fresh=tf.constant(False))
        with computing_with(FusedOperations(kernels=kernels, weights=cast_once(variables, reader.dtype))):
            prompt = reader.prepared(prompt, copies)
            return tf.while_loop(more, body, (state, tf.constant(0)), parallel_iterations=1)[0]

    return loop
