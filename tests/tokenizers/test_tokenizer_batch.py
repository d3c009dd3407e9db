"""Calling a tokenizer gives padded arrays that agree with encoding the texts one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfloader.errors import TokenizerError
from tfloader.tokenizers import JsonTokenizer, TokenBatch, Tokenizer, load_tokenizer
from tfloader.tokenizers.sequences import share

KINDS = ("wordpiece", "gpt2_ml", "bpe", "sentencepiece", "json")


@pytest.fixture(scope="module")
def tokenizers(data):
    return {
        "wordpiece": Tokenizer(data / "bert-base-chinese.txt", True),
        "gpt2_ml": load_tokenizer(data / "clue-vocab.txt", family="gpt2_ml"),
        "bpe": load_tokenizer(data / "gpt2_openai"),
        "sentencepiece": load_tokenizer(data / "t5_mesh_v10"),
        "json": JsonTokenizer(data / "tiny_bert_random" / "tokenizer.json"),
    }


TEXTS = st.lists(st.text("ab天 ,!的x\u0301", max_size=12), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, st.integers(4, 14), st.booleans())
@settings(max_examples=60)
def test_rows_equal_single_encodings(tokenizers, kind, texts, length, pairs):
    tokenizer = tokenizers[kind]
    second = texts[::-1] if pairs else [None] * len(texts)
    batch = tokenizer(texts, second if pairs else None, max_length=length)
    expected = [tokenizer.encode(a, b, maxlen=length) for a, b in zip(texts, second, strict=True)]
    assert isinstance(batch, TokenBatch) and all(array.dtype == np.int32 for array in batch)
    assert batch.input_ids.shape == (len(texts), max((len(ids) for ids, _ in expected), default=0))
    for i, (ids, segments) in enumerate(expected):
        assert batch.input_ids[i, : len(ids)].tolist() == ids
        assert batch.segment_ids[i].tolist() == segments + [0] * (batch.input_ids.shape[1] - len(ids))
        assert batch.attention_mask[i].tolist() == [int(j < len(ids)) for j in range(batch.input_ids.shape[1])]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_surplus_goes_from_the_longer_one_by_one(first, second, room):
    left = [first, second]
    while sum(left) > room:
        left[0 if left[0] >= left[1] else 1] -= 1
    assert share(first, second, room) == tuple(left)


def test_padding_to_a_fixed_length_and_to_the_left(tokenizers, data):
    tokenizer = tokenizers["wordpiece"]
    batch = tokenizer("天", max_length=5, padding="max_length")
    assert batch.input_ids.tolist() == [[101, 1921, 102, 0, 0]] and batch.attention_mask.sum() == 3
    left = Tokenizer(data / "bert-base-chinese.txt")
    left.padding_side = left.truncation_side = "left"
    batch = left(["天", "天地"], ["地", ""], max_length=5)
    assert batch.input_ids.tolist() == [[101, 1921, 102, 1765, 102], [101, 1921, 1765, 102, 102]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]
    batch = left(["天地", "天"], max_length=3)
    assert batch.input_ids.tolist() == [[101, 1765, 102], [101, 1921, 102]]
    assert left(["天地", "天"]).attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]


def test_without_special_tokens(tokenizers):
    batch = tokenizers["wordpiece"](["天"], ["地"], add_special_tokens=False)
    assert batch.input_ids.tolist() == [[1921, 1765]] and batch.segment_ids.tolist() == [[0, 1]]


def test_empty_batches_and_texts(tokenizers):
    for tokenizer in tokenizers.values():
        assert tokenizer([]).input_ids.shape == (0, 0)
        assert tokenizer([], max_length=3, padding="max_length").input_ids.shape == (0, 3)
        assert tokenizer([""]).input_ids.shape == (1, len(tokenizer.tokenize("")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t(["a", None]), r"texts\[1\]: expected a string, found NoneType"),
        (lambda t: t(["a", 3]), r"texts\[1\]: expected a string, found int"),
        (lambda t: t(["a", b"b"]), r"texts\[1\]: expected a string, found bytes"),
        (lambda t: t(["a"], [None]), r"pairs\[0\]: expected a string, found NoneType"),
        (lambda t: t([["a"]]), r"texts\[0\]: expected a string, found list"),
        (lambda t: t(["a\ud800"]), r"texts\[0\]: the character 1 is half of a surrogate pair"),
        (lambda t: t.tokenize(None), "expected a string, found NoneType"),
        (lambda t: t.tokenize("\udfff"), "the character 0 is half of a surrogate pair"),
        (lambda t: t.encode("\udfff"), "the character 0 is half of a surrogate pair"),
        (lambda t: t.offsets(b"a"), "expected a string, found bytes"),
        (lambda t: t(["a"], ["a", "b"]), "1 texts but 2 pairs"),
        (lambda t: t("a", padding="left"), "padding: expected 'longest'"),
        (lambda t: t("a", padding="max_length"), "together with max_length"),
        (lambda t: t(["a", "a a a a a a a"], max_length=6, truncation=False), r"texts\[1\] has \d+ tokens"),
        (lambda t: t.encode("a", pattern="E*S"), r"pattern: expected one of S\*E\*E"),
        (lambda t: t.encode("a", maxlen=2, truncate_from="middle"), "truncate_from: expected 'right'"),
        (lambda t: t.encode("a a a", maxlen=0, truncate_from=9), "maxlen=0 cannot be reached"),
    ],
    ids=range(17),
)
def test_impossible_calls_are_refused(tokenizers, kind, call, message):
    with pytest.raises(TokenizerError, match=message):
        call(tokenizers[kind])


def test_no_room_for_special_tokens(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    for call in (
        lambda: tokenizer(["a"], max_length=1),
        lambda: tokenizer.tokenize("a", maxlen=1),
        lambda: tokenizer.encode("a", maxlen=1),
        lambda: tokenizer.encode("a", "b", maxlen=2),
    ):
        with pytest.raises(TokenizerError, match=r"max_?len(gth)?="):
            call()
