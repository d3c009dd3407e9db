"""Families from outside: GPT-2 with one documented seam overridden each, and what each computes, in NumPy.

A `Guest` is what a user writes (a family and, where it has weights of its own, rows), beside the same model written
without tfloader: `Reference` in float64, one text at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader import layers as tfl
from tfloader.layers.rotary import rotate
from tfloader.models.gpt2 import GPT2
from tfloader.models.heads import Head
from tfloader.naming import gpt2
from tfloader.naming.base import Row, row

HOST = CHECKPOINTS / "hf_gpt2"
LAYERS = 2  # of the host's three


class Reference:
    """GPT-2 for one text: token ids [length] -> logits [length, vocab]. A method for each seam.

    Args:
        tensors: as the release names them.
        heads, epsilon: from the config.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], heads: int, epsilon: float) -> None:
        self.tensors = {name: np.asarray(value, "float64") for name, value in tensors.items()}
        self.heads, self.epsilon = heads, epsilon
        self.layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("transformer.h."))

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        x = self.embed(np.asarray(ids))
        for index in range(self.layers):
            x = self.block(x, f"transformer.h.{index}")
        return self.head(x)

    def embed(self, ids: np.ndarray) -> np.ndarray:
        return self.tensors["transformer.wte.weight"][ids] + self.tensors["transformer.wpe.weight"][: len(ids)]

    def block(self, x: np.ndarray, name: str) -> np.ndarray:
        x = self.add(x, self.attention(self.norm(x, f"{name}.ln_1"), f"{name}.attn"))
        return self.add(x, self.feed_forward(self.norm(x, f"{name}.ln_2"), f"{name}.mlp"))

    def head(self, x: np.ndarray) -> np.ndarray:
        return self.norm(x, "transformer.ln_f") @ self.tensors["transformer.wte.weight"].T

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x + y

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return normal * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def attention(self, x: np.ndarray, name: str) -> np.ndarray:
        parts = np.split(self.dense(x, f"{name}.c_attn"), 3, axis=-1)
        query, key, value = (part.reshape(len(x), self.heads, -1).transpose(1, 0, 2) for part in parts)
        query, key = self.positioned(query), self.positioned(key)
        scores = self.scores(query, key) + np.where(self.visible(len(x)), 0, -np.inf)
        probabilities = np.exp(scores - scores.max(-1, keepdims=True))
        context = self.context(probabilities / probabilities.sum(-1, keepdims=True), value)
        return self.dense(context.transpose(1, 0, 2).reshape(len(x), -1), f"{name}.c_proj")

    def visible(self, length: int) -> np.ndarray:
        return np.tri(length, dtype=bool)

    def positioned(self, x: np.ndarray) -> np.ndarray:
        return x

    def scores(self, query: np.ndarray, key: np.ndarray) -> np.ndarray:
        return query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])

    def context(self, probabilities: np.ndarray, value: np.ndarray) -> np.ndarray:
        return probabilities @ value

    def feed_forward(self, x: np.ndarray, name: str) -> np.ndarray:
        inner = self.dense(x, f"{name}.c_fc")
        inner = inner / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        return self.dense(inner, f"{name}.c_proj")

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


@dataclass(frozen=True)
class Guest:
    """A family from outside.

    Attributes:
        seam: which documented method or attribute it overrides.
        rows: rows that its naming table has besides GPT-2's.
        own: their tensors' values, by name; "{layer}" stands for each layer.
        options: builder options under which the model has all its parts.
        cannot_generate: part of the reason for which generation is refused, or None.
        cannot_step: the same of an exported decoding step.
    """

    seam: str
    family: type[GPT2]
    reference: type[Reference]
    rows: tuple[Row, ...] = ()
    own: Mapping[str, np.ndarray] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    cannot_generate: str | None = None
    cannot_step: str | None = None

    def __str__(self) -> str:
        return self.seam

    @property
    def name(self) -> str:
        return f"guest_{self.seam}"

    @property
    def release(self) -> Any:
        dialect = dataclasses.replace(gpt2.HF_DIALECT, name=self.name, constants={"model_type": self.name})
        naming = dataclasses.replace(gpt2.HF_NAMING, rows=(*gpt2.HF_NAMING.rows, *self.rows))
        return dataclasses.replace(
            gpt2.HF_RELEASE,
            name=self.name,
            title=f"Guest ({self.seam})",
            family=self.name,
            naming=naming,
            dialects=(dialect,),
        )

    def register(self) -> None:
        tfloader.register_family(self.name, self.family)
        tfloader.register_release(self.release)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        return {**json.loads((HOST / "config.json").read_text()), "n_layer": LAYERS, "model_type": self.name}

    @functools.cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The host's and its own, by canonical name."""
        with tfloader.open_checkpoint(HOST) as checkpoint:
            found = {gpt2.HF_NAMING.canonical(name): np.array(checkpoint.read(name)) for name in checkpoint}
        surplus = ("lm_head.", *(f"transformer.h.{index}." for index in range(LAYERS, 3)))
        found = {name: value for name, value in found.items() if not name.startswith(surplus)}
        for name, value in self.own.items():
            found |= {name.format(layer=index): np.asarray(value, "float32") for index in range(LAYERS)}
        return found

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """[length, vocab] by the reference."""
        return self.reference(self.tensors, self.config["n_head"], self.config["layer_norm_epsilon"])(ids)


