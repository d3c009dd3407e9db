"""Vocabularies of Chinese words (RoFormer, WoBERT): whole words with a segmenter, refused without."""

from __future__ import annotations

import json

import pytest

import tfloader
from tfloader.errors import SegmentationError, TokenizerError
from tfloader.inspection import verify
from tfloader.tokenizers import Tokenizer, load_tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气很好大，。", "今天", "天气", "很好", "we", "##b"]


def segment(text):
    """Longest words first, as a user's own function may cut."""
    words, start = [], 0
    while start < len(text):
        size = 2 if text[start : start + 2] in TOKENS else 1
        words.append(text[start : start + size])
        start += size
    return words


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("name", [None, "RoFormerTokenizer", "BertTokenizer"])
def test_words_need_the_function_that_cut_the_texts_in_training(folder, name):
    if name:
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "do_lower_case": True}))
    with pytest.raises(SegmentationError, match=r"pre_tokenize=lambda text: jieba\.cut"):
        load_tokenizer(folder)
    tokenizer = load_tokenizer(folder, pre_tokenize=segment)
    assert tokenizer.tokenize("今天天气大好") == ["[CLS]", "今天", "天气", "大", "好", "[SEP]"]
    assert tokenizer.rematch("今天天气大好", tokenizer.tokenize("今天天气大好"))[1:3] == [[0, 1], [2, 3]]


def test_character_by_character_is_there_for_whoever_asks(folder):
    assert Tokenizer(folder / "vocab.txt").tokenize("今天")[1:-1] == ["今", "天"]


def test_a_vocabulary_of_characters_needs_nothing(folder):
    single = [token for token in TOKENS if len(token) == 1 or not "\u4e00" <= token[0] <= "\u9fff"]
    (folder / "vocab.txt").write_text("\n".join(single) + "\n", "utf-8")
    assert load_tokenizer(folder).tokenize("今天")[1:-1] == ["今", "天"]
    with_function = load_tokenizer(folder, pre_tokenize=segment)
    assert with_function.encode("今天天气") == load_tokenizer(folder).encode("今天天气")


def test_a_function_for_another_kind_of_tokenizer_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(TokenizerError, match=r"pre_tokenize is for WordPiece.*merges\.txt"):
        load_tokenizer(tmp_path, pre_tokenize=segment)


def test_verify_does_not_fail_for_want_of_a_segmenter(folder):
    model = tfloader.build_transformer_model(
        {
            "vocab_size": len(TOKENS),
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
            "hidden_act": "gelu",
        },
        model="roformer",
        with_mlm=True,
    )
    tfloader.save(model, folder)
    outcomes = {check.name: check for check in verify(folder)}
    assert all(check.status == "ok" for name, check in outcomes.items() if name != "tokenizer")
    assert outcomes["tokenizer"].status == "skipped" and "words" in outcomes["tokenizer"].detail
