"""From task files to batches: readers, tags and spans, words to pieces, padding, generators."""

from __future__ import annotations

from tfloader.data.alignment import align_words
from tfloader.data.generator import DataGenerator
from tfloader.data.padding import sequence_padding
from tfloader.data.readers import read_csv, read_jsonl, read_tagged, read_tsv
from tfloader.data.tags import Span, score_spans, spans_to_tags, tag_names, tags_to_spans

__all__ = [
    "DataGenerator",
    "Span",
    "align_words",
    "read_csv",
    "read_jsonl",
    "read_tagged",
    "read_tsv",
    "score_spans",
    "sequence_padding",
    "spans_to_tags",
    "tag_names",
    "tags_to_spans",
]
