"""`Transformer`: assembles a Keras graph out of named layers. A family overrides what it does differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfloader import layers as tfl
from tfloader.config import APPLICATIONS, TransformerConfig
from tfloader.errors import ConfigError, listing
from tfloader.models.heads import Parts
from tfloader.models.vocabulary import VocabularyCut, is_whole

if TYPE_CHECKING:
    from typing import Self

DTYPES = ("float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16", "float64")


class Transformer(Parts):
    """The shared part of all families: options, named layers, blocks, vocabulary cuts.

    A family overrides `make_inputs`, `attention_bias`, `embed`, `block` and `head` as far as it differs, and names its
    layers as bert4keras did. A layer is made once by name and may be applied in several graphs; these methods work on
    Keras' symbolic tensors when a model is built, and on real ones when text is generated.

    Args:
        config: what the checkpoint's config file says.
        dtype: dtype policy of all layers ("float32", "bfloat16", "mixed_bfloat16" ...); None: Keras' global one.
        prefix: put before every layer's name, for two models in one graph.
        layers: layers to share, by name (as in another Transformer's `layers`).
        sequence_length: fixes the length of the inputs.
        keep_tokens: ids of the tokens to keep, in their new order; the vocabulary's tables are cut when loading.
        compound_tokens: new tokens, each a list of ids (after `keep_tokens`) or (ids, weights); a new row is the
            (weighted) mean of theirs.
        residual_attention_scores: True adds all earlier layers' scores to a layer's (RealFormer, He et al., 2020);
            "previous" only the last layer's, as bert4keras did.
        layer_norm_cond: a Keras tensor [batch, size]; every normalisation becomes conditional on it.
        layer_norm_cond_hidden_size, layer_norm_cond_hidden_act: a dense layer in between.
        additional_input_layers: Keras input tensor(s) appended to the model's inputs.
        head: a head for a task, by name: "classification", "token_classification", "question_answering" or
            "multiple_choice", as far as the family has them; True: the one that the config names; False: none, and its
            tensors may stay unread.
        num_labels: of a new head, where the config names no labels or another number of them.

    Attributes:
        model: the Keras model, after `build()`.
        layers: all layers by name.
        config: the config with its vocabulary size after keep_tokens and compound_tokens, and the head that is there.
        source_vocab_size: rows of the vocabulary tables in the checkpoint.
        hidden_states: Keras tensors after `build()`: the embeddings, and what each layer gives (empty for T5). With
            them, `keras.Model(model.inputs, transformer.hidden_states[-4:])`.
        positions: what `embed` computed for an attention that takes positions (the rotations of RoFormer).
    """

    # Variables with a vocabulary axis: what keep_tokens and compound_tokens cut.
    vocabulary_axes: Mapping[str, int] = {"Embedding-Token/embeddings": 0}
    # Config fields of special tokens that keep_tokens must keep in their places.
    fixed_tokens: Sequence[str] = ()
    # What bert4keras did differently: config field -> its value for ours.
    bert4keras_habits: Mapping[str, Callable[[Any], Any]] = {}
    # bert4keras' further names of the family -> the options that go with each.
    aliases: Mapping[str, Mapping[str, Any]] = {}
    # Options, or config fields, that are not possible for the family -> why.
    refuses: dict[str, str] = {}
    # Application -> the options with which build_transformer_model gives probabilities, as bert4keras did.
    bert4keras_defaults: Mapping[str, Mapping[str, Any]] = {}
    applications: Sequence[str] = APPLICATIONS
    attention_class: type[keras.layers.Layer] = tfl.MultiHeadAttention
    # Attributes under which `head` gives just the logits of the next token: what generation sets on its copy.
    as_language_model: Mapping[str, Any] = {}
    # Whether generation answers whole sources (encoder-decoders); else it continues prompts.
    answers_sources = False
    # Whether texts end with the tokenizer's [SEP], whatever the config's eos_token_id says.
    ends_with_sep = False
    # What generation sets on its copy: how a layer is called, and where attention finds keys and values of earlier
    # positions (see `tfloader.layers.attention.Uncached`).
    form: Callable[[Any], Any] = staticmethod(lambda layer: layer)
    cache: Any = None

    def __new__(cls, config: TransformerConfig | None = None, **options: Any) -> Self:
        """Refuses, before anything is made, what is not possible for the family."""
        given = {name: options.get(name, getattr(config, name, None)) for name in cls.refuses}
        refused = [name for name, value in given.items() if value is not None and value is not False]
        if refused:
            reasons = listing(f"{name}: {cls.refuses[name]}" for name in refused)
            raise ConfigError(f"{cls.__name__} models cannot have these options; leave them out:\n{reasons}")
        return super().__new__(cls)

    def __init__(
        self,
        config: TransformerConfig,
        *,
        dtype: Any = None,
        prefix: str = "",
        layers: Mapping[str, keras.layers.Layer] | None = None,
        sequence_length: int | None = None,
        keep_tokens: Sequence[int] | None = None,
        compound_tokens: Sequence[Any] | None = None,
        residual_attention_scores: bool | str = False,
        layer_norm_cond: Any = None,
        layer_norm_cond_hidden_size: int | None = None,
        layer_norm_cond_hidden_act: str = "linear",
        additional_input_layers: Any = None,
        head: str | bool | None = None,
        num_labels: int | None = None,
    ) -> None:
        config = self.with_head(config, head, num_labels)
        self.without_head, self.head_layers = head is False, {}
        if config.application not in self.applications:
            raise ConfigError(
                f"application={config.application!r} is not possible for {config.family!r}; "
                f"it has {', '.join(self.applications)}."
            )
        self.source_vocab_size = config.vocab_size
        self.vocabulary = VocabularyCut(config.vocab_size, keep_tokens, compound_tokens, config.uncut_vocab_size)
        self.config = config.replace(vocab_size=self.vocabulary.size, uncut_vocab_size=self.vocabulary.uncut_size)
        self.dtype_policy = _policy(dtype)
        self.prefix = prefix
        self.layers: dict[str, keras.layers.Layer] = {} if layers is None else dict(layers)
        if sequence_length is not None and (not is_whole(sequence_length) or sequence_length < 1):
            raise ConfigError(f"sequence_length must be a positive integer, found {sequence_length!r}.")
        self.sequence_length = sequence_length
        self.residual_attention_scores = residual_attention_scores
        self.layer_norm_cond = layer_norm_cond
        self.layer_norm_cond_hidden = {
            "hidden_units": layer_norm_cond_hidden_size,
            "hidden_activation": layer_norm_cond_hidden_act,
        }
        self.additional_inputs = keras.tree.flatten([] if additional_input_layers is None else additional_input_layers)
        self.initializer = tfl.TruncatedNormal(stddev=config.initializer_range)
        self.release: Any = None
        self.model: keras.Model | None = None
        self.inputs: dict[str, Any] = {}
        self.bias: Any = None
        self.hidden_states: list[Any] = []
        self.positions: Any = None
        self._scores: Any = None

    # ---- what a family overrides

    def make_inputs(self) -> dict[str, Any]:
        """The model's inputs by name, in order."""
        return {"Input-Token": self.input("Input-Token")}

    def attention_bias(self, inputs: dict[str, Any]) -> Any:
        """What is added to all attention scores: 0 where a query may look, hugely negative where not."""
        mask = self.layer(
            "Attention-Mask", tfl.AttentionMask, kind=self.config.application, pad_token_id=self.config.pad_token_id
        )
        segments = inputs.get("Input-Segment") if self.config.application == "unilm" else None
        return mask(inputs["Input-Token"], segment_ids=segments, mask_input=inputs.get("Input-Mask"))

    def embed(self, inputs: dict[str, Any]) -> Any:
        """Inputs -> [batch, length, hidden]."""
        raise NotImplementedError

    def block(self, x: Any, index: int) -> Any:
        """One Transformer block."""
        raise NotImplementedError

    def head(self, x: Any) -> Any:
        """Last hidden states -> the model's output(s)."""
        return x

    # ---- assembling

    def build(self) -> Transformer:
        """Makes the Keras model."""
        self.inputs = inputs = self.make_inputs()
        self.bias = self.attention_bias(inputs)
        self.hidden_states = self.blocks(self.embed(inputs))
        self.model = self.make_model(list(inputs.values()), self.head(self.hidden_states[-1]))
        return self

    @property
    def num_blocks(self) -> int:
        return self.config.num_hidden_layers

    def blocks(self, x: Any) -> list[Any]:
        """The embeddings, and what each block gives."""
        states = [x]
        for index in range(self.num_blocks):
            states.append(self.block(states[-1], index))
        return states

    def make_model(self, inputs: list[Any], outputs: Any, name: str | None = None) -> keras.Model:
        inputs = [*inputs, *self.additional_inputs]
        model = keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=name)
        model.transformer = self
        return model

    def input(self, name: str, dtype: str = "int32", shape: tuple | None = None) -> Any:
        """An input [batch, length], or of another shape."""
        shape = (self.sequence_length,) if shape is None else shape
        return keras.Input(shape, dtype=dtype, name=self.prefix + name)

    def layer(self, name: str, layer_class: type[keras.layers.Layer], /, **arguments: Any) -> keras.layers.Layer:
        """The layer of that name, made at its first use."""
        name = self.prefix + name
        if name not in self.layers:
            self.layers[name] = layer_class(name=name, dtype=self.dtype_policy.name, **arguments)
        return self.form(self.layers[name])

    def dense(self, name: str, units: int, activation: Any = None, **arguments: Any) -> keras.layers.Layer:
        return self.layer(
            name,
            keras.layers.Dense,
            units=units,
            activation=activation,
            kernel_initializer=self.initializer,
            **arguments,
        )

    def dropout(self, name: str, x: Any, rate: float | None = None) -> Any:
        rate = self.config.hidden_dropout_prob if rate is None else rate
        return self.layer(name, keras.layers.Dropout, rate=rate)(x)

    def add(self, name: str, *tensors: Any) -> Any:
        return self.layer(name, tfl.Add)(list(tensors))

    def residual(self, name: str, x: Any, y: Any) -> Any:
        """x + dropout(y), the end of the sublayer of that name."""
        return self.add(f"{name}-Add", x, self.dropout(f"{name}-Dropout", y))

    def norm(self, name: str, x: Any, rms: bool = False, epsilon: float | None = None) -> Any:
        """Layer normalisation (or RMS), conditional where the model is."""
        epsilon = self.config.layer_norm_eps if epsilon is None else epsilon
        if self.layer_norm_cond is None:
            plain = tfl.RMSNormalization if rms else keras.layers.LayerNormalization
            return self.layer(name, plain, epsilon=epsilon)(x)
        kind = tfl.ConditionalRMSNormalization if rms else tfl.ConditionalLayerNormalization
        return self.layer(name, kind, epsilon=epsilon, **self.layer_norm_cond_hidden)(x, self.layer_norm_cond)

    def token_embedding(self) -> keras.layers.Layer:
        return self.layer(
            "Embedding-Token",
            tfl.TokenEmbedding,
            input_dim=self.config.vocab_size,
            output_dim=self.config.embedding_size or self.config.hidden_size,
            pad_token_id=self.config.pad_token_id,
            embeddings_initializer=self.initializer,
        )

    def attention(self, name: str, x: Any, bias: Any, memory: Any = None, **arguments: Any) -> Any:
        """Multi-head attention, with RealFormer's residual scores where they are asked for."""
        residual = bool(self.residual_attention_scores) and memory is None
        layer = self.layer(
            name,
            self.attention_class,
            num_heads=self.config.num_attention_heads,
            head_size=self.config.head_size,
            output_size=self.config.hidden_size,
            dropout=self.config.attention_probs_dropout_prob,
            kernel_initializer=self.initializer,
            return_scores=residual,
            **arguments,
        )
        if not residual:
            cached = {} if self.cache is None else {"cache": self.cache}
            return layer(x, memory=memory, bias=bias, positions=self.positions, **cached)
        output, scores = layer(x, bias=bias, residual_scores=self._scores, positions=self.positions)
        if self._scores is not None and self.residual_attention_scores != "previous":
            scores = self.add(f"{name}-Scores", self._scores, scores)
        self._scores = scores
        return output

    def feed_forward(self, name: str, x: Any, **arguments: Any) -> Any:
        return self.layer(
            name,
            tfl.FeedForward,
            intermediate_size=self.config.intermediate_size,
            activation=self.config.hidden_act,
            gated=self.config.gated_feed_forward,
            kernel_initializer=self.initializer,
            **arguments,
        )(x)

    def activate(self, name: str, x: Any, kind: bool | str | None) -> Any:
        """An activation layer; True means softmax, None and "linear" nothing at all."""
        kind = "softmax" if kind is True else kind
        return x if kind in (None, "linear") else self.layer(name, keras.layers.Activation, activation=kind)(x)

    # ---- generation

    @property
    def can_generate(self) -> bool:
        """Whether it is a language model."""
        return self.config.application != "encoder" and not self.config.head

    def no_generation_with(self) -> list[str]:
        """The options in force with which generation is not implemented."""
        return Transformer.beyond_the_weights(self)

    # ---- weights

    def variable(self, path: str) -> Any:
        """The variable of a naming table's path, `Layer-Name/attribute/.../variable`; None if the model lacks it."""
        name, *attributes = path.split("/")
        found: Any = self.layers.get(self.prefix + name)
        for attribute in attributes:
            found = getattr(found, attribute, None)
        return found

    def source_shape(self, path: str) -> tuple[int, ...]:
        """The shape that a variable has in the checkpoint, before keep_tokens and compound_tokens."""
        shape = list(self.variable(path).shape)
        if path in self.vocabulary_axes:
            shape[self.vocabulary_axes[path]] = self.source_vocab_size
        return tuple(shape)

    def cut_vocabulary(self, path: str, array: np.ndarray) -> np.ndarray:
        """Applies keep_tokens and compound_tokens to a variable's array, where they concern it."""
        axis = self.vocabulary_axes.get(path)
        return array if axis is None else self.vocabulary.apply(array, axis)

    def beyond_the_weights(self) -> list[str]:
        """Options in force that change what the model computes, but that no checkpoint format can note."""
        scores, condition = bool(self.residual_attention_scores), self.layer_norm_cond is not None
        return ["residual_attention_scores"] * scores + ["layer_norm_cond"] * condition

    def load_weights_from_checkpoint(self, checkpoint: Any, **options: Any) -> None:
        """Fills every variable from a checkpoint (path or mapping of arrays), or none of them.

        Raises:
            WeightsError, CheckpointError: see `tfloader.weights.load_weights`.
        """
        from tfloader.weights import load_weights

        load_weights(self, checkpoint, **options)


def _policy(dtype: Any) -> Any:
    """The dtype policy of a name; None is Keras' global one."""
    if dtype is None:
        return keras.config.dtype_policy()
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", str(dtype))
    if name not in DTYPES:
        raise ConfigError(f"dtype={name!r} is not supported; there are {', '.join(DTYPES)}.")
    return keras.DTypePolicy(name)
