"""Strings in a graph become the ids that tfloader's own tokenizer makes of them."""

from __future__ import annotations

import functools
import gzip

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.tokenizers.tokenizer_data import ggml
from tfloader.exporting import text as exporting_text
from tfloader.exporting.text import POINTS, WordPieceInGraph, each_character, mark_ranks, reasons_against
from tfloader.tokenizers.wordpiece import SPACE

UNCASED = {"do_lower_case": True}
KINDS = {
    "uncased": UNCASED,
    "cased": {"do_lower_case": False},
    "uncased with accents": {**UNCASED, "strip_accents": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "Chinese in words": {**UNCASED, "tokenize_chinese_chars": False},
}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCσςéα中国!.,'-0123"
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "un",
    "##aff",
    "##able",
    "naive",
    "##ing",
    "runn",
    "中国",
]
VOCABULARY += [*LETTERS, *(f"##{letter}" for letter in LETTERS)]

each_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def tokenizer(kind: str) -> tfloader.Tokenizer:
    return tfloader.Tokenizer({token: id for id, token in enumerate(VOCABULARY)}, **KINDS[kind])


@functools.cache
def compiled(kind: str):
    graph = WordPieceInGraph(tokenizer(kind))
    return tf.function(graph, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False), graph


def strings(texts):
    return tf.constant([text.encode() for text in texts], tf.string)


def check(function, expected, texts):
    ids, mask = function(strings(texts))
    np.testing.assert_array_equal(ids, expected.input_ids)
    np.testing.assert_array_equal(mask, expected.attention_mask)


@functools.cache
def words(kind: str):
    graph = compiled(kind)[1]
    return tf.function(graph.words, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def check_words(kind: str, texts: list[str]):
    found, rows, _ = (value.numpy() for value in words(kind)(strings(texts)))
    for row, text in enumerate(texts):
        assert [word.decode() for word in found[rows == row]] == tokenizer(kind)._words(text)


@each_kind
def test_hand_picked_texts(kind):
    texts = [
        "The unaffable running",
        "",
        " \t\n ",
        "中国人naïve中国!",
        "ΟΔΟΣ ΟΔΟΣ. Σ ΣΑΣ ᾳΣ' Σ΄Σ aΣ\u0301 aΣ\u00adb",
        "x" * 200 + " " + "x" * 201 + " a",
        "\ufeffa\x00b\u200bc\ufffdd\u3000e\u00a0f",
        "İstanbul ﬀ Ǆ ẞ 각 각 \u1e9b\u0323",
        "##a [MASK] [UNK] ##",
        "🙂👩‍👩‍👧 𠮷 \U000e0041\U0010ffff",
    ]
    check(compiled(kind)[0], tokenizer(kind)(texts), texts)
    check_words(kind, texts)


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=6))
@each_kind
def test_any_text(kind, texts):
    try:
        found = compiled(kind)[0](strings(texts))
    except tf.errors.InvalidArgumentError as error:
        assert "marks in an order" in error.message
        assert any(mark_ranks()[ord(character)] for text in texts for character in text)
        return
    expected = tokenizer(kind)(texts)
    np.testing.assert_array_equal(found[0], expected.input_ids)
    check_words(kind, texts)


PIECES = st.sampled_from(
    ["Σ", "σ", "Α", "a", "'", "\u0301", "\u00ad", ".", " ", "ʰ", "中", "\u200b", "the", "##", "é", "é"]
)


@given(parts=st.lists(st.lists(PIECES, max_size=9), min_size=1, max_size=8))
def test_sigmas_and_accents_in_any_neighbourhood(parts):
    texts = ["".join(part) for part in parts]
    check(compiled("uncased")[0], tokenizer("uncased")(texts), texts)
    check_words("uncased", texts)


@pytest.mark.parametrize("pattern", ["a{}b", "{}Σ aΣ{}b aΣ{}"])
def test_every_character(pattern):
    """In groups; those of Unicode's lower planes one by one, of ideographs and syllables every seventh."""
    points = [point for point in POINTS if point % 7 == 0 or (not 0x3400 < point < 0xD7A4 and point < 0x1FFFF)]
    groups = [points[begin : begin + 500] for begin in range(0, len(points), 500)]
    check_words("uncased", [" ".join(pattern.replace("{}", chr(point)) for point in group) for group in groups])