def serializable(name: str) -> Any:
    return keras.saving.register_keras_serializable("guests", name)


# ---- attention_bias: nobody looks further back than two tokens


@serializable("Window")
class Window(keras.layers.Layer):
    def call(self, bias, token_ids):
        position = ops.arange(ops.shape(token_ids)[1])
        near = ops.expand_dims(position, 0) > ops.expand_dims(position, 1) - 3
        return bias + ops.where(ops.expand_dims(near, (0, 1)), 0.0, -1e30)

    def compute_output_spec(self, bias, token_ids):
        length = token_ids.shape[1]
        return keras.KerasTensor((bias.shape[0], 1, length, length), bias.dtype)


class WindowGPT2(GPT2):
    def attention_bias(self, inputs):
        return self.layer("Window", Window)(super().attention_bias(inputs), inputs["Input-Token"])


class WindowReference(Reference):
    def visible(self, length):
        return np.tri(length, dtype=bool) & ~np.tri(length, k=-3, dtype=bool)


# ---- attention_class.scores: capped


@serializable("CappedAttention")
class CappedAttention(tfl.MultiHeadAttention):
    def scores(self, query, key):
        return 0.5 * ops.tanh(2 * super().scores(query, key))


class CappedGPT2(GPT2):
    attention_class = CappedAttention


class CappedReference(Reference):
    def scores(self, query, key):
        return 0.5 * np.tanh(2 * super().scores(query, key))


# ---- attention_class.context: the square root of each probability


@serializable("SharpAttention")
class SharpAttention(tfl.MultiHeadAttention):
    def context(self, probabilities, value):
        return super().context(ops.square(probabilities), value)


class SharpGPT2(GPT2):
    attention_class = SharpAttention


class SharpReference(Reference):
    def context(self, probabilities, value):
        return super().context(probabilities**2, value)


# ---- attention_class.vectors: a vector for each distance, of another size than NEZHA's


@serializable("DistanceAttention")
class DistanceAttention(tfl.RelativeAttention):
    def vectors(self, distances):
        return 3 * super().vectors(distances)


class DistanceGPT2(GPT2):
    attention_class = DistanceAttention

    def attention(self, name, x, bias, memory=None, **arguments):
        return super().attention(name, x, bias, memory, max_distance=4, **arguments)


class DistanceReference(Reference):
    def vectors(self, length, size):
        distance = np.clip(np.arange(length)[None] - np.arange(length)[:, None], -4, 4) + 4
        angles = distance[..., None] * 10000.0 ** (-np.arange(0, size, 2) / size)
        return 3 * np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, length, size)

    def scores(self, query, key):
        vectors = self.vectors(query.shape[1], query.shape[2])
        return super().scores(query, key) + np.einsum("hqd,qkd->hqk", query, vectors) / math.sqrt(query.shape[-1])

    def context(self, probabilities, value):
        vectors = self.vectors(value.shape[1], value.shape[2])
        return super().context(probabilities, value) + np.einsum("hqk,qkd->hqd", probabilities, vectors)


# ---- attention_class.apply_positions: queries and keys turned half as far as RoFormer turns them


@serializable("HalfRotaryAttention")
class HalfRotaryAttention(tfl.MultiHeadAttention):
    def apply_positions(self, x, positions):
        return rotate(x, ops.expand_dims(positions, 1))


@serializable("HalfPositions")
class HalfPositions(tfl.SinusoidalPosition):
    def call(self, x, position_ids=None):
        if position_ids is None:
            position_ids = ops.expand_dims(ops.arange(ops.shape(x)[1]), 0)
        return super().call(x, ops.cast(position_ids, "float32") / 2)


class HalfRotaryGPT2(GPT2):
    attention_class = HalfRotaryAttention

    def embed(self, inputs):
        x = super().embed(inputs)
        layer = self.layer("Embedding-Rotary-Position", HalfPositions, size=self.config.head_size)
        self.positions = layer(x, position_ids=inputs.get("Input-Position"))
        return x


class HalfRotaryReference(Reference):
    def positioned(self, x):
        angles = np.arange(x.shape[1])[:, None] / 2 * 10000.0 ** (-np.arange(0, x.shape[2], 2) / x.shape[2])
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


# ---- block: attention and feed-forward side by side


class ParallelGPT2(GPT2):
    def block(self, x, index):
        attention, feed_forward = (f"Transformer-{index}-{part}" for part in ("MultiHeadSelfAttention", "FeedForward"))
        y = self.attention(attention, self.norm(f"{attention}-Norm", x), self.bias)
        z = self.feed_forward(feed_forward, self.norm(f"{feed_forward}-Norm", x))
        return self.add(f"{feed_forward}-Add", x, y, z)


class ParallelReference(Reference):
    def block(self, x, name):
        y = self.attention(self.norm(x, f"{name}.ln_1"), f"{name}.attn")
        return x + y + self.feed_forward(self.norm(x, f"{name}.ln_2"), f"{name}.mlp")


