"""Spans of a sentence (entities, words) as tags of its words: softmax, CRF or MEMM."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.data.alignment import align_words
from tfloader.data.padding import sequence_padding
from tfloader.data.tags import Score, Span, score_spans, spans_to_tags, tag_names, tags_to_spans
from tfloader.errors import ConfigError, DataError
from tfloader.layers import ConditionalRandomField, MaximumEntropyMarkovModel
from tfloader.tasks.base import Encoded, Example, Task
from tfloader.tasks.items import fields

# A Chinese character, a word of letters and digits, or anything else that is not space.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+|[^\w\s]")
DECODERS = {"softmax": None, "crf": ConditionalRandomField, "memm": MaximumEntropyMarkovModel}


class Entity(NamedTuple):
    """A span that was found.

    Attributes:
        start, end: in characters of the text; of a list of words, in words.
        label, text: what it is, and the text from start to end.
        score: the mean probability of its tags.
    """

    start: int
    end: int
    label: str
    text: str
    score: float


class Sentence(NamedTuple):
    """The words of an item; of a text, where each stands in it."""

    words: list[str]
    text: str | None
    places: list[tuple[int, int]]

    @classmethod
    def of(cls, given: Any) -> Sentence:
        """From a text, or from a list of words."""
        if isinstance(given, str):
            found = list(WORD.finditer(given))
            sentence = cls([match.group() for match in found], given, [match.span() for match in found])
        elif isinstance(given, (list, tuple)) and all(isinstance(word, str) for word in given):
            sentence = cls(list(given), None, [(place, place + 1) for place in range(len(given))])
        else:
            raise DataError(f"expected a text, or a list of words; found {type(given).__name__} {given!r:.60}")
        if not all(map(str.strip, sentence.words)) or not sentence.words:
            raise DataError("there are no words" if not sentence.words else "one of the words is empty")
        return sentence

    def between(self, start: int, end: int) -> tuple[int, int, str]:
        """Where words start ... end - 1 stand, and their text."""
        if self.text is None:
            return start, end, " ".join(self.words[start:end])
        first, last = self.places[start][0], self.places[end - 1][1]
        return first, last, self.text[first:last]


class Tagger(Task):
    """Finds spans in sentences: entities, or words where none are marked. A span has no other one within it.

        task = Tagger("bert-base-chinese", labels=["PER", "LOC"], decoder="crf")
        task.fit(read_tagged("train.txt"), validation=read_tagged("valid.txt"))
        task.predict("王小明在北京")

    An item is (words, tags) as `read_tagged` gives it, (text, spans) with spans (start, end, label) in characters, or a
    dictionary with "tokens" and "tags" (or "ner_tags"), or with "text" and "spans". A text is divided into words:
    each Chinese character, each word of letters and digits, each other sign.

    Args:
        pretrained_path: a checkpoint of an encoder, or of a trained tagger, whose head is read then.
        labels: of spans. None: those of the checkpoint's config.
        decoder: "softmax" takes the best tag of each word; "crf" and "memm" the best sequence of tags.
        scheme: "BIO", "BIOES", "BMES" or "BILOU": how spans are written as tags.
        lr_multiplier: how many times as fast the transitions of "crf" and "memm" learn.
        max_length, truncation, dtype, **options: as for `TextClassifier`; a word that is cut off has no tag.
    """

    head = "token_classification"
    monitor = "f1"
    settings = ("max_length", "truncation", "decoder", "scheme", "lr_multiplier")

    @public
    def __init__(
        self,
        pretrained_path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        *,
        decoder: str = "softmax",
        scheme: str = "BIO",
        lr_multiplier: float = 100,
        max_length: int | None = None,
        truncation: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        if decoder not in DECODERS:
            raise ConfigError(f"decoder: expected one of {', '.join(DECODERS)}; found {decoder!r}.")
        self.decoder, self.scheme, self.lr_multiplier = decoder, scheme, lr_multiplier
        self.layer: Any = None
        names = None if labels is None else tag_names(labels, scheme)
        super().__init__(pretrained_path, names, max_length=max_length, truncation=truncation, dtype=dtype, **options)
        self.tags = self.labels
        self.numbers = {tag: number for number, tag in enumerate(self.tags)}
        tags_to_spans(self.tags, scheme)  # refuses tags that the scheme has not
        self.labels = sorted({tag.partition("-")[2] for tag in self.tags} - {""}) or [""]

    def build(self, network: keras.Model) -> keras.Model:
        """The scores of tags at the first piece of each word: [batch, words, tags]; padding of words is -1."""
        firsts = keras.Input((None,), dtype="int32", name="First-Pieces")
        scores = ops.take_along_axis(network.output, ops.maximum(firsts, 0)[:, :, None], axis=1)
        if kind := DECODERS[self.decoder]:
            self.layer = kind(lr_multiplier=self.lr_multiplier, name=self.decoder.upper())
            scores = self.layer(scores, mask=firsts >= 0)
        return keras.Model([*network.inputs, firsts], scores)

    @property
    def loss(self) -> Any:
        if self.layer is not None:
            return self.layer.sparse_loss
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)

    def parse(self, item: Any, labelled: bool) -> tuple[Sentence, list[int] | None]:
        if isinstance(item, Mapping) and "tokens" in item:
            tags = item.get("tags", item.get("ner_tags"))
            item = (item["tokens"], tags) if labelled else item["tokens"]
        elif isinstance(item, Mapping):
            item = fields(item, ("text", "spans"), 0) if labelled else fields(item, ("text",), 0)[0]
        elif not labelled and isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], list):
            item = item[0]  # of a labelled sentence
        if not labelled:
            return Sentence.of(item), None
        given, label = fields(item, ("words or text", "tags or spans"), 0)
        sentence = Sentence.of(given)
        tags = label if sentence.text is None else self._tags_of(sentence, label)
        if not isinstance(tags, (list, tuple)) or len(tags) != len(sentence.words):
            raise DataError(f"{len(sentence.words)} words, but the tags are {tags!r:.60}")
        return sentence, [self._number(tag) for tag in tags]

    def _tags_of(self, sentence: Sentence, spans: Any) -> list[str]:
        starts = {start: number for number, (start, _) in enumerate(sentence.places)}
        ends = {end: number + 1 for number, (_, end) in enumerate(sentence.places)}
        found = []
        for span in spans if isinstance(spans, (list, tuple)) else [spans]:
            start, end, label = fields(span, ("start", "end", "label"), 0)
            if type(start) is not int or type(end) is not int or start not in starts or end not in ends:
                raise DataError(f"the span ({start}, {end}, {label!r}) does not begin and end with words of the text")
            found.append(Span(starts[start], ends[end], label))
        return spans_to_tags(found, len(sentence.words), self.scheme)

    def _number(self, tag: Any) -> int:
        if isinstance(tag, str) and tag in self.numbers:
            return self.numbers[tag]
        if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < len(self.tags):
            return tag
        raise DataError(f"tag {tag!r:.60}: expected one of {', '.join(self.tags)}")

    def tokens(self, items: Sequence[Sentence]) -> Iterator[Encoded]:
        rows = [
            align_words(self.tokenizer, sentence.words, self.max_length if self.truncation else None)
            for sentence in items
        ]
        self.check_lengths([len(row.ids) for row in rows])
        return (Encoded(row.ids, [0] * len(row.ids), [start for start, _ in row.places]) for row in rows)

    def inputs(self, examples: Sequence[Example]) -> list[np.ndarray]:
        firsts = sequence_padding([example.places for example in examples], value=-1)
        return [*super().inputs(examples), firsts.astype("int32")]

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        rows = [example.target[: len(example.places)] for example in examples]
        return sequence_padding(rows, value=-1 if self.layer is None else 0).astype("int32")

    def answers(self, outputs: tuple[np.ndarray, np.ndarray], examples: Sequence[Example]) -> list[list[Entity]]:
        found = []
        for example, tags, scores in zip(examples, *outputs, strict=True):
            found.append([])
            for start, end, label in self.spans(tags[: len(example.places)].tolist()):
                first, last, text = example.item.between(start, end)
                found[-1].append(Entity(first, last, label, text, float(scores[start:end].mean())))
        return found

    @staticmethod
    def place(example: Example, span: Span) -> tuple[int, int]:
        """Where a span of words stands, as an answer says it."""
        start, end, _ = example.item.between(span.start, span.end)
        return start, end

    def spans(self, tags: Sequence[int]) -> list[Span]:
        return tags_to_spans([self.tags[tag] for tag in tags], self.scheme)

    def score(self, examples: Sequence[Example], answers: Sequence[Sequence[Entity]]) -> dict[str, float]:
        """Precision, recall and F1 of spans, which are right if start, end and label are, as seqeval counts."""
        total, _ = self._scores(examples, answers)
        return {"f1": total.f1, "precision": total.precision, "recall": total.recall}

    @public
    def report(self, items: Any, batch_size: int = 32) -> dict[str, Score]:
        """The score of each label on labelled items."""
        examples = self.examples(items)
        return self._scores(examples, self.answer(examples, batch_size))[1]

    def _scores(
        self, examples: Sequence[Example], answers: Sequence[Sequence[Entity]]
    ) -> tuple[Score, dict[str, Score]]:
        right = [
            [Span(*self.place(example, span), span.label) for span in self.spans(example.target)]
            for example in examples
        ]
        found = [[Span(entity.start, entity.end, entity.label) for entity in row] for row in answers]
        return score_spans(right, found)

    def read(self, outputs: Any) -> tuple[Any, Any]:
        """The chosen tags and their probabilities: with a CRF among sequences, with a MEMM beside their neighbours."""
        import tensorflow as tf

        if self.decoder == "softmax":
            return tf.argmax(outputs, axis=-1), tf.reduce_max(tf.nn.softmax(outputs), axis=-1)
        tags = tf.maximum(self.layer.decode(outputs), 0)
        if self.decoder == "memm":
            return tags, self.layer.tag_probabilities(tags, outputs)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            losses = self.layer.sequence_losses(tags, outputs)
        # The derivative of a CRF's loss with respect to a chosen tag's score is the tag's probability less 1.
        return tags, 1 + tf.gather(tape.gradient(losses, outputs), tags, axis=2, batch_dims=2)
