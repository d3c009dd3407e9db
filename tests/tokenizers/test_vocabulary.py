"""A vocabulary file gives each token its line number, or an error that says why it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader.errors import TokenizerError
from tfloader.tokenizers import load_vocab, save_vocab
from tfloader.tokenizers.vocabulary import is_cjk, is_punctuation

EXPECTED = {"[PAD]": 0, "天": 1, "##a": 2}


@pytest.mark.parametrize(
    "content",
    [
        b"[PAD]\n\xe5\xa4\xa9\n##a\n",
        b"[PAD]\n\xe5\xa4\xa9\n##a",
        b"[PAD]\r\n\xe5\xa4\xa9\r\n##a\r\n",
        b"\xef\xbb\xbf[PAD]\n\xe5\xa4\xa9\n##a\n",
        b"[PAD]\n\xe5\xa4\xa9\n##a\n\n\n",
        b"[PAD]\r\n\xe5\xa4\xa9\r\n##a\r\n\r\n",
        b"[PAD] \n \xe5\xa4\xa9\n##a\t\n",
    ],
)
def test_line_numbers_are_ids_whatever_the_line_ends(tmp_path, content):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    assert load_vocab(path) == load_vocab(str(path)) == EXPECTED


def test_a_blank_line_inside_counts_as_google_counts(tmp_path):
    (tmp_path / "v.txt").write_text("a\n\u2028\nb\n", encoding="utf-8")
    assert load_vocab(tmp_path / "v.txt") == {"a": 0, "": 1, "b": 2}


def test_other_encodings(tmp_path):
    (tmp_path / "v.txt").write_bytes("天\n地\n".encode("gb18030"))
    assert load_vocab(tmp_path / "v.txt", encoding="gb18030") == {"天": 0, "地": 1}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"a\nb\na\n", {}, r"v.txt: the ids .*\n.*line 3 repeats line 1: 'a'\n.*compat='bert4keras'"),
        (b"a\r\nb\r\na\r\n", {}, "line 3 repeats line 1"),
        (b"a\n\nb\n\nc\n", {}, "line 4 repeats line 2: ''"),
        (b"a\t0.5\nb\t0.3\n", {}, "line 1 holds several words"),
        (b"", {}, "the file is empty"),
        (b"\n\n", {}, "the file is empty"),
        (b"\xff\xfe\x00", {}, r"not utf-8 text \(byte 0\)"),
        (b"a\n", {"encoding": "utf-99"}, "knows no encoding 'utf-99'"),
        (b"a\n", {"compat": "bert5keras"}, "compat: expected None or 'bert4keras'"),
        (b"a\n", {"simplified": True, "startswith": ["[PAD]"]}, r"startswith .* \['\[PAD\]'\]"),
        (b"a\n", {"simplified": True, "startswith": ["a", "a"]}, "a token twice"),
    ],
)
def test_uncertain_vocabularies_are_refused(tmp_path, content, options, message):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        load_vocab(tmp_path / "v.txt", **options)


def test_missing_and_oversized_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(TokenizerError, match=r"none.txt: cannot be read \(No such file"):
        load_vocab(tmp_path / "none.txt")
    with pytest.raises(TokenizerError, match="cannot be read"):
        load_vocab(tmp_path)
    monkeypatch.setattr("tfloader.tokenizers.vocabulary.MAX_VOCAB_BYTES", 10)
    (tmp_path / "big.txt").write_text("12345678901")
    with pytest.raises(TokenizerError, match=r"big.txt: the file has 11 bytes; at most 10"):
        load_vocab(tmp_path / "big.txt")


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1), min_size=1, unique=True))
def test_saved_vocabularies_load_equal(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("vocab") / "v.txt"
    tokens[0] = tokens[0].removeprefix("\ufeff") or "a"
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    save_vocab(path, vocab)
    assert load_vocab(path) == vocab
    save_vocab(path, list(vocab))
    assert load_vocab(path) == vocab
    assert [file.name for file in path.parent.iterdir()] == ["v.txt"], "no temporary file stays"


@pytest.mark.parametrize(
    "vocab",
    [
        {},
        [],
        {"a": 1},
        {"a": 0, "b": 2},
        {"a": 0, "b": 0},
        ["a", "a"],
        ["a b"],
        ["a\n"],
        ["a", ""],
        ["\u3000"],
    ],
)
def test_vocabularies_that_would_load_differently_are_not_saved(tmp_path, vocab):
    with pytest.raises(TokenizerError, match="token_dict"):
        save_vocab(tmp_path / "v.txt", vocab)
    assert not list(tmp_path.iterdir())


def test_simplified_without_startswith(tmp_path):
    (tmp_path / "v.txt").write_text("[PAD]\na\n##天\n天\n!\n##!\nab\n##b\n天a\na!\n", encoding="utf-8")
    small, keep = load_vocab(tmp_path / "v.txt", simplified=True, startswith=["[PAD]"])
    assert list(small) == ["[PAD]", "a", "天", "!", "ab", "##b"]
    assert keep == [0, 1, 3, 4, 6, 7] and list(small.values()) == list(range(6))


def test_character_classes_at_their_borders():
    assert [is_cjk(c) for c in "\u4dff\u4e00\u9fff\ua000\U0002ceaf\U0002ceb0"] == [
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    assert [is_punctuation(c) for c in "!/0:@A[`a{~ \x7f、$+€"] == [
        1,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
        0,
        0,
        1,
        1,
        1,
        0,
    ]
