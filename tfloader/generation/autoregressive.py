"""Decoding for users who bring their own `predict`: bert4keras' AutoRegressiveDecoder, corrected.

One sample at a time, with NumPy alone; only `last_token` imports Keras. Shapes: `rows` are the hypotheses that are
still open (1 at the first step), `length` counts the ids so far, start_id included.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from tfloader.border import public
from tfloader.errors import ConfigError

if TYPE_CHECKING:
    import keras

RTYPES = ("probas", "logits")


class AutoRegressiveDecoder:
    """Beam search and random sampling of one sequence. Subclass it, and define `predict`:

        class Title(AutoRegressiveDecoder):
            @AutoRegressiveDecoder.wraps(default_rtype="logits")
            def predict(self, inputs, output_ids, states):
                return self.last_token(model).predict(np.concatenate([inputs[0], output_ids], 1))

        Title(start_id=None, end_id=102, maxlen=32).beam_search([token_ids], topk=4)

    Args:
        start_id: the id that every output begins with; None: outputs begin with what is generated.
        end_id: the id that ends an output; None: only `maxlen` does.
        maxlen: how many ids are generated at most, start_id not counted.
        minlen: an end_id in an output shorter than this, both ids counted, does not end it, and stays in its middle.
        compat: "bert4keras" searches beams as that library did (see `beam_search`), to reproduce old outputs.
    """

    @public
    def __init__(
        self, start_id: int | None, end_id: int | None, maxlen: int, minlen: int = 1, compat: str | None = None
    ) -> None:
        _check_count("maxlen", maxlen)
        _check_count("minlen", minlen, least=0)
        _check_count("start_id", 0 if start_id is None else start_id, least=0)
        _check_count("end_id", 0 if end_id is None else end_id, least=-1)
        _check(compat in (None, "bert4keras"), f"compat is {compat!r}, expected None or 'bert4keras'.")
        self.start_id, self.end_id, self.maxlen, self.minlen, self.compat = start_id, end_id, maxlen, minlen, compat
        self.first_output_ids = np.array([[] if start_id is None else [start_id]], dtype=np.int64)
        self._last_token_models: dict[keras.Model, keras.Model] = {}

    @staticmethod
    def wraps(default_rtype: str = "probas", use_states: bool = False) -> Callable:
        """Gives `predict(self, inputs, output_ids, states)` the arguments `temperature` and `rtype`.

        Your predict returns what default_rtype says, "probas" or "logits" (before the softmax); with use_states it
        returns (scores, states), and gets these states at the next step, otherwise None. Decorated, it returns (scores
        [rows, vocab] in float64, states): probabilities where rtype is "probas", log(p + 1e-12) where it is "logits".
        """
        _check(default_rtype in RTYPES, f"default_rtype is {default_rtype!r}, expected one of {RTYPES}.")

        def decorate(predict: Callable) -> Callable:
            @functools.wraps(predict)
            def decorated(self, inputs, output_ids, states=None, temperature=1, rtype=default_rtype):
                _check(rtype in RTYPES, f"rtype is {rtype!r}, expected one of {RTYPES}.")
                returned = predict(self, inputs, output_ids, states)
                kind, paired = type(returned).__name__, isinstance(returned, tuple)
                _check(paired == use_states, f"predict returned a {kind} with use_states={use_states}.")
                scores, states = returned if use_states else (returned, None)
                step = output_ids.shape[1] - self.first_output_ids.shape[1]
                probas = _probabilities(scores, default_rtype, temperature, len(output_ids), step)
                return (probas if rtype == "probas" else np.log(probas + 1e-12)), states

            return decorated

        return decorate

    def predict(self, inputs: list[np.ndarray], output_ids: np.ndarray, states: Any = None) -> Any:
        """The scores of the next id, [rows, vocab]; to be defined by you, decorated with `wraps`.

        Args:
            inputs: the arrays that were given to the search, each [rows, ...].
            output_ids: [rows, length], from start_id on.
            states: first what was given to the search, then what `predict` returned, following its rows: arrays with
                the rows on the first axis, nested in tuples, dictionaries and lists at will. A list of scalars is
                itself such an array; other scalars and None are handed on as they are.
        """
        raise NotImplementedError("Define predict(self, inputs, output_ids, states) in your subclass.")

    def last_token(self, model: keras.Model) -> keras.Model:
        """`model` with the last position of its outputs alone, [rows, vocab], made once; its `predict` is silent."""
        if model not in self._last_token_models:
            import keras

            last = keras.Model(model.input, keras.tree.map_structure(lambda output: output[:, -1], model.output))
            last.predict = functools.partial(last.predict, verbose=0)
            self._last_token_models[model] = last
        return self._last_token_models[model]

    def beam_search(
        self, inputs: Sequence[Any], topk: int, states: Any = None, temperature: float = 1, min_ends: int = 1
    ) -> np.ndarray:
        """The likeliest output that a beam of width `topk` finds, [length] ids with start_id and end_id; 1 is greedy.

        Scores are sums of log-probabilities, without length norm. A hypothesis that ends among the `topk` best
        candidates of its step is finished; it is kept, and `topk` open ones go on beside it, until none of them can
        beat it (a score never rises) or `maxlen` is reached, where open ones count as they are.

        With compat="bert4keras" a hypothesis that ends while another is better is thrown away and narrows the beam for
        good, and the first one that ends while it is best is returned at once.

        Args:
            inputs: a list of arrays of one sample, without rows.
            states: what `predict` gets as states at the first step.
            temperature: divides the logits, or is the root that is taken of the probabilities.
            min_ends: how many end_id an output must hold, one of them at its end, to be finished.
        """
        _check_count("topk", topk)
        _check_count("min_ends", min_ends)
        inputs = [np.array([array]) for array in inputs]
        predict: Any = self.predict  # as `wraps` made it
        output_ids, scores = self.first_output_ids, np.zeros(1)
        finished, finished_score = None, -np.inf
        for _ in range(self.maxlen):
            predicted, states = predict(inputs, output_ids, states, temperature, "logits")
            candidates = scores[:, None] + predicted
            # A row has one candidate that ends: at least half of twice topk are open.
            best = _largest(candidates.ravel(), topk if self.compat else 2 * topk)
            parents, tokens = np.divmod(best, candidates.shape[1])
            output_ids, scores = np.column_stack([output_ids[parents], tokens]), candidates.ravel()[best]
            ended = self._ended(output_ids, min_ends)
            first = int(np.argmax(ended))
            if ended[first] and first < (1 if self.compat else topk) and scores[first] > finished_score:
                finished, finished_score = output_ids[first], scores[first]
            kept = np.flatnonzero(~ended)[:topk]
            if finished is not None and not np.any(scores[kept] > finished_score):
                return finished
            topk = len(kept) if self.compat else topk
            output_ids, scores = output_ids[kept], scores[kept]
            inputs = [array[parents[kept]] for array in inputs]
            states = _take_rows(states, parents[kept], len(predicted))
        return output_ids[0]

    def random_sample(
        self,
        inputs: Sequence[Any],
        n: int,
        topk: int | None = None,
        topp: float | None = None,
        states: Any = None,
        temperature: float = 1,
        min_ends: int = 1,
        seed: int | None = None,
    ) -> list[np.ndarray]:
        """Draws `n` outputs, [length] ids each, in the order in which they finish; those cut off at maxlen come last.

        Args:
            topk: draw from the topk likeliest ids only.
            topp: draw from the fewest likeliest of these that reach this share of their probability.
            inputs, states, temperature, min_ends: as in `beam_search`.
            seed: the same seed draws the same outputs; None draws from NumPy's global generator.
        """
        _check_count("n", n)
        _check_count("min_ends", min_ends)
        _check_count("topk", 1 if topk is None else topk)
        _check(topp is None or (_is_number(topp) and 0 < topp <= 1), f"topp is {topp!r}, expected a share in (0, 1].")
        _check_count("seed", 0 if seed is None else seed, least=0)
        generator = np.random if seed is None else np.random.default_rng(seed)
        inputs, output_ids, results = [np.array([array]) for array in inputs], self.first_output_ids, []
        predict: Any = self.predict  # as `wraps` made it
        for step in range(self.maxlen):
            probas, states = predict(inputs, output_ids, states, temperature, "probas")
            rows = np.arange(len(probas)) if step else np.zeros(n, dtype=np.int64)  # all n begin from the only row
            tokens = _draw(probas[rows], topk, topp, generator.random(len(rows)))
            output_ids = np.column_stack([output_ids[rows], tokens])
            ended = self._ended(output_ids, min_ends)
            results.extend(output_ids[ended])
            output_ids, rows = output_ids[~ended], rows[~ended]
            if not len(rows):
                break
            inputs = [array[rows] for array in inputs]
            states = _take_rows(states, rows, len(probas))
        return [*results, *output_ids]

    def _ended(self, output_ids: np.ndarray, min_ends: int) -> np.ndarray:
        """Which rows are finished: [rows] of bool."""
        is_end = output_ids == (-1 if self.end_id is None else self.end_id)
        return is_end[:, -1] & (is_end.sum(axis=1) >= min_ends) & (output_ids.shape[1] >= self.minlen)


def _probabilities(scores: Any, rtype: str, temperature: float, rows: int, step: int) -> np.ndarray:
    """The distributions [rows, vocab] that scores of this type mean at this temperature."""
    positive = _is_number(temperature) and temperature > 0
    _check(positive, f"temperature is {temperature!r}, expected more than 0; topk=1 is greedy.")
    scores, at = np.asarray(scores, dtype=np.float64), f"at step {step}"
    fits = scores.ndim == 2 and len(scores) == rows and scores.size > 0
    _check(fits, f"predict returned shape {scores.shape} {at}, expected [{rows}, vocab]; see last_token(model).")
    with np.errstate(all="ignore"):  # what is no number is refused below
        best = scores.max(axis=1, keepdims=True)
        if rtype == "logits":
            scores = np.exp((scores - best) / temperature)
        elif temperature != 1:
            scores = (scores / best) ** (1 / temperature)
        if rtype == "logits" or temperature != 1:
            scores = scores / scores.sum(axis=1, keepdims=True)
    usable = bool(np.all((scores >= 0) & (scores < np.inf)) and scores.any(axis=1).all())
    _check(usable, f"predict returned NaN, or no probabilities with default_rtype={rtype!r}, {at}.")
    return scores


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` largest of scores [n], best first; of equals the first."""
    count = min(count, len(scores))
    near = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return near[np.argsort(-scores[near], kind="stable")][:count]


