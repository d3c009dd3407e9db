"""What is optional in a family, as data: the part of its naming tables, and the builder option that makes it.

And the heads for tasks (`head="classification"`), which are transformers' own: of a family's, the config names one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfloader import layers as tfl
from tfloader.config import MOST_LABELS, TransformerConfig, shown, unnamed_labels
from tfloader.errors import ConfigError
from tfloader.layers.activations import activation
from tfloader.naming.heads import LABELLED, PART


@dataclass(frozen=True)
class Head:
    """An optional part of a family's models: a head, or one half of an encoder-decoder.

    Attributes:
        part: what its rows in the naming tables are marked with: `row(..., part="mlm")`.
        option: the builder option that makes it; the family keeps its value in an attribute of the same name.
        present: the option's value with the part; for a classifier, the one that gives logits.
        absent: the option's value without it. Where several parts have one option, an absent part decides.
    """

    part: str
    option: str
    present: Any
    absent: Any


@dataclass(frozen=True)
class TaskHead:
    """A head for a task: a dense layer over what it reads of the last hidden states; it gives logits.

    Attributes:
        reads: from the Transformer and the hidden states [batch, length, hidden] to what is scored.
        name: of the dense layer.
        units: its scores; None: one for each label.
    """

    reads: Callable[[Any, Any], Any]
    name: str = "Classifier"
    units: int | None = None
    use_bias: bool = True

    def __call__(self, transformer: Any, x: Any) -> Any:
        x = self.reads(transformer, x)
        units = self.units or len(transformer.config.id2label)
        return transformer.dense(self.name, units, use_bias=self.use_bias)(x)


def outputs_or(x: Any, outputs: Sequence[Any]) -> Any:
    """A model's outputs, or the hidden states of one that has no heads."""
    return x if not outputs else outputs[0] if len(outputs) == 1 else list(outputs)


def dropped(transformer: Any, x: Any) -> Any:
    return transformer.dropout("Classifier-Dropout", x, transformer.config.classifier_dropout_prob)


def pooled(transformer: Any, x: Any) -> Any:
    return dropped(transformer, transformer.pooled(x))


def first_through_dense(name: str, act: str | None = None, before: bool = True) -> Callable[[Any, Any], Any]:
    """The first token's vector through a dense layer; `act` None: the config's activation; `before`: dropout there."""

    def read(transformer: Any, x: Any) -> Any:
        x = transformer.layer("Classifier-Token", tfl.FirstToken)(x)
        x = dropped(transformer, x) if before else x
        act_here = activation(act or transformer.config.hidden_act)
        return dropped(transformer, transformer.dense(name, transformer.config.hidden_size, act_here)(x))

    return read


def last_position(transformer: Any, x: Any) -> Any:
    return transformer.layer("Classifier-Token", tfl.LastToken)(x)


def last_token(transformer: Any, x: Any) -> Any:
    """The vector of the last token that is no padding."""
    pad = transformer.config.pad_token_id
    if pad is None:
        raise ConfigError(
            "A classification reads the last token that is no padding, but pad_token_id is None: give "
            "pad_token_id=..., the id that fills shorter texts up."
        )
    return transformer.layer("Classifier-Token", tfl.LastToken, pad_token_id=pad)(x, transformer.inputs["Input-Token"])


TOKENS, SPAN = TaskHead(dropped), TaskHead(lambda _, x: x, "Answer-Span", 2)  # start and end
FOR_TOKENS = {"token_classification": TOKENS, "question_answering": SPAN}


class Parts:
    """The optional parts of a family, of which a Transformer is built with some.

    Attributes:
        head_layers: after `build()`, the layers that are there for the head for a task alone, by name.
    """

    # The optional parts of the family's naming tables, each with the option that makes it.
    heads: Sequence[Head] = ()
    # The heads for tasks, by what `head=...` and the config call them.
    task_heads: Mapping[str, TaskHead] = {}
    config: TransformerConfig
    layers: dict[str, keras.layers.Layer]
    prefix: str
    without_head: bool
    head_layers: dict[str, keras.layers.Layer]

    @classmethod
    def options_for(cls, parts: Collection[str]) -> dict[str, Any]:
        """The builder options under which a model has just these of its optional parts, giving logits."""
        present = {head.option: head.present for head in cls.heads if head.part in parts}
        absent = {head.option: head.absent for head in cls.heads if head.part not in parts}
        return present | absent | ({"head": PART in parts} if cls.task_heads else {})

    @property
    def left_out(self) -> set[str]:
        """Optional parts that this model was built without; their tensors may stay unread."""
        absent = {head.part for head in self.heads if getattr(self, head.option) in (head.absent, None)}
        return absent | ({PART} if self.without_head else set())

    @classmethod
    def with_head(cls, config: TransformerConfig, head: str | bool | None, labels: int | None) -> TransformerConfig:
        """The config of a model with a head: one by its name, True for the one that the config names, else none.

        Raises:
            ConfigError: there is no such head, or it has no labels.
        """
        heads = ", ".join(map(repr, cls.task_heads)) or "none"
        if head is True and not config.head:
            raise ConfigError(f"head=True is the head that the config names, but it names none: give one of {heads}.")
        head = config.head if head is True else head or None
        if head is not None and head not in cls.task_heads:
            raise ConfigError(f"head={shown(head)}: a {config.family!r} model has none of this kind; it has {heads}.")
        known = len(config.id2label)
        if labels is not None:
            if head not in LABELLED:
                raise ConfigError(f"num_labels is for {' and '.join(map(repr, LABELLED))}; head is {head!r}.")
            if isinstance(labels, bool) or not isinstance(labels, int) or not 0 < labels <= MOST_LABELS:
                raise ConfigError(f"num_labels must be a number from 1 to {MOST_LABELS}, found {shown(labels)}.")
        wanted = labels or known or 2 if head in LABELLED else known
        return config.replace(head=head, id2label=config.id2label if wanted == known else unnamed_labels(wanted))

    def task_head(self, x: Any) -> Any:
        """Last hidden states -> the logits of the head that the config names."""
        before = set(self.layers)
        found = self.task_heads[str(self.config.head)](self, x)
        new = {name: layer for name, layer in self.layers.items() if name not in before}
        self.head_layers = {name.removeprefix(self.prefix): layer for name, layer in new.items()}
        return found
