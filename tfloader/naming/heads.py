"""Heads for tasks in Hugging Face folders: the rows of their tensors, and what config.json says of them.

Names of tensors do not tell what a `classifier` scores, a text or each of its tokens; the class does, which stands
under "architectures".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfloader.config import MOST_LABELS, PROBLEM_TYPES, TransformerConfig, are_labels, shown, unnamed_labels
from tfloader.errors import ConfigError
from tfloader.naming.base import TORCH

PART = "head"  # of the rows
CLASSES = {
    "classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "multiple_choice": "ForMultipleChoice",
}
LABELLED = ("classification", "token_classification")

# One layer over what the encoder gives, and for texts, in families without a pooler, a dense layer before it.
ROWS = (*TORCH.dense("Classifier", "classifier", PART), *TORCH.dense("Answer-Span", "qa_outputs", PART))
DENSE_ROWS = (
    *TORCH.dense("Classifier-Dense", "classifier.dense", PART),
    *TORCH.dense("Classifier-Output", "classifier.out_proj", PART),
)


@dataclass(frozen=True)
class HeadKeys:
    """The keys of config.json that concern heads, two ways.

    Attributes:
        stem: what the names of the family's classes begin with: "Bert" for BertForSequenceClassification.
        dropout: the key of the head's dropout.
        padding: the head takes the last token that is no padding, and so the file's pad_token_id counts.
    """

    stem: str
    dropout: str = "classifier_dropout"
    padding: bool = False

    def read(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Our fields. What belongs to no head is harmless, and wrong values of it are left out.

        Raises:
            ConfigError: there is a head, and its labels are none.
        """
        classes = raw.get("architectures")
        named = classes[0] if isinstance(classes, list) and classes else None
        head = next((head for head, end in CLASSES.items() if named in (self.stem + end, f"TF{self.stem}{end}")), None)
        labels = _labels(raw)
        if head in LABELLED and labels is None:
            key = "id2label" if raw.get("id2label") is not None else "num_labels"
            raise ConfigError(f"{key} = {shown(raw.get(key))} names no labels 0, 1, ... of a {named}")
        named_or_needed = raw.get("id2label") is not None or head in LABELLED
        fields: dict[str, Any] = {"head": head, "id2label": labels if labels and named_or_needed else {}}
        if head in LABELLED or raw.get("problem_type") in PROBLEM_TYPES:
            fields["problem_type"] = raw.get("problem_type")
        if head:
            fields["classifier_dropout_prob"] = raw.get(self.dropout)
            if self.padding:
                fields["pad_token_id"] = raw.get("pad_token_id")
        return fields

    def write(self, config: TransformerConfig) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        if config.id2label:
            raw["id2label"] = {str(number): label for number, label in config.id2label.items()}
            raw["label2id"] = config.label2id
        if config.problem_type:
            raw["problem_type"] = config.problem_type
        if config.head:
            raw["architectures"] = [self.stem + CLASSES[config.head]]
            if config.classifier_dropout_prob is not None:
                raw[self.dropout] = config.classifier_dropout_prob
            if self.padding:
                raw["pad_token_id"] = config.pad_token_id
        return raw


def _labels(raw: Mapping[str, Any]) -> dict[int, str] | None:
    """The labels of a file, which are two where it does not say; None: what it says is nothing of the kind."""
    given = raw.get("id2label")
    if given is None:
        number = raw.get("num_labels", raw.get("_num_labels", 2))
        known = isinstance(number, int) and not isinstance(number, bool) and 0 < number <= MOST_LABELS
        return unnamed_labels(number) if known else None
    if not isinstance(given, dict) or not all(
        isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key) for key in given
    ):
        return None
    labels = {int(key): str(label) for key, label in given.items() if isinstance(label, (str, int))}
    labels = dict(sorted(labels.items()))
    return labels if labels and len(labels) == len(given) and are_labels(labels) else None
