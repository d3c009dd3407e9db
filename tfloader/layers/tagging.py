"""What layers that tag sequences share: marked padding, faster weights, losses and metrics that find their layer.

Such a layer passes on the scores of each tag, with padding marked in the scores themselves, so that the loss sees the
mask in every mode of training; its own weights act in the loss, the metrics and `decode`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import ConfigError
from tfloader.faults import fault, whole_ids
from tfloader.layers import chain
from tfloader.layers.base import MaskReader, Unmasked
from tfloader.layers.masking import padded
from tfloader.losses.common import CheckedLoss, as_float32, refuse_class_weight
from tfloader.optimizers.building import build_optimizer_around, refuse_steps_by_weights


@keras.saving.register_keras_serializable("tfloader")
class LayerLink:
    """Stands for a layer in the saved config of a loss, a metric or a decoder, which must not save the layer itself.

    Both sides save the same link, and Keras gives it back to both as one object when it loads the model.
    """

    layer: TaggingLayer | None = None

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayerLink:
        return cls()

    def serialize(self) -> dict[str, Any]:
        # Keras marks an object as shared from the second time on, too late for the copy that it has already made.
        keras.saving.serialize_keras_object(self)
        return keras.saving.serialize_keras_object(self)

    def find(self) -> TaggingLayer:
        """The layer.

        Raises:
            ConfigError: the model was saved without it, or it was never called.
        """
        if self.layer is None or not self.layer.built:
            raise ConfigError(
                "This loss, metric or decoder does not know its layer's weights: the layer was never called, or the "
                "model was loaded without it, or cloned. Make it again from the layer of this model: compile the model "
                "again, or call the layer's `decode` on its output."
            )
        return self.layer


class Linked(keras.losses.Loss if TYPE_CHECKING else object):
    """A loss, metric or decoder, or their layer, which is saved with the link between them."""

    link: LayerLink

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "link": self.link.serialize()}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**{**config, "link": keras.saving.deserialize_keras_object(config["link"])})


@keras.saving.register_keras_serializable("tfloader")
class TaggingLoss(Linked, CheckedLoss):
    """The loss that a tagging layer computes from labels and from its output, one value a sequence.

    Labels are ids [batch, length] (or [batch, length, 1]), or one-hot rows [batch, length, tags]; at padding they may
    be anything. A sequence with another label, or with a row that is not one-hot, gives NaN, and outside XLA TensorFlow
    stops with an InvalidArgumentError that shows it. Sample weights are one number a sequence.
    """

    def __init__(self, link: LayerLink, name: str = "sparse_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.link = link

    def check(self, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        super().check(y_true, y_pred, sample_weight)
        if sample_weight is not None and len(sample_weight.shape) > 1 and sample_weight.shape[-1] != 1:
            raise ConfigError(
                f"sample_weight has shape {tuple(sample_weight.shape)}; this loss has one value a sequence, so it must "
                "be [batch]. To leave positions out, pass a mask to the layer."
            )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.link.find().sequence_losses(y_true, y_pred)


@keras.saving.register_keras_serializable("tfloader")
class TaggingAccuracy(Linked, keras.metrics.Mean):
    """The share of right tags among all real positions of all batches, by a layer's method `hits(labels, output)`.

    Labels as in the loss; sample weights one number a sequence or a position.
    """

    def __init__(self, link: LayerLink, hits: str, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.link = link
        self.hits = hits

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        weights = ops.cast(chain.real_positions(y_pred), self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            weights = weights * ops.reshape(sample_weight, (ops.shape(weights)[0], -1))
        return super().update_state(getattr(self.link.find(), self.hits)(y_true, y_pred), weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hits": self.hits}


@keras.saving.register_keras_serializable("tfloader")
class TagDecoder(Linked, Unmasked):
    """A tagging layer's `decode` within a model: the layer's output -> tags, int32 [batch, length]."""

    def __init__(self, link: LayerLink, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.link = link

    def call(self, emissions: Any) -> Any:
        return self.link.find().decode(emissions)

    def compute_output_spec(self, emissions: Any) -> Any:
        return keras.KerasTensor(emissions.shape[:2], "int32")


class TaggingLayer(Linked, MaskReader):
    """Base of the layers whose weights score the sequence of tags: [batch, length, tags] -> the same in float32.

    The output is the input, but at padding every tag scores `masking.MASKED`; that mark is the mask for the loss, the
    metrics and the decoder. It comes from the Keras mask of the input or from the argument `mask` [batch, length],
    which may have holes: real positions then follow one another as if nothing lay between. Without a mask all positions
    are real. A row of padding only has loss 0.

    Subclasses define `sequence_losses`, `greedy_hits` and `best_paths`.

    Args:
        lr_multiplier: how many times as fast as the rest of the model the layer's own weights learn. They are stored
            divided by it and multiplied where they are used, while their gradient passes unmultiplied: an optimizer
            whose step depends on gradients alone (SGD, momentum, RMSprop, the Adam family, Lion) moves the effective
            weights exactly so many times as far. Weight decay takes the same share of them as without it. Adafactor
            and LAMB, which scale their step by the size of the weights, would undo it, and raise a TrainingError in
            `fit`: there give the optimizer a multiplier instead.
        link: by which losses and metrics find the layer; a saved model has it.
    """

    @public
    def __init__(self, lr_multiplier: float = 1, link: LayerLink | None = None, **kwargs: Any) -> None:
        # Scores that come in float32 shall not be rounded on the way in.
        super().__init__(autocast=False, **kwargs)
        if not (lr_multiplier > 0 and math.isfinite(lr_multiplier)):
            raise ConfigError(f"lr_multiplier is {lr_multiplier!r}; it must be a positive number.")
        self.lr_multiplier = lr_multiplier
        self.link = link or LayerLink()
        self.link.layer = self

    def build(self, emissions_shape: Any) -> None:
        self.num_tags = emissions_shape[-1]
        if len(emissions_shape) != 3 or self.num_tags is None or self.num_tags < 2:
            raise ConfigError(
                f"{type(self).__name__} got scores of shape {tuple(emissions_shape)}; expected [batch, length, tags] "
                "with at least 2 tags."
            )

    def call(self, emissions: Any, mask: Any = None) -> Any:
        build_optimizer_around(self)
        if self.lr_multiplier != 1:
            refuse_steps_by_weights(self, self.trainable_weights, f"{self.name}: lr_multiplier={self.lr_multiplier:g}")
        emissions = as_float32(emissions)
        return emissions if mask is None else chain.mark_padding(emissions, mask)

    # ---- weights

    def add_multiplied_weight(self, name: str, shape: tuple[int, int]) -> keras.Variable:
        """A weight stored divided by `lr_multiplier`; its effective values start as Glorot-uniform ones."""

        def initializer(shape, dtype):
            return keras.initializers.GlorotUniform()(shape, dtype) / self.lr_multiplier

        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def multiplied(self, weight: keras.Variable) -> Any:
        """lr_multiplier * weight, whose gradient reaches the weight as if the factor were 1."""
        weight = as_float32(weight)
        return weight + ops.stop_gradient((self.lr_multiplier - 1) * weight)

    # ---- loss and metrics

    @property
    def metrics(self) -> list[Any]:
        """As Keras has it, which asks before each training; a loss is called only while a step is traced."""
        refuse_class_weight()
        return super().metrics

    @property
    def sparse_loss(self) -> TaggingLoss:
        """For `compile(loss=...)`, with labels as ids or one-hot rows."""
        return TaggingLoss(self.link, name="sparse_loss")

    @property
    def dense_loss(self) -> TaggingLoss:
        """bert4keras' name of the loss with one-hot rows: the same as `sparse_loss`."""
        return TaggingLoss(self.link, name="dense_loss")

    @property
    def sparse_accuracy(self) -> TaggingAccuracy:
        """For `compile(metrics=[...])`: accuracy of each tag by itself, without a search for the best path."""
        return TaggingAccuracy(self.link, "greedy_hits", name="sparse_accuracy")

    @property
    def dense_accuracy(self) -> TaggingAccuracy:
        """bert4keras' name for one-hot rows: the same as `sparse_accuracy`."""
        return TaggingAccuracy(self.link, "greedy_hits", name="dense_accuracy")

    @property
    def viterbi_accuracy(self) -> TaggingAccuracy:
        """For `compile(metrics=[...])`: accuracy of the tags of the best path, which is what `decode` gives."""
        return TaggingAccuracy(self.link, "viterbi_hits", name="viterbi_accuracy")

    def sequence_losses(self, labels: Any, emissions: Any) -> Any:
        """[batch]: the loss of each sequence, from labels and the layer's output."""
        raise NotImplementedError

    def greedy_hits(self, labels: Any, emissions: Any) -> Any:
        """[batch, length]: 1 where a tag is found without a search for the best path; rows with wrong labels NaN."""
        raise NotImplementedError

    def viterbi_hits(self, labels: Any, emissions: Any) -> Any:
        """[batch, length]: 1 where a tag of the best path is right; rows with wrong labels NaN."""
        return self.hits(self.decode(emissions), labels, emissions)

    def hits(self, found: Any, labels: Any, emissions: Any) -> Any:
        tags, wrong = self.tag_ids(labels, emissions)
        return ops.cast(ops.equal(found, tags), "float32") + wrong[:, None]

    def decode(self, emissions: Any) -> Any:
        """The best path for the layer's output: int32 [batch, length], -1 at padding.

        Args:
            emissions: the output, [batch, length, tags]; or ragged, as `predict` gives it for batches of different
                lengths; or a Keras tensor, which gives one: a model with tags as output, to be saved and exported.
        """
        if isinstance(emissions, keras.KerasTensor):
            return TagDecoder(self.link, name=f"{self.name}_tags")(emissions)
        return self.best_paths(padded(emissions))

    def best_paths(self, emissions: Any) -> Any:
        """`decode` of a tensor."""
        raise NotImplementedError

    # ---- labels

    def tag_ids(self, labels: Any, emissions: Any) -> Any:
        """Labels as ids [batch, length], 0 at padding; and their `fault`, [batch].

        Raises:
            ConfigError: the number of tags or the length differs from the scores'.
        """
        labels = ops.convert_to_tensor(labels)
        shape, tags = tuple(labels.shape), self.num_tags
        problem = None
        if emissions.shape[-1] != tags:
            problem = f"the scores have {emissions.shape[-1]} tags, the layer has {tags}"
        elif len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] not in (1, tags)):
            problem = f"labels have shape {shape}; expected [batch, length] ids or [batch, length, {tags}] one-hot rows"
        elif None not in (shape[1], emissions.shape[1]) and shape[1] != emissions.shape[1]:
            problem = f"labels have length {shape[1]}, the scores {emissions.shape[1]}"
        if problem:
            raise ConfigError(f"{type(self).__name__} {self.name!r}: {problem}.")
        real = chain.real_positions(emissions)
        if len(shape) == 3 and shape[-1] == tags:
            ids = ops.cast(ops.argmax(labels, axis=-1), "int32")
            right = ops.all(ops.equal(ops.one_hot(ids, tags, dtype=labels.dtype), labels), axis=-1)
        else:
            labels = ops.reshape(labels, ops.shape(real))
            ids, right = whole_ids(labels, tags)
        message = f"{self.name}: a label is neither an id from 0 to {tags - 1} nor a one-hot row."
        wrong = fault(ops.logical_or(right, ops.logical_not(real)), message, labels)
        return ops.where(real, ids, 0), ops.sum(wrong, axis=1)

    # ---- saving

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lr_multiplier": self.lr_multiplier}
