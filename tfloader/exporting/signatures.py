"""A Keras model as named TensorFlow functions: the model itself, and for language models `prefill` and `step`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.exporting.decoding import IDS, CachedDecoding

SERVE, TEXT, PREFILL, STEP = "serving_default", "serving_text", "prefill", "step"

# The field's names of our inputs; any other is its layer's name in lower case with underscores.
INPUTS = {
    "Input-Token": "input_ids",
    "Input-Segment": "token_type_ids",
    "Input-Position": "position_ids",
    "Input-Mask": "attention_mask",
    "Encoder-Input-Token": "input_ids",
    "Decoder-Input-Token": "decoder_input_ids",
    "Encoder-Input-Mask": "attention_mask",
    "Input-Context": "encoder_hidden_states",
}
# Pattern of the layer that makes an output -> the output's name.
OUTPUTS = {
    r"Embedding-Token|Decoder-Output-LM": "logits",
    r"LM-Activation|Decoder-Output-LM-Activation": "probabilities",
    r"MLM-Bias": "mlm_logits",
    r"MLM-Activation": "mlm_probabilities",
    r"Pooler-Dense": "pooler_output",
    r"Classifier(-Output|-Score)?|Answer-Span": "logits",
    r".*-FeedForward-Norm(-1)?|(Encoder|Decoder)-Output-Dropout": "last_hidden_state",
}


@dataclass(frozen=True)
class Signature:
    """A function of named tensors that gives named tensors; in the specs None stands for sizes that vary."""

    function: Callable[..., dict[str, Any]]  # a concrete function of the inputs in their order
    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]

    @classmethod
    def of(cls, function: Callable[..., dict[str, Any]], inputs: Mapping[str, tf.TensorSpec]) -> Signature:
        named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in inputs.items()}

        def by_name(*values: Any) -> dict[str, Any]:
            return function(**dict(zip(named, values, strict=True)))

        # Concrete, or else TensorFlow would trace it anew when it saves it.
        compiled = tf.function(by_name, input_signature=list(named.values()), autograph=False).get_concrete_function()
        found = compiled.structured_outputs
        outputs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in found.items()}
        return cls(compiled, named, outputs)


def model_signature(model: keras.Model) -> Signature:
    """The model as it is called for inference; sizes that it leaves open stay open."""
    names = unique([INPUTS.get(item.name) or identifier(item.name) for item in model.inputs], "inputs")
    outputs = unique([output_name(name) for name in model.output_names], "outputs")
    specs = [tf.TensorSpec(item.shape, item.dtype) for item in model.inputs]

    def serve(**inputs: Any) -> dict[str, Any]:
        values = [inputs[name] for name in names]
        found = model(values if len(values) > 1 else values[0], training=False)
        return dict(zip(outputs, keras.tree.flatten(found), strict=True))

    return Signature.of(serve, dict(zip(names, specs, strict=True)))


def decoding_signatures(model: keras.Model) -> dict[str, Signature]:
    """`prefill` and `step`; see `CachedDecoding`.

    Raises:
        ConfigError: the model cannot generate, or not with a cache.
    """
    transformer = getattr(model, "transformer", None)
    if transformer is None:
        raise ConfigError("Only a model that tfloader.load returned can be exported with a decoding step.")
    decoding = CachedDecoding(transformer)
    needed = [name for name, value in transformer.as_language_model.items() if value]
    lacking = [name for name in needed if not getattr(transformer, name)]
    if lacking:
        raise ConfigError(f"A decoding step needs scores of tokens: build the model with {', '.join(lacking)}.")
    prefill = Signature.of(decoding.prefill, {"input_ids": IDS, "attention_mask": IDS})
    return {PREFILL: prefill, STEP: Signature.of(decoding.step, decoding.step_inputs(prefill.outputs))}


def unique(names: list[str], what: str) -> list[str]:
    if len(set(names)) < len(names):
        raise ConfigError(f"The model's {what} would be called {', '.join(names)}: give the layers different names.")
    return names


def identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()


def output_name(layer: str) -> str:
    return next((name for pattern, name in OUTPUTS.items() if re.fullmatch(pattern, layer)), identifier(layer))


@dataclass(frozen=True)
class Limits:
    """What a model's layers say about its input."""

    vocab_size: int
    dtype: str  # that it computes in
    pad_token_id: int | None = None  # which the model hides
    causal: bool = False  # whether no token sees a later one
    positions: int | None = None  # longest input
    segments: int = 1  # number of segment ids

    @classmethod
    def of(cls, model: keras.Model) -> Limits:
        found: dict[str, Any] = {}
        reserved = 0  # rows of positions that no real token has
        for layer in layers_of(model):
            if isinstance(layer, tfl.TokenEmbedding):
                found |= {"vocab_size": layer.input_dim, "dtype": layer.compute_dtype}
            elif isinstance(layer, tfl.AttentionMask):
                found["causal"] = found.get("causal", True) and layer.kind == "lm"
                if layer.pad_token_id is not None:
                    found["pad_token_id"] = layer.pad_token_id
            elif isinstance(layer, tfl.PositionRows):
                reserved = layer.pad_token_id + 1
            elif isinstance(layer, tfl.PositionEmbedding):
                found["positions"] = -reserved + layer.input_dim ** (1 if layer.hierarchical is None else 2)
            elif layer.name.endswith("Embedding-Segment") and isinstance(layer, keras.layers.Embedding):
                found["segments"] = layer.input_dim
        if "vocab_size" not in found:
            raise ConfigError("This model has no token embedding of tfloader: nothing is known about its input.")
        return cls(**found)


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)


def sample(signature: Signature, limits: Limits, batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random input for a model's signature, with padding behind the last row's first token."""
    random = np.random.default_rng(seed)
    found = {}
    for name, spec in signature.inputs.items():
        open_sizes = iter((batch, length))
        shape = [next(open_sizes, length) if size is None else size for size in spec.shape]
        value = random.normal(size=shape) if spec.dtype.is_floating else np.zeros(shape)
        if name.endswith("input_ids"):
            value = random.integers(0, limits.vocab_size, shape)
            if limits.pad_token_id is not None:
                value[-1, 1:] = limits.pad_token_id
        elif name == "token_type_ids":
            value = np.sort(random.integers(0, limits.segments, shape), axis=-1)
        elif name == "position_ids":
            value += np.arange(shape[-1])
        elif name == "attention_mask":
            value += 1
            value[-1, 1:] = 0
        found[name] = value.astype(spec.dtype.as_numpy_dtype)
    return found
