"""What every task is: a model with its tokenizer and labels, which trains on items, answers, and is kept in a folder.

A task is made of public pieces: `load` with a head, `load_tokenizer`, Keras' `fit` with the hooks of `training` and
`optimizers`, `save`. A subclass says what an item is, what the model is to give for it, and how outputs are read.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from tfloader.border import public
from tfloader.data.padding import sequence_padding
from tfloader.errors import CheckpointError, ConfigError, DataError, TrainingError, listing
from tfloader.models.builder import load
from tfloader.naming import load_config
from tfloader.tasks.folder import save_task
from tfloader.tasks.items import as_items
from tfloader.tasks.training import fit
from tfloader.tokenizers import load_tokenizer
from tfloader.tokenizers.batches import TokenBatch, positions_of

Path = str | os.PathLike[str]
CHUNK = 256  # texts that are tokenized in one call


class Encoded(NamedTuple):
    """The tokens of an item, not padded.

    Attributes:
        ids, segment_ids: [length].
        places: where something stands among them, for tasks that ask: the first piece of each word.
    """

    ids: list[int]
    segment_ids: list[int]
    places: list[int] = []


class Example(NamedTuple):
    """An item as the model reads it.

    Attributes:
        ids, segment_ids, places: see `Encoded`.
        item: what it was made from, by which the model's outputs are read.
        target: what the model is to give; None if the item has no label.
    """

    ids: list[int]
    segment_ids: list[int]
    places: list[int]
    item: Any
    target: Any


class Task:
    """The base of all tasks.

    Attributes:
        model: the Keras model; every hook of training works on it.
        network: the model that `load` gave, on which `model` is built: the same for most tasks.
        tokenizer, labels: what belongs to it.
        monitor: the metric that training goes by; more is better.
    """

    head: ClassVar[str | bool] = False  # of `load`
    monitor: str
    settings: ClassVar[Sequence[str]] = ("max_length", "truncation")  # arguments that a saved task notes

    def __init__(
        self,
        pretrained_path: Path,
        labels: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise DataError(f"max_length: expected at least 1, found {max_length}.")
        if labels is not None:
            options["id2label"] = dict(enumerate(_checked(labels)))
            self._refuse_other_labels(pretrained_path, options)
        options["head"] = self.head
        self.tokenizer = load_tokenizer(pretrained_path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The head .* is new")  # which is what a task is made for
            self.network = load(pretrained_path, dtype=dtype, **options)
        config = self.network.transformer.config
        self.labels = list(getattr(config, "id2label", {}).values())
        lengths = [length for length in (max_length, positions_of(self.network)) if length is not None]
        self.max_length, self.truncation = min(lengths, default=None), truncation
        self.model = self.build(self.network)
        self._variables: list[Any] = []
        self._graph: Any = None

    def _refuse_other_labels(self, path: Path, options: Mapping[str, Any]) -> None:
        """Labels that a trained head does not have would rename what it answers."""
        with contextlib.suppress(ConfigError, CheckpointError):  # which `load` says better
            config = load_config(path)
            known = list(config.id2label.values())
            if config.head == self.head and known != list(options["id2label"].values()) and not options.get("ignore"):
                raise DataError(
                    f"labels: the checkpoint's own head has the labels {', '.join(known)}. Leave labels out to use it, "
                    "or give ignore=['classifier.*'] as well for a new head."
                )

    # What a subclass supplies

    def build(self, network: keras.Model) -> keras.Model:
        """The model that is trained, on the loaded network."""
        return network

    @property
    def loss(self) -> Any:
        """The loss for `compile`."""
        raise NotImplementedError

    def parse(self, item: Any, labelled: bool) -> tuple[Any, Any]:
        """An item in the task's own form, and what the model is to give for it (None if not `labelled`).

        Raises:
            DataError: saying what is wrong with it.
        """
        raise NotImplementedError

    def tokens(self, items: Sequence[Any]) -> Iterator[Encoded]:
        """The tokens of items in the task's own form."""
        raise NotImplementedError

    def tokens_of_texts(self, texts: Sequence[tuple[str, str | None]]) -> Iterator[Encoded]:
        """The tokens of texts, or of pairs of texts.

        Raises:
            DataError: naming each text that is too long, if it is not to be cut.
        """
        has_pair = {pair is not None for _, pair in texts}
        if len(has_pair) > 1:
            raise DataError("Some items have a second text and others have none. Give all of them one, or none.")
        encoded = []
        for start in range(0, len(texts), CHUNK):
            first, second = (list(part) for part in zip(*texts[start : start + CHUNK], strict=True))
            length = self.max_length if self.truncation else None
            batch = self.tokenizer(first, second if has_pair == {True} else None, length)
            for ids, segments, mask in zip(*batch, strict=True):
                encoded.append(Encoded(ids[mask == 1].tolist(), segments[mask == 1].tolist()))
        self.check_lengths([len(each.ids) for each in encoded])
        return iter(encoded)

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Refuses items of more tokens than the task takes."""
        limit = self.max_length
        if limit is not None and max(lengths, default=0) > limit:
            long = (f"items[{i}]: {length} tokens" for i, length in enumerate(lengths) if length > limit)
            raise DataError(
                f"Longer than the {limit} tokens that {type(self).__name__} reads. Divide the texts, raise max_length, "
                f"or let truncation=True cut them:\n{listing(long)}"
            )

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        """What the model is to give for a batch."""
        return np.array([example.target for example in examples])

    def read(self, outputs: Any) -> Any:
        """What is computed of the model's outputs in its graph."""
        return outputs

    def class_weights(self, given: Mapping[str, float]) -> dict[int, float]:
        """Weights of labels as Keras' `fit` takes them."""
        raise TrainingError(f"class_weight: {type(self).__name__} has no classes of items. Leave it out.")

    def answers(self, outputs: Any, examples: Sequence[Example]) -> list[Any]:
        """What the model's outputs for a batch say."""
        raise NotImplementedError

    def score(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Metrics of answers by name."""
        raise NotImplementedError

    # What all tasks do

    @public
    def predict(self, items: Any, batch_size: int = 32) -> Any:
        """Answers to items: a list of them, or one to a single text.

        Raises:
            DataError: naming each item that is none, or is too long.
        """
        single = isinstance(items, str)
        examples = self.examples([items] if single else items, labelled=False)
        answers = self.answer(examples, batch_size)
        return answers[0] if single else answers

    @public
    def evaluate(self, items: Any, batch_size: int = 32) -> dict[str, float]:
        """The metrics of the task on labelled items."""
        examples = self.examples(items)
        return self.score(examples, self.answer(examples, batch_size))

    def examples(self, items: Any, labelled: bool = True) -> list[Example]:
        """All items as the model reads them; all that are wrong are named at once."""
        parsed, problems = [], []
        for number, item in enumerate(as_items(items)):
            try:
                parsed.append(self.parse(item, labelled))
            except DataError as problem:
                problems.append(f"items[{number}]: {problem}")
        if problems:
            raise DataError(f"{type(self).__name__} cannot take these items:\n{listing(problems)}")
        encoded = self.tokens([item for item, _ in parsed])
        return [Example(*ids, *pair) for ids, pair in zip(encoded, parsed, strict=True)]

    def answer(self, examples: Sequence[Example], batch_size: int) -> list[Any]:
        """Answers in the order of the examples, which are read in batches of like lengths."""
        answers: list[Any] = [None] * len(examples)
        for numbers in self.by_length(examples, batch_size):
            batch = [examples[number] for number in numbers]
            outputs = self.compute(self.inputs(batch))
            for number, found in zip(numbers, self.answers(outputs, batch), strict=True):
                answers[number] = found
        return answers

    @staticmethod
    def by_length(rows: Sequence[Encoded | Example], batch_size: int) -> Iterator[list[int]]:
        """The numbers of rows in batches of like lengths."""
        if batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, found {batch_size}.")
        order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
        return (order[start : start + batch_size] for start in range(0, len(order), batch_size))

    def compute(self, inputs: Sequence[np.ndarray]) -> Any:
        """What `read` gives for a batch: by one graph for all sizes, which is made anew when the model has changed."""
        import tensorflow as tf

        variables = self.model.variables
        if list(map(id, variables)) != list(map(id, self._variables)):
            signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.model.inputs]
            self._graph = tf.function(
                lambda *inputs: self.read(self.model(inputs, training=False)), input_signature=signature
            )
            self._variables = variables
        return keras.tree.map_structure(np.asarray, self._graph(*inputs))

    def inputs(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """The inputs of the model for a batch, padded."""
        return self.padded(examples)

    def padded(self, rows: Sequence[Encoded | Example]) -> list[np.ndarray]:
        """The inputs of the network for rows of tokens."""
        ids, segments = (sequence_padding([row[place] for row in rows]).astype("int32") for place in (0, 1))
        mask = sequence_padding([np.ones(len(row.ids), "int32") for row in rows])
        ids = np.where(mask, ids, np.int32(self.tokenizer.filler_id))
        return TokenBatch(ids, segments, mask).inputs(self.network)

    fit = fit

    @public
    def save(self, folder: Path) -> None:
        """Writes one folder: a Hugging Face one, and what that cannot say in task.json and task.safetensors.

        Everything appears at once, in the place of an earlier save.
        """
        save_task(self, folder)


def _checked(labels: Collection[str]) -> list[str]:
    names = list(labels)
    wrong = [repr(name) for name in names if not isinstance(name, str) or not name]
    twice = sorted({name for name in names if isinstance(name, str) and names.count(name) > 1})
    if isinstance(labels, (str, Mapping)) or wrong or twice or not names:
        found = "one string" if isinstance(labels, str) else ", ".join(wrong or map(repr, twice)) or "none"
        raise DataError(f"labels: expected different names, as strings, in a list; found {found}.")
    return names
