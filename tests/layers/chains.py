"""Chains of tags by enumeration in float64: every path of the real positions, one after the other."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st


def all_paths(emissions, transitions):
    """Yields (path, score) of one sentence without padding, [length, tags]."""
    for path in itertools.product(range(emissions.shape[1]), repeat=len(emissions)):
        score = sum(row[tag] for row, tag in zip(emissions, path, strict=True))
        yield path, score + sum(transitions[a, b] for a, b in itertools.pairwise(path))


def loss_of(emissions, transitions, tags):
    """-log p(tags) of one sentence without padding."""
    scores = {path: score for path, score in all_paths(emissions, transitions)}
    best = max(scores.values())
    return best + np.log(sum(np.exp(score - best) for score in scores.values())) - scores[tuple(tags)]


def losses_of(emissions, transitions, tags, real):
    """-log p of each row, from its real positions alone."""
    rows = zip(emissions.astype("float64"), tags, real.astype(bool), strict=True)
    return np.array([loss_of(e[keep], transitions, t[keep]) for e, t, keep in rows])


def best_of(emissions, transitions, allowed=lambda path: True):
    """The best allowed path, or None. Among equals that with the lowest last tag, then last but one, and so on."""
    found = [(-score, path[::-1]) for path, score in all_paths(emissions, transitions) if allowed(path)]
    return list(min(found)[1][::-1]) if found else None


def numeric_gradient(function, x, step=1e-6):
    """Central differences of a scalar function, at a float64 array."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        shifted = np.zeros_like(x)
        shifted[index] = step
        gradient[index] = (function(x + shifted) - function(x - shifted)) / (2 * step)
    return gradient


@st.composite
def chains(draw, integers=False):
    """(emissions [batch, length, tags], transitions, real) with holes and rows of padding only; ties if integers."""
    batch, length, tags = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(2, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def values(*shape):
        return random.integers(-2, 3, shape).astype("float64") if integers else random.normal(size=shape) * 3

    return values(batch, length, tags), values(tags, tags), random.random((batch, length)) < 0.7