def _draw(probas: np.ndarray, topk: int | None, topp: float | None, uniform: np.ndarray) -> np.ndarray:
    """Draws an id from each row of probas [rows, vocab] by inversion, given uniform numbers [rows]: [rows] ids."""
    if topk is not None:
        ids = np.stack([_largest(row, topk) for row in probas])
    else:
        ids = None if topp is None else np.argsort(-probas, axis=1)
    shares = np.cumsum(probas if ids is None else np.take_along_axis(probas, ids, axis=1), axis=1)
    shares /= shares[:, -1:]
    if topp is not None and topp < 1:
        crossing = np.argmax(shares >= topp, axis=1)[:, None]
        shares /= np.take_along_axis(shares, crossing, axis=1)  # what comes after it lies above 1, and is never drawn
    drawn = np.argmax(shares > uniform[:, None], axis=1)
    return drawn if ids is None else ids[np.arange(len(ids)), drawn]


def _take_rows(states: Any, rows: np.ndarray, count: int) -> Any:
    """These of the `count` rows of every array in nested states; `predict` says what is an array."""
    take = functools.partial(_take_rows, rows=rows, count=count)
    if isinstance(states, dict):
        return {key: take(value) for key, value in states.items()}
    if isinstance(states, tuple):
        return type(states)(*map(take, states)) if hasattr(states, "_fields") else tuple(map(take, states))
    if isinstance(states, list) and any(isinstance(item, dict | list | tuple) or np.ndim(item) for item in states):
        return [take(item) for item in states]
    if not isinstance(states, list) and np.ndim(states) == 0:
        return states
    _check(len(states) == count, f"predict returned states with {len(states)} rows, expected output_ids' {count}.")
    return [copy.deepcopy(states[row]) for row in rows] if isinstance(states, list) else np.asarray(states)[rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_count(name: str, value: Any, least: int = 1) -> None:
    fits = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    _check(fits, f"{name} is {value!r}, expected a whole number of at least {least}.")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
