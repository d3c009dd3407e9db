"""Vectors of sentences: read from sentence-transformers folders, trained by likeness, compared."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.errors import CheckpointError, ConfigError, DataError, listing
from tfloader.layers.pooling import Pooling
from tfloader.losses import CoSENT, SimCSE
from tfloader.models.builder import save
from tfloader.staging import only_new, staged
from tfloader.tasks.base import Encoded, Example, Task
from tfloader.tasks.items import as_items, fields
from tfloader.tasks.metrics import spearman
from tfloader.tasks.sentence_folder import SentenceModules, read_modules, write_modules

OBJECTIVES = {"cosent": CoSENT, "contrastive": SimCSE}


class SentenceEncoder(Task):
    """Gives sentences vectors, of which those of like meaning lie near one another.

        encoder = SentenceEncoder("all-MiniLM-L6-v2")
        vectors = encoder.encode(["A man plays the guitar.", "Someone makes music."])
        encoder.similarity(vectors[:1], vectors[1:])

    Trained by "cosent", an item is (text, other text, how alike they are); by "contrastive", (text, text of the same
    meaning), or a single text, which is read twice with different dropout (SimCSE); all other texts of a batch are
    taken for unlike. Items for validation are always with a number. Dictionaries have "text", "text_pair", "label".

    Args:
        pretrained_path: a folder of sentence-transformers, or any encoder.
        objective: "cosent" or "contrastive", for training.
        pooling, normalize: for an encoder without modules.json; see `tfloader.layers.pooling.Pooling`.
        max_length: of tokens; longer texts are cut, as in sentence-transformers. None: as the folder says, or as many
            as the network reads.
        dtype, **options: as for `load`.

    Attributes:
        prompts: texts to be put before others, by name.

    Raises:
        ConfigError: modules that are not implemented, or options that contradict them.
    """

    monitor = "spearman"

    @public
    def __init__(
        self,
        pretrained_path: str | os.PathLike[str],
        *,
        objective: str = "cosent",
        pooling: Sequence[str] | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ConfigError(f"objective: expected one of {', '.join(OBJECTIVES)}; found {objective!r}.")
        self.objective = objective
        found = read_modules(os.fspath(pretrained_path))
        given = {"pooling": pooling, "normalize": normalize}
        given = {name: value for name, value in given.items() if value is not None}
        if found is not None and given:
            raise ConfigError(f"{', '.join(given)}: {os.fspath(pretrained_path)} has modules.json, which says it.")
        self.modules = found or SentenceModules(**{**given, "pooling": tuple(given.get("pooling", ("mean",)))})
        self.prompts = self.modules.prompts
        length = self.modules.max_length if max_length is None else max_length
        super().__init__(pretrained_path, max_length=length, truncation=True, dtype=dtype, **options)

    def build(self, network: keras.Model) -> keras.Model:
        """Token vectors, pooled, through dense layers, of length 1: [batch, size]."""
        inputs, mask = list(network.inputs), None
        if not self.modules.include_prompt:
            mask = keras.Input((None,), dtype="int32", name="Input-Pooled")
            inputs.append(mask)
        x = Pooling(self.modules.pooling, name="Pooling")(network.output, mask=mask)
        for number, layer in enumerate(self.modules.dense):
            dense = keras.layers.Dense(
                layer.kernel.shape[1], layer.activation, layer.bias is not None, name=f"Dense-{number}"
            )
            x = dense(x)
            dense.set_weights([layer.kernel, *([] if layer.bias is None else [layer.bias])])
        if self.modules.normalize:
            x = keras.layers.UnitNormalization(name="Normalize")(x)
        return keras.Model(inputs, x)

    @property
    def loss(self) -> keras.losses.Loss:
        return OBJECTIVES[self.objective]()

    def parse(self, item: Any, labelled: bool) -> tuple[list[str], float | None]:
        if isinstance(item, Mapping):
            item = {"text_pair": None, "label": None, **item}
        first, second, likeness = fields(item, ("text", "text_pair", "label"), 2)
        texts = [first] if second is None else [first, second]
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"{type(text).__name__} {text!r:.60}, expected a text")
        if labelled and likeness is None and self.objective == "cosent":
            raise DataError("no number says how alike the texts are")
        wrong = isinstance(likeness, bool) or not isinstance(likeness, Real) or not math.isfinite(likeness)
        if likeness is not None and wrong:
            raise DataError(f"label {likeness!r:.60}: expected a number, the greater the more alike")
        return texts, None if likeness is None else float(likeness)

    def tokens(self, items: Sequence[list[str]]) -> Iterator[Encoded]:
        """The tokens of an item's one or two texts, one behind the other; `places` has where each begins."""
        flat = [text.lower() if self.modules.lower else text for texts in items for text in texts]
        rows = iter(self.tokens_of_texts([(text, None) for text in flat]))
        for texts in items:
            parts = [next(rows) for _ in texts]
            starts = np.cumsum([0, *(len(part.ids) for part in parts[:-1])]).tolist()
            ids, segments = (list(itertools.chain(*column)) for column in list(zip(*parts, strict=True))[:2])
            yield Encoded(ids, segments, starts)

    def inputs(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Two rows for each example: of its two texts, or twice of its one."""
        rows = []
        for example in examples:
            ends = [*example.places[1:], len(example.ids)]
            parts = [
                Encoded(example.ids[start:end], example.segment_ids[start:end])
                for start, end in zip(example.places, ends, strict=True)
            ]
            rows += parts if len(parts) == 2 else parts * 2
        return self.rows(rows)

    def rows(self, rows: Sequence[Encoded], prompt_length: int = 0) -> list[np.ndarray]:
        """The inputs of the model for single texts, of which so many tokens at the beginning are a prompt's."""
        arrays = self.padded(rows)
        if not self.modules.include_prompt:
            places = np.arange(arrays[0].shape[1])
            pooled = (places < np.array([len(row.ids) for row in rows])[:, None]) & (places >= prompt_length)
            arrays.append(pooled.astype("int32"))
        return arrays

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        """Likeness for "cosent", else the number of the pair; the same in both rows."""
        if self.objective == "contrastive":
            return np.repeat(np.arange(len(examples)), 2)
        return np.repeat([example.target for example in examples], 2).astype("float32")

    def answers(self, outputs: np.ndarray, examples: Sequence[Example]) -> list[float]:
        """The likeness of each pair."""
        vectors = np.asarray(outputs, "float32")
        return [float(self.similarity(*pair)[0, 0]) for pair in vectors.reshape(len(examples), 2, 1, -1)]

    def score(self, examples: Sequence[Example], answers: Sequence[float]) -> dict[str, float]:
        """Spearman's correlation of the vectors' likeness with the given one."""
        missing = [f"items[{i}]: {example.item!r:.80}" for i, example in enumerate(examples) if example.target is None]
        if missing:
            raise DataError(f"No number says how alike these are, by which vectors are measured:\n{listing(missing)}")
        return {"spearman": spearman(np.array([example.target for example in examples]), np.array(answers))}

    @public
    def encode(self, texts: Any, prompt: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Vectors of texts.

        Args:
            texts: a list, or a single text.
            prompt: the name of one of `prompts`, or a text to put before each; None: the folder's default, if any.

        Returns:
            float32 [texts, size]; for a single text [size].
        """
        single = isinstance(texts, str)
        given = [texts] if single else as_items(texts)
        wrong = [
            f"items[{i}]: {type(text).__name__} {text!r:.60}"
            for i, text in enumerate(given)
            if not isinstance(text, str)
        ]
        if wrong:
            raise DataError(f"encode takes texts; found\n{listing(wrong)}")
        name = self.modules.default_prompt if prompt is None else prompt
        before = "" if name is None else self.prompts.get(name, name)
        length = 0
        if before and not self.modules.include_prompt:
            length = len(self.tokenizer.tokenize(before)) - len(self.tokenizer._end)
        examples = [*self.tokens([self.parse(f"{before}{text}", False)[0] for text in given])]
        vectors = np.empty((len(examples), self.model.output.shape[-1]), "float32")
        for numbers in self.by_length(examples, batch_size):
            vectors[numbers] = self.compute(self.rows([examples[number] for number in numbers], length))
        return vectors[0] if single else vectors

    @public
    def predict(self, items: Any, batch_size: int = 32) -> np.ndarray:
        """`encode` without a prompt of one's own."""
        return self.encode(items, batch_size=batch_size)

    @public
    def similarity(self, first: Any, second: Any) -> np.ndarray:
        """How alike vectors are, the greater the more: [n, size], [m, size] -> float32 [n, m]."""
        first, second = (np.atleast_2d(np.asarray(vectors, "float32")) for vectors in (first, second))
        kind = self.modules.similarity
        if kind in ("cosine", "dot"):
            if kind == "cosine":
                first, second = (
                    x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (first, second)
                )
            return first @ second.T
        difference = first[:, None] - second[None]
        return -(np.abs(difference).sum(-1) if kind == "manhattan" else np.sqrt((difference**2).sum(-1)))

    @public
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder that sentence-transformers opens; it must be new or empty."""
        layers = [layer for layer in self.model.layers if layer.name.startswith("Dense-")]
        dense = tuple(
            replace(noted, kernel=np.asarray(layer.kernel), bias=None if layer.bias is None else np.asarray(layer.bias))
            for noted, layer in zip(self.modules.dense, layers, strict=True)
        )
        modules = replace(self.modules, dense=dense, max_length=self.max_length)
        with staged(folder, CheckpointError, 0, only_new) as stage:
            save(self.network, stage, tokenizer=self.tokenizer)
            write_modules(stage, modules, self.network.output.shape[-1])
