"""Byte-level BPE gives OpenAI's ids and an exact way back for any text."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tokenizers.tokenizer_data import ggml, golden
from tfloader.errors import TokenizerError
from tfloader.tokenizers import BytePairTokenizer

ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@pytest.fixture(scope="module")
def gpt2(data):
    return BytePairTokenizer(data / "encoder.json", data / "vocab.bpe")


@pytest.fixture(scope="module")
def tiny(data):
    return BytePairTokenizer(data / "gpt2_openai" / "encoder.json", data / "gpt2_openai" / "vocab.bpe")


@pytest.mark.parametrize(("text", "ids"), ggml("ggml-vocab-gpt-2.gguf"), ids=lambda value: ascii(value)[:20])
def test_llama_cpp_goldens(gpt2, text, ids):
    assert gpt2.encode(text)[0] == ids
    assert gpt2.decode(ids) == text


def test_openai_goldens(tiny):
    for case in golden("gpt2_openai/tokenizer_goldens.json"):
        assert tiny.encode(case["text"])[0] == case["ids"]
        assert tiny.decode(case["ids"]) == case["decoded"]


@given(ANY)
@example("<|endoftext|>")
@example(" \n \t a  b\u3000\x1c\x85 '  's 'S")
@example("e\u0301👨\u200d👩 \x00")
def test_decode_is_the_exact_inverse(gpt2, tiny, text):
    for tokenizer in (gpt2, tiny):
        ids = tokenizer([text]).input_ids[0].tolist()
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([], tokens=tokenizer.tokenize(text)) == text
        assert tokenizer.encode(text)[0] == ids == tokenizer.tokens_to_ids(tokenizer.tokenize(text))


@given(ANY)
def test_offsets_cover_the_text_in_order(gpt2, text):
    tokens, last = gpt2.tokenize(text), 0
    for start, end in gpt2.offsets(text):
        assert start <= last <= end and start < end, "no gap, and no way back"
        last = end
    assert last == len(text)
    places = gpt2.rematch(text, tokens)
    assert sorted({i for token in places for i in token}) == list(range(len(text)))


def test_broken_characters_are_replaced(gpt2):
    whole = gpt2.encode("龘")[0]
    assert len(whole) > 1 and gpt2.decode(whole[:1]) == "\ufffd"


def test_end_of_text_is_text_unless_asked(data, gpt2):
    text = "a<|endoftext|>b"
    assert 50256 not in gpt2.encode(text)[0]
    whole = BytePairTokenizer(data / "encoder.json", data / "vocab.bpe", special_tokens=True)
    assert whole.encode(text)[0] == [64, 50256, 65]
    assert whole.decode([64, 50256, 65]) == "ab"
    assert whole.decode([64, 50256, 65], skip_special_tokens=False) == text
    assert whole.rematch(text, whole.tokenize(text)) == [[0], [], [14]]


def test_padding_is_told_by_the_mask_only(gpt2):
    batch = gpt2(["a b", "a"])
    assert gpt2.pad_token_id is None and gpt2.unk_token_id is None and gpt2.eos_token_id == 50256
    assert batch.input_ids.tolist() == [[64, 275], [64, 50256]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_roberta_puts_its_tokens_around(tiny, data):
    vocab = dict(tiny._vocab) | {token: len(tiny._vocab) + i for i, token in enumerate(["<s>", "</s>", "<pad>"])}
    roberta = BytePairTokenizer(vocab, tiny._merges, "<s>", "</s>", tokens={"pad": "<pad>", "eos": "</s>"})
    start, end, pad = (vocab[token] for token in ("<s>", "</s>", "<pad>"))
    batch = roberta(["!", "!!"], ['"', '"'])
    assert batch.input_ids.tolist() == [[start, 0, end, end, 1, end, pad], [start, 0, 0, end, end, 1, end]]
    assert batch.segment_ids.max() == 0
    assert roberta.encode("!", '"') == ([start, 0, end, end, 1, end], [0] * 6)


def test_ids_and_tokens_outside_the_vocabulary_are_refused(gpt2):
    for ids in ([50257], [-1]):
        with pytest.raises(TokenizerError, match="not in the vocabulary"):
            gpt2.decode(ids)
    with pytest.raises(TokenizerError, match="'中' is not in the vocabulary of 50257 tokens"):
        gpt2.token_to_id("中")


def _write(tmp_path, vocab, merges):
    (tmp_path / "encoder.json").write_text(vocab if isinstance(vocab, str) else json.dumps(vocab))
    (tmp_path / "vocab.bpe").write_text(merges)
    return tmp_path / "encoder.json", tmp_path / "vocab.bpe"


BYTES = [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
FULL = {token: i for i, token in enumerate([*BYTES, "ab"])}


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({"a": 0}, "", "vocab.bpe: the file is empty"),
        ({"a": 0}, "#version: 0.2\n", "255 of the 256 byte symbols are missing"),
        ({}, "#version: 0.2\n", "not a vocabulary"),
        ([], "#version: 0.2\n", "expected a JSON object"),
        ('{"a": 0, "a": 1}', "#version\n", "comes more than once"),
        ('{"a": 0', "#version\n", "not valid JSON"),
        ('{"a": NaN}', "#version\n", "NaN"),
        ({"a": 0, "b": 0}, "#version\n", "have the same id 0"),
        ({"a": "0"}, "#version\n", "expected a token with an id"),
        ({"a": -5}, "#version\n", "expected a token with an id"),
        ({"a": 10**30}, "#version\n", "expected a token with an id"),
        (FULL, "#version\na b c\n", "line 2 is not a merge"),
        (FULL, "#version\nab\n", "line 2 is not a merge"),
        (FULL, "#version\na b\n\nb a\n", "line 3 is not a merge"),
        (FULL, "#version\na zz\n", "do not fit together"),
        (FULL, "#version\nb a\n", "do not fit together"),
    ],
)
def test_broken_files_are_refused(tmp_path, vocab, merges, message):
    with pytest.raises(TokenizerError, match=message):
        BytePairTokenizer(*_write(tmp_path, vocab, merges))


def test_merges_with_windows_ends_and_without_version(tmp_path):
    tokenizer = BytePairTokenizer(*_write(tmp_path, FULL, "a b\r\n"))
    assert tokenizer.tokenize("abb") == ["ab", "b"]
