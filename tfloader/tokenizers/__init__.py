"""Tokenizers: WordPiece, byte-level BPE and SentencePiece behind one interface.

`load_tokenizer` opens the vocabulary beside a checkpoint. What it returns turns texts into arrays
(`tokenizer(texts)`), and speaks bert4keras as well: `tokenize`, `encode`, `decode`, `rematch`.
"""

from __future__ import annotations

from tfloader.tokenizers.base import BaseTokenizer
from tfloader.tokenizers.batches import TokenBatch
from tfloader.tokenizers.bytepair import BytePairTokenizer
from tfloader.tokenizers.fast import JsonTokenizer
from tfloader.tokenizers.loading import load_tokenizer
from tfloader.tokenizers.sentencepiece import SpTokenizer
from tfloader.tokenizers.vocabulary import load_vocab, save_vocab
from tfloader.tokenizers.wordpiece import Tokenizer

__all__ = [
    "BaseTokenizer",
    "BytePairTokenizer",
    "JsonTokenizer",
    "SpTokenizer",
    "TokenBatch",
    "Tokenizer",
    "load_tokenizer",
    "load_vocab",
    "save_vocab",
]
