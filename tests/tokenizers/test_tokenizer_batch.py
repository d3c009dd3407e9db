"""Calling a tokenizer gives padded arrays that agree with encoding the texts one by one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader.errors import DataError, TokenizerError
from tfloader.tokenizers import JsonTokenizer, TokenBatch, Tokenizer, load_tokenizer
from tfloader.tokenizers.batches import positions_of
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
        (lambda t: t.encode(None), "expected a text, or a list of its tokens; found NoneType"),
        (lambda t: t.encode("a", b"a"), "expected a text, or a list of its tokens; found bytes"),
        (lambda t: t.encode([5, 6]), "token: expected a string, found int 5"),
        (lambda t: t.id_to_token("a"), "ids: expected whole numbers"),
        (lambda t: t.decode([1.5]), r"ids: expected whole numbers, a list of them; found \[1\.5\]"),
        (lambda t: t.decode(None), "ids: expected whole numbers"),
        (lambda t: t.decode(np.ones((2, 2), int)), "ids: expected whole numbers"),
    ],
    ids=range(24),
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


def test_a_batch_is_a_mapping_too_and_a_tokenizer_shows_what_it_is(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    batch = tokenizer(["天", "天地"], padding=True)
    assert dict(**batch).keys() == {"input_ids", "segment_ids", "attention_mask"}
    assert batch["attention_mask"] is batch.attention_mask is batch[2] is batch[-1]
    assert len(tokenizer) == 21128
    assert repr(tokenizer).startswith("<Tokenizer: 21128 tokens, [CLS] ... [SEP], {'pad': '[PAD]'")


def test_padding_may_be_a_choice_of_lengths_or_refused(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    assert tokenizer(["天", "天地"], pad_to_multiple_of=8).input_ids.shape == (2, 8)
    assert tokenizer("天", padding="max_length", max_length=5, pad_to_multiple_of=4).input_ids.shape == (1, 8)
    assert tokenizer(["天", "地"], padding=False).input_ids.shape == (2, 3)
    with pytest.raises(TokenizerError, match="padding=False: the rows have different lengths"):
        tokenizer(["天", "天地"], padding=False)
    with pytest.raises(TokenizerError, match="pad_to_multiple_of: expected a number from 1 on"):
        tokenizer("天", pad_to_multiple_of=0)


def model_of(*names, pad_token_id=0, positions=None, hierarchical=None, counted=False):
    """What a batch asks of a model: the names of its inputs, and three layers."""
    layers = [SimpleNamespace(name="Embedding-Token", pad_token_id=pad_token_id)]
    if positions:
        layers.append(SimpleNamespace(name="Embedding-Position", input_dim=positions, hierarchical=hierarchical))
    if counted:
        layers.append(SimpleNamespace(name="Position-Rows", pad_token_id=pad_token_id))
    return SimpleNamespace(inputs=[SimpleNamespace(name=name) for name in names], layers=layers)


def test_the_inputs_of_a_model_come_in_its_order(tokenizers):
    batch = tokenizers["wordpiece"](["天", "天地"], ["地", "地"])
    bert = batch.inputs(model_of("Input-Token", "Input-Segment", positions=6))
    assert bert[0] is batch.input_ids and bert[1] is batch.segment_ids and len(bert) == 2
    masked = batch.inputs(model_of("Encoder-Input-Mask", "Encoder-Input-Token", pad_token_id=7))
    assert masked[0] is batch.attention_mask and masked[1] is batch.input_ids


def test_padding_that_a_model_would_take_for_text_is_refused(tokenizers):
    texts = ["a", "a b"]
    language_model = model_of("Input-Token", pad_token_id=None)
    bpe = tokenizers["bpe"]
    assert len(bpe(texts).inputs(language_model)) == 1
    with pytest.raises(DataError, match="takes the id 7 for padding; the batch is padded with id 0"):
        tokenizers["wordpiece"](texts).inputs(model_of("Input-Token", pad_token_id=7))
    bpe.padding_side = "left"
    left = bpe(texts)
    bpe.padding_side = "right"
    with pytest.raises(DataError, match="takes nothing for padding"):
        left.inputs(language_model)
    assert len(left.inputs(model_of("Input-Token", "Input-Mask", pad_token_id=None))) == 2


def test_a_text_beyond_the_positions_is_named_with_the_limit_and_the_ways_out(tokenizers):
    batch = tokenizers["wordpiece"](["天", "天" * 9])
    message = r"texts\[1\] has 11 tokens.* but the model has 8 positions.* max_length=8.* hierarchical_position=True"
    with pytest.raises(DataError, match=message):
        batch.inputs(model_of("Input-Token", positions=8))
    assert batch.inputs(model_of("Input-Token", positions=8, hierarchical=0.4))


def test_positions_of_roberta_are_fewer_than_the_rows_of_its_table_and_padding_has_none(tokenizers):
    roberta = model_of("Input-Token", positions=12, pad_token_id=0, counted=True)
    assert positions_of(roberta) == 11
    assert positions_of(model_of("Input-Token")) is None
    assert positions_of(model_of("Input-Token", positions=12, hierarchical=0.4)) == 144
    call = tokenizers["wordpiece"]
    assert call(["天", "天" * 9], padding="max_length", max_length=40).inputs(roberta)
    with pytest.raises(DataError, match=r"texts\[1\] has 12 tokens.* has 11 positions.* or divide the text\.$"):
        call(["天", "天" * 10]).inputs(roberta)


def test_inputs_that_no_batch_of_texts_has_are_named(tokenizers):
    with pytest.raises(DataError, match=r"inputs Decoder-Input-Token, .*transformer\.encoder"):
        tokenizers["sentencepiece"]("a").inputs(model_of("Encoder-Input-Token", "Decoder-Input-Token"))
