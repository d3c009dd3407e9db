"""Labels for texts and pairs of texts, one or several, or a number."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.errors import ConfigError, DataError, TrainingError
from tfloader.tasks.base import Encoded, Example, Task
from tfloader.tasks.items import fields
from tfloader.tasks.metrics import Confusion, f1_scores, pearson, spearman

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
KINDS = (SINGLE, MULTI, REGRESSION)


@dataclass(frozen=True)
class Classified:
    """The answer of a classifier.

    Attributes:
        labels: what the text has: the one best label, or with several possible ones all whose score is at least 0.5.
        scores: the probability of each label.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float]

    @property
    def label(self) -> str:
        """The label with the highest score."""
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def score(self) -> float:
        """The highest score."""
        return self.scores[self.label]


class TextClassifier(Task):
    """Gives texts, or pairs of texts, one of several labels, any number of labels, or a number.

        task = TextClassifier("bert-base-chinese", labels=["bad", "good"])
        task.fit([("味道很好", "good"), ...], validation=[...])
        task.predict("下次还来").label

    An item is (text, label), (text, second text, label), or a dictionary with "text", "text_pair" and "label", as rows
    of tables are. A label is a name, or its number in `labels`; with several possible ones a list of them; in a
    regression a number.

    Args:
        pretrained_path: a checkpoint of an encoder, or of a trained classifier, whose head is read then.
        labels: the names, in order. None: those that the checkpoint's config has; a regression has none.
        problem_type: as transformers calls it: "single_label_classification", "multi_label_classification",
            "regression"; None: as the config says, else a single label.
        max_length: of tokens; None: as many as the model reads.
        truncation: cuts longer texts, instead of refusing them.
        **options: of `load`.

    Raises:
        ConfigError, DataError: labels and problem type do not fit, and what `load` raises.
    """

    head = "classification"
    monitor = "accuracy"

    @public
    def __init__(
        self,
        pretrained_path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        *,
        problem_type: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        if problem_type not in (None, *KINDS):
            raise ConfigError(f"problem_type: expected one of {', '.join(KINDS)}; found {problem_type!r}.")
        number = None if labels is None else len(labels)
        if number is not None and not {REGRESSION: number == 1, MULTI: number >= 1}.get(
            problem_type or SINGLE, number >= 2
        ):
            raise DataError(f"labels: {number} do not make a {problem_type or SINGLE} task.")
        if problem_type is not None:
            options["problem_type"] = problem_type
        if problem_type == REGRESSION and labels is None:
            options.setdefault("num_labels", 1)
        super().__init__(pretrained_path, labels, max_length=max_length, truncation=truncation, dtype=dtype, **options)
        config = self.network.transformer.config
        self.problem_type = config.problem_type or (REGRESSION if len(self.labels) == 1 else SINGLE)
        self.numbers = {label: number for number, label in enumerate(self.labels)}
        if self.problem_type == REGRESSION:
            self.monitor = "spearman"
        elif self.problem_type == MULTI:
            self.monitor = "f1_micro"

    @property
    def loss(self) -> keras.losses.Loss:
        return {
            SINGLE: lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            MULTI: lambda: keras.losses.BinaryCrossentropy(from_logits=True),
            REGRESSION: lambda: keras.losses.MeanSquaredError(),
        }[self.problem_type]()

    def parse(self, item: Any, labelled: bool) -> tuple[tuple[str, str | None], Any]:
        if isinstance(item, (tuple, list)) and len(item) == 2:
            if labelled:
                item = (item[0], None, item[1])
            elif isinstance(item[1], str) and item[1] in self.numbers:
                raise DataError(
                    f"{item[1]!r} is one of the labels, but in predict the second part is a text. Give the text alone, "
                    "or a dictionary with text and text_pair"
                )
        names = ("text", "text_pair", "label") if labelled else ("text", "text_pair")
        if isinstance(item, Mapping):
            item = {"text_pair": None, **item}
        text, pair, *label = fields(item, names, 0 if labelled else 1)
        for name, value in (("text", text), ("text_pair", pair)):
            if not isinstance(value, str) and not (value is None and name == "text_pair"):
                raise DataError(f"{name} is {type(value).__name__} {value!r:.60}, expected a string")
        if not text.strip():
            raise DataError("the text is empty")
        return (text, pair), self.target(label[0]) if labelled else None

    def target(self, label: Any) -> Any:
        """What the model is to give for a label."""
        if self.problem_type == REGRESSION:
            if isinstance(label, bool) or not isinstance(label, Real) or not math.isfinite(label):
                raise DataError(f"label {label!r:.60}: expected a number")
            return float(label)
        if self.problem_type == SINGLE:
            return self.number(label)
        if isinstance(label, str) or not isinstance(label, Sequence):
            raise DataError(f"label {label!r:.60}: expected a list of labels")
        return np.isin(np.arange(len(self.labels)), [self.number(each) for each in label])

    def number(self, label: Any) -> int:
        """The number of a label, which is given by name or number."""
        if isinstance(label, str) and label in self.numbers:
            return self.numbers[label]
        if isinstance(label, (int, np.integer)) and not isinstance(label, bool) and 0 <= label < len(self.labels):
            return int(label)
        raise DataError(f"label {label!r:.60}: expected one of {', '.join(self.labels)}")

    def tokens(self, items: Sequence[tuple[str, str | None]]) -> Iterator[Encoded]:
        return self.tokens_of_texts(items)

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        targets = np.array(
            [example.target for example in examples], "int32" if self.problem_type == SINGLE else "float32"
        )
        return targets[:, None] if self.problem_type == REGRESSION else targets

    def class_weights(self, given: Mapping[str, float]) -> dict[int, float]:
        values = list(given.values()) if isinstance(given, Mapping) else [None]
        if not all(isinstance(value, Real) and 0 <= value < math.inf for value in values):
            raise TrainingError(f"class_weight: expected {{label: a number from 0 on}}, found {given!r:.80}.")
        if self.problem_type != SINGLE:
            raise TrainingError(f"class_weight: only for single labels; this is a {self.problem_type} task.")
        return {number: 1.0 for number in range(len(self.labels))} | {
            self.number(label): float(weight) for label, weight in given.items()
        }

    def answers(self, outputs: np.ndarray, examples: Sequence[Example]) -> list[Any]:
        logits = np.asarray(outputs, "float64")
        if self.problem_type == REGRESSION:
            return logits[:, 0].tolist()
        if self.problem_type == MULTI:
            scores = 1 / (1 + np.exp(-logits))
            chosen = scores >= 0.5
        else:
            scores = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            chosen = np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
        return [
            Classified(
                tuple(label for label, is_chosen in zip(self.labels, row, strict=True) if is_chosen),
                dict(zip(self.labels, values, strict=True)),
            )
            for row, values in zip(chosen, scores.tolist(), strict=True)
        ]

    def score(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Accuracy (of all labels of a text together), macro and micro F1; in a regression both correlations."""
        if self.problem_type == REGRESSION:
            right, found = np.array([example.target for example in examples]), np.array(answers)
            error = float(np.mean((right - found) ** 2))
            return {"spearman": spearman(right, found), "pearson": pearson(right, found), "mean_squared_error": error}
        right, found = self._chosen(examples, answers)
        macro, micro = f1_scores(right, found)
        return {"accuracy": float((right == found).all(axis=1).mean()), "f1_macro": macro, "f1_micro": micro}

    @public
    def confusion(self, items: Any, batch_size: int = 32) -> Confusion:
        """How often labelled items of one label are given another; for a single label."""
        if self.problem_type != SINGLE:
            raise ConfigError(f"confusion: only between single labels; this is a {self.problem_type} task.")
        examples = self.examples(items)
        right, found = self._chosen(examples, self.answer(examples, batch_size))
        return Confusion(self.labels, right.T.astype(int) @ found.astype(int))

    def _chosen(self, examples: Sequence[Example], answers: Sequence[Classified]) -> tuple[np.ndarray, np.ndarray]:
        """What is right and what was answered, as booleans [items, labels]."""
        found = np.array([[label in answer.labels for label in self.labels] for answer in answers])
        targets = np.array([example.target for example in examples])
        return targets if self.problem_type == MULTI else np.arange(len(self.labels)) == targets[:, None], found
