"""One training run in NumPy and float64, with every part written out, and the same run with an optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np

# Three variables: a table with rows that often have no gradient, a matrix, and a bias that starts at zero.
SHAPES = {"table/embeddings": (5, 4), "dense/kernel": (4, 3), "dense/bias": (3,)}
STEPS = 6
RATE = 2.0**-5  # exact in float32, as Keras keeps it


def starts() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {path: random.normal(size=shape) * (len(shape) > 1) for path, shape in SHAPES.items()}


def gradients() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    batches = [{path: random.normal(size=shape) for path, shape in SHAPES.items()} for _ in range(STEPS)]
    for index, batch in enumerate(batches):
        batch["table/embeddings"][[0, 1 + index // 2 % 4]] = 0  # row 0 never has a gradient, others not always
    return batches


@dataclass
class Sgd:
    momentum: float = 0.5

    def __call__(self, state, gradient, rate, step):
        state["m"] = self.momentum * state.get("m", 0) - rate * gradient
        return state["m"]


@dataclass
class Adam:
    """With Keras' epsilon, or with that of the paper."""

    epsilon: float = 1e-7
    keras: bool = True
    correction: bool = True

    def __call__(self, state, gradient, rate, step):
        m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
        v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
        one, two = (1 - 0.9**step, 1 - 0.999**step) if self.correction else (1, 1)
        if self.keras:
            return -rate * np.sqrt(two) / one * m / (np.sqrt(v) + self.epsilon)
        return -rate * (m / one) / (np.sqrt(v / two) + self.epsilon)


@dataclass
class Reference:
    """What each option does is what the docstring of the part of that name says."""

    rule: Sgd | Adam
    rate: float = RATE
    decay: float = 0.0
    undecayed: tuple[str, ...] = ()
    multipliers: dict[str, float] = field(default_factory=dict)
    adapted: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    schedule: dict[int, float] | None = None
    accumulate: int = 1
    slow_every: int | None = None
    slow_step: float = 0.5
    average: float | None = None
    global_clipnorm: float | None = None
    clipnorm: float | None = None

    def run(self, weights, batches):
        """The weights after each batch, and the averages at the end."""
        weights = {path: value.copy() for path, value in weights.items()}
        slow = {path: value.copy() for path, value in weights.items()}
        states = {path: {} for path in weights}
        history, kept, sums, updates = [], [], None, 0
        for number, batch in enumerate(batches, 1):
            sums = batch if sums is None else {path: sums[path] + batch[path] for path in sums}
            if number % self.accumulate == 0:
                self.update(weights, states, {path: total / self.accumulate for path, total in sums.items()}, updates)
                sums, updates = None, updates + 1
                if self.slow_every and updates % self.slow_every == 0:
                    for path in weights:
                        slow[path] = slow[path] + self.slow_step * (weights[path] - slow[path])
                        weights[path] = slow[path].copy()
                kept.append({path: value.copy() for path, value in weights.items()})
            history.append({path: value.copy() for path, value in weights.items()})
        shares = np.array([(self.average or 0.0) ** age for age in range(len(kept) - 1, -1, -1)])
        averages = {
            path: sum(share * item[path] for share, item in zip(shares / shares.sum(), kept, strict=True))
            for path in weights
        }
        return history, averages

    def update(self, weights, states, gradient, updates):
        gradient = self.clipped(gradient)
        rate = self.rate
        if self.schedule is not None:
            points = {0: 0.0, **self.schedule}
            rate *= np.interp(updates, sorted(points), [points[step] for step in sorted(points)])
        for path, w in weights.items():
            before = {name: np.copy(value) for name, value in states[path].items()}
            own = rate * self.multipliers.get(path, 1.0)
            change = self.rule(states[path], gradient[path], own, updates + 1)
            if path not in self.undecayed:
                change = change - own * self.decay * w
            if path in self.adapted:
                size, length = np.linalg.norm(w), np.linalg.norm(change)
                change = change * (own * size / length if size and length else 1.0)
            if path in self.lazy:
                rows = (gradient[path] != 0).any(axis=-1, keepdims=True)
                change = np.where(rows, change, 0.0)
                states[path] = {
                    name: np.where(rows, value, before.get(name, 0.0)) for name, value in states[path].items()
                }
            weights[path] = w + change

    def clipped(self, gradient):
        if self.global_clipnorm:
            length = np.sqrt(sum((value**2).sum() for value in gradient.values()))
            return {path: value * min(1, self.global_clipnorm / length) for path, value in gradient.items()}
        if self.clipnorm:
            return {
                path: value * min(1, self.clipnorm / max(np.linalg.norm(value), 1e-300))
                for path, value in gradient.items()
            }
        return gradient


def variables(values: dict[str, np.ndarray], dtype: str = "float64") -> list[keras.Variable]:
    made = []
    for path, value in values.items():
        layer, name = path.split("/")
        with keras.name_scope(layer):
            made.append(keras.Variable(value, dtype=dtype, name=name))
    assert [variable.path for variable in made] == list(values)
    return made


def train(optimizer, values, batches, dtype: str = "float64"):
    """The weights after each batch with this optimizer, and its variables' list."""
    made = variables(values, dtype)
    history = []
    for batch in batches:
        optimizer.apply([keras.ops.convert_to_tensor(batch[path].astype(dtype)) for path in values], made)
        history.append({variable.path: keras.ops.convert_to_numpy(variable) for variable in made})
    return history, made


def largest_error(found, expected) -> float:
    """The largest difference of two histories."""
    return max(
        float(np.abs(one[path] - two[path]).max()) for one, two in zip(found, expected, strict=True) for path in two
    )