def test_the_characters_that_are_not_asked_are_touched_by_no_rule():
    asked = {*POINTS, *range(0xD800, 0xE000)}
    rest = "".join(chr(point) for point in range(0x110000) if point not in asked)
    assert tokenizer("uncased")._words(rest[:4096]) == [rest[:4096]]
    normalizer = tokenizer("uncased")._rust.normalizer
    assert all(normalizer.normalize_str(rest[i : i + 4096]) == rest[i : i + 4096] for i in range(0, len(rest), 4096))


def test_the_rules_are_asked_of_each_character_alone():
    upper = each_character(str.upper)
    assert (upper[ord("a")], upper[ord("0")], upper[ord("ß")]) == ("A", "0", "SS")
    assert (
        "".join(chr(point) for point in np.flatnonzero(exporting_text.matching(SPACE)) if point < 256) == "\t\n\r \xa0"
    )


@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-base-chinese"])
def test_public_vocabularies_on_public_texts(name, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(gzip.decompress((FIXTURES / "tokenizers" / f"{name}.txt.gz").read_bytes()))
    own = tfloader.Tokenizer(str(path), do_lower_case=True)
    texts = [text for text, _ in ggml("ggml-vocab-bert-bge.gguf")]
    check(WordPieceInGraph(own), own(texts), texts)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [2, 3, 6])
def test_long_texts_are_cut_as_the_tokenizer_cuts_them(side, limit):
    own = tfloader.Tokenizer({token: id for id, token in enumerate(VOCABULARY)}, do_lower_case=True)
    own.truncation_side = side
    texts = ["a b c d e f g", "the", ""]
    check(WordPieceInGraph(own, limit, truncate=True), own(texts, max_length=limit), texts)


def test_a_text_that_is_too_long_is_an_error_where_nothing_is_cut():
    function = WordPieceInGraph(tokenizer("uncased"), limit=4)
    assert function(strings(["a b"]))[0].shape == (1, 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 4 tokens"):
        function(strings(["a", "a b c"]))


def test_marks_that_would_have_to_be_sorted_are_an_error_and_others_are_not():
    function = compiled("uncased")[0]
    marks = np.flatnonzero(mark_ranks())
    order = np.argsort(mark_ranks()[marks])
    low, high = (chr(marks[order[place]]) for place in (0, -1))
    check(function, tokenizer("uncased")(["a" + low + high]), ["a" + low + high])
    with pytest.raises(tf.errors.InvalidArgumentError, match="marks in an order"):
        function(strings(["a" + high + low]))


@each_kind
def test_tokens_that_are_kept_whole_are_so_in_a_graph(kind):
    added = ["<x>", "中国人", "[MASK]2", "a c"]
    made = tokenizer_with(**KINDS[kind], special_tokens=True, added_tokens=added)
    function = tf.function(WordPieceInGraph(made), autograph=False)
    texts = ["a[MASK]b [mask]", "[MASK]2[MASK][MASK]", "un<x>aff<X>able", "ΑΣ[SEP]Σ [UNK]zz", "中国人中国[PAD]"]
    texts += ["a c ca c", "\U0010f000the\U0010f001 [CLS]\u0301", ""]
    assert made.encode(texts[1])[0][1:-1] == [made.token_to_id(each) for each in ("[MASK]2", "[MASK]", "[MASK]")]
    for text in texts:
        check(function, made([text]), [text])
    check(function, made(texts), texts)


def test_bytes_that_are_no_text_are_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        compiled("uncased")[0](tf.constant([b"a\xff"]))


def test_no_texts_at_all():
    ids, mask = compiled("uncased")[0](tf.constant([], tf.string))
    assert ids.shape[0] == mask.shape[0] == 0


@pytest.mark.parametrize(
    ("made", "words_of_the_error"),
    [
        (lambda: tokenizer_with(pre_tokenize=str.split), "pre_tokenize"),
        (lambda: tokenizer_with(token_translate={"a": "b"}), "token_translate"),
        (lambda: tokenizer_with(added_tokens=[AddedToken("the", single_word=True)]), "single_word"),
        (lambda: tokenizer_with(added_tokens=["<a", "a>"]), "overlap"),
        (lambda: tokenizer_with(added_tokens=[f"<{i}>" for i in range(4000)]), "too many"),
        (lambda: tokenizer_with(token_pad="[NONE]"), "no padding token"),
        (lambda: tfloader.load_tokenizer(CHECKPOINTS / "hf_t5_v11"), "this is a SpTokenizer"),
    ],
)
def test_what_cannot_be_exact_is_refused(made, words_of_the_error):
    (reason,) = reasons_against(made())
    assert words_of_the_error in reason


def tokenizer_with(**options):
    return tfloader.Tokenizer({token: id for id, token in enumerate(VOCABULARY)}, **options)