# ---- add: the residual counts for more


class WeightedGPT2(GPT2):
    def add(self, name, x, *others):
        return super().add(name, self.layer(f"{name}-Alpha", tfl.Scale, factor=1.5)(x), *others)


class WeightedReference(Reference):
    def add(self, x, y):
        return 1.5 * x + y


# ---- norm: scaled down


class ScaledNormGPT2(GPT2):
    def norm(self, name, x, rms=False, epsilon=None):
        return self.layer(f"{name}-Scale", tfl.Scale, factor=0.7)(super().norm(name, x, rms, epsilon))


class ScaledNormReference(Reference):
    def norm(self, x, name):
        return 0.7 * super().norm(x, name)


# ---- embed: as the first Transformer did, times the square root of the size


class ScaledEmbeddingGPT2(GPT2):
    def embed(self, inputs):
        return self.layer("Embedding-Scale", tfl.Scale, factor=self.config.hidden_size**0.5)(super().embed(inputs))


class ScaledEmbeddingReference(Reference):
    def embed(self, ids):
        return 48**0.5 * super().embed(ids)


# ---- feed_forward and dropout: nothing of the kind, the identity


class LessFeedForwardGPT2(GPT2):
    def feed_forward(self, name, x, **arguments):
        return self.layer(f"{name}-Half", tfl.Scale, factor=0.5)(super().feed_forward(name, x, **arguments))

    def dropout(self, name, x, rate=None):
        return self.layer(f"{name}-Double", tfl.Scale, factor=2.0)(super().dropout(name, x, rate))


class LessFeedForwardReference(Reference):
    def embed(self, ids):
        return 2 * super().embed(ids)

    def attention(self, x, name):
        return 2 * super().attention(x, name)


# ---- head: an optional part with weights of its own


class BiasedGPT2(GPT2):
    heads = (*GPT2.heads, Head("logit_bias", "with_logit_bias", True, False))
    vocabulary_axes = {**GPT2.vocabulary_axes, "Logit-Bias/bias": 0}

    def __init__(self, config, *, with_logit_bias=False, **options):
        super().__init__(config, **options)
        self.with_logit_bias = with_logit_bias

    def language_model(self, x):
        x = super().language_model(x)
        return self.layer("Logit-Bias", tfl.Bias)(x) if self.with_logit_bias else x


class BiasedReference(Reference):
    def head(self, x):
        return super().head(x) + self.tensors["logit_bias"]


# ---- own variables: a learned number on the attention's output


@serializable("Gain")
class Gain(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")

    def call(self, x):
        return x * ops.cast(self.gain, x.dtype)


class GainedGPT2(GPT2):
    def attention(self, name, x, bias, memory=None, **arguments):
        return self.layer(f"{name}-Gain", Gain)(super().attention(name, x, bias, memory, **arguments))


class GainedReference(Reference):
    def attention(self, x, name):
        return super().attention(x, name) * self.tensors[f"{name.removesuffix('.attn')}.gain"]


# ---- what no cache of keys and values can hold: a layer that mixes positions


@serializable("Shift")
class Shift(keras.layers.Layer):
    """Adds to each position the one before it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x + ops.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1]


class ShiftedGPT2(GPT2):
    def block(self, x, index):
        return super().block(self.layer(f"Transformer-{index}-Shift", Shift)(x), index)


class ShiftedReference(Reference):
    def block(self, x, name):
        return super().block(x + np.pad(x, [[1, 0], [0, 0]])[:-1], name)


GAINS = (row("Transformer-{layer}-MultiHeadSelfAttention-Gain/gain", "transformer.h.{layer}.gain"),)
LOGIT_BIAS = (row("Logit-Bias/bias", "logit_bias", part="logit_bias"),)

GUESTS = (
    Guest("attention_bias", WindowGPT2, WindowReference, cannot_step="asked for the text so far"),
    Guest("scores", CappedGPT2, CappedReference),
    Guest("context", SharpGPT2, SharpReference),
    Guest("vectors", DistanceGPT2, DistanceReference),
    Guest("apply_positions", HalfRotaryGPT2, HalfRotaryReference),
    Guest("block", ParallelGPT2, ParallelReference),
    Guest("add", WeightedGPT2, WeightedReference),
    Guest("norm", ScaledNormGPT2, ScaledNormReference),
    Guest("embed", ScaledEmbeddingGPT2, ScaledEmbeddingReference),
    Guest("feed_forward", LessFeedForwardGPT2, LessFeedForwardReference),
    Guest(
        "head",
        BiasedGPT2,
        BiasedReference,
        LOGIT_BIAS,
        {"logit_bias": np.random.default_rng(5).normal(size=297)},
        {"with_logit_bias": True},
    ),
    Guest("variables", GainedGPT2, GainedReference, GAINS, {"transformer.h.{layer}.gain": 2.0}),
    Guest("mixing", ShiftedGPT2, ShiftedReference, cannot_generate="ShiftedGPT2", cannot_step="ShiftedGPT2"),
)
