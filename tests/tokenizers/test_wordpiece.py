"""WordPiece follows Google's rules for any text, and knows where each token stands."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tokenizers import google_reference as reference
from tests.tokenizers.tokenizer_data import ggml, golden
from tfloader.errors import TokenizerError
from tfloader.tokenizers import Tokenizer, load_vocab

# Unassigned characters are left out: they may be assigned already in the Rust library's newer tables.
ANY = st.characters(exclude_categories=("Cs", "Cn"))
HARD = st.sampled_from(
    [
        *"ΣςσΑαİıIßẞǅﬁéÅ한ㅎ가Ⅷ½²①Ａａﷺàßŉΐ'’.·:ʰ_-#[]CLSaeb12 的天你豈㐀𠀀👨🏽",
        *"\u0301\u0307\u0345\u20dd\u0903\u094d\u302e\ufe0f\u200d\u200b\u00ad\ufeff\ufffd\ue000\U0002b825",
        *"\x00\x07\x1c\x85\xa0\t\n\r\u2028\u2029\u3000",
        *["ab", "##", "[MASK]", "the", "Unaffable", "ΑΣ"],
    ]
)
TEXT = st.one_of(st.text(ANY, max_size=30), st.lists(HARD, max_size=25).map("".join))


@pytest.fixture(scope="module")
def vocab(data):
    # Words of many scripts are missing in the real vocabulary, so that few of them would be spelled.
    vocab = load_vocab(data / "bert-base-chinese.txt")
    for character in "ΣςσΑαİıIßÅéＡⅧʰ\u0301\u0903\ue000Ée":
        for piece in (character, "##" + character):
            vocab.setdefault(piece, len(vocab))
    return vocab


@pytest.fixture(scope="module")
def tokenizers(vocab):
    return {
        (lower, strip): Tokenizer(vocab, do_lower_case=lower, strip_accents=strip)
        for lower in (False, True)
        for strip in (None, False, True)
    }


@given(TEXT, st.booleans(), st.sampled_from([None, False, True]))
@example("ΑΣ ΑΣ' Α'Σ Σ ΑΣ.Α ΑʰΣ Α\u00adΣ ΣΣ", True, None)
@example("İ", True, None)
@example("हिन्दी", True, None)
@example("x" * 200 + " " + "x" * 201, True, None)
@example("\ue000a\U0002b825b\U0002b91f", False, None)
@example("a\x85b\x1cc\u2028d\u2029e\u3000f", False, None)
def test_equals_googles_rules_for_any_text(tokenizers, vocab, text, lower, strip):
    expected = reference.tokenize(text, vocab, lower, strip)
    tokenizer = tokenizers[lower, strip]
    assert tokenizer.tokenize(text) == ["[CLS]", *expected, "[SEP]"]
    ids = [vocab.get(token, vocab["[UNK]"]) for token in expected]
    assert tokenizer([text], add_special_tokens=False).input_ids[0].tolist() == ids
    assert tokenizer.encode(text)[0] == [vocab["[CLS]"], *ids, vocab["[SEP]"]]


def test_equals_googles_rules_for_every_character(tokenizers):
    tokenizer = tokenizers[False, None]
    characters = [c for c in map(chr, range(0x30000)) if unicodedata.category(c) not in ("Cs", "Cn")]
    wrong = [c for c in characters if tokenizer._words(f"a{c}b") != reference.words(f"a{c}b", lower=False)]
    assert not wrong


@given(TEXT, st.booleans())
@example("\u302e\u094d", True)
@example("\u302e\u094d0", True)
def test_each_token_stands_for_its_characters(tokenizers, text, lower):
    tokenizer = tokenizers[lower, None]
    tokens = tokenizer.tokenize(text)
    places, offsets = tokenizer.rematch(text, tokens), tokenizer.offsets(text)
    assert len(places) == len(offsets) == len(tokens)
    assert places[0] == places[-1] == [] and offsets[0] == offsets[-1] == (0, 0)
    last = 0
    for token, indices, (start, end) in zip(tokens[1:-1], places[1:-1], offsets[1:-1], strict=True):
        if tokenizer.is_special(token):
            continue
        stem = token.removeprefix("##") if len(token) > 2 else token
        assert indices and last <= indices[0] and indices[-1] < len(text)
        if not any(unicodedata.category(c) == "Mc" and unicodedata.combining(c) for c in text):
            # Where Unicode's normal form reorders such marks, the native offsets may be off by one.
            assert start <= indices[0] and indices[-1] < end <= len(text)
        last = indices[0]
        spelled = "".join(map(tokenizer._fold, (text[i] for i in indices)))
        assert stem.replace("ς", "σ") in spelled
        if not lower:
            assert "".join(text[i] for i in indices) == stem


@given(TEXT, st.booleans(), st.integers(0, 6), st.integers(0, 6))
def test_truncated_tokens_are_found(tokenizers, text, lower, left, right):
    tokenizer = tokenizers[lower, None]
    tokens = tokenizer.tokenize(text)[1:-1]
    whole = tokenizer.rematch(text, tokens)
    assert tokenizer.rematch(text, tokens[:right]) == whole[:right]
    cut = tokens[left:]
    found = tokenizer.rematch(text, cut)
    if tokens[: len(cut)] != cut:
        assert found == whole[left:]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("ΑΣ", [[0], [1]]),
        ("İS", [[0, 1]]),
        ("e\u0301a", [[0, 2]]),
        ("안", [[0], [0], [0]]),
        ("a\u200db", [[0, 2]]),
        ("ＡＢ", [[0], [1]]),
        ("Aß", [[0], [1]]),
    ],
)
def test_rematch_counts_characters_of_the_original(data, text, places):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt", True, None, None)
    assert tokenizer.rematch(text, tokenizer.tokenize(text)) == places


def test_rematch_with_masked_unknown_and_foreign_tokens(data):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt", True, None, None)
    assert tokenizer.rematch("今天天气", ["今", "[MASK]", "天", "气"]) == [[0], [], [2], [3]]
    padded = ["[MASK]", "天", "[UNK]", "气", "[PAD]", "[PAD]"]
    assert tokenizer.rematch("今天天气", padded) == [[], [1], [], [3], [], []]
    assert tokenizer.rematch("今天天气", ["[SEP]", "天", "[SEP]", "天", "气"]) == [[], [1], [], [2], [3]]
    assert tokenizer.rematch("ab今天", ["今天"]) == [[2, 3]], "words of another tokenizer"
    with pytest.raises(TokenizerError, match=r"'雨'.*'今天'"):
        tokenizer.rematch("今天", ["雨"])


@pytest.fixture(scope="module")
def splitting(vocab):
    return {lower: Tokenizer(vocab, lower, pre_tokenize=lambda text: text.split("a")) for lower in (False, True)}


@given(TEXT, st.booleans())
def test_pre_tokenized_words_stand_for_their_characters(splitting, text, lower):
    tokenizer = splitting[lower]
    tokens = tokenizer.tokenize(text)
    places = tokenizer.rematch(text, tokens)
    assert len(places) == len(tokens) == len(tokenizer.offsets(text))
    assert tokenizer.encode(text)[0] == tokenizer.tokens_to_ids(tokens)


def test_words_of_pre_tokenize_stay_whole(vocab):
    words = {**vocab, "天气": len(vocab)}
    tokenizer = Tokenizer(words, pre_tokenize=lambda text: ["今天", "天气", "好"])
    assert tokenizer.tokenize("今天天气好") == ["[CLS]", "今", "天", "天气", "好", "[SEP]"]
    assert tokenizer.rematch("今天天气好", tokenizer.tokenize("今天天气好"))[3] == [2, 3]
    assert tokenizer(["今天天气好"]).input_ids.tolist() == [tokenizer.encode("今天天气好")[0]]


@pytest.fixture(scope="module")
def bare(data):
    return Tokenizer(data / "bert-base-uncased.txt", True, None, None)


@pytest.mark.parametrize(("text", "ids"), ggml("ggml-vocab-bert-bge.gguf"), ids=lambda value: ascii(value)[:20])
def test_llama_cpp_goldens(bare, text, ids):
    assert bare.encode(text)[0] == ids


def test_google_goldens(data):
    tokenizer = Tokenizer(data / "bert_google" / "vocab.txt", True, None, None)
    for case in golden("bert_google/tokenizer_goldens.json"):
        assert tokenizer.encode(case["text"])[0] == case["ids"]
        unknown = [token if token in tokenizer._vocab else "[UNK]" for token in tokenizer.tokenize(case["text"])]
        assert unknown == case["tokens"]


def test_special_tokens_in_a_text_are_text_unless_asked(data):
    vocab = load_vocab(data / "bert-base-chinese.txt")
    text = "今[MASK]天[CLS]qqqqq囧囧[unused1]Qzx"
    google, whole = Tokenizer(vocab, True), Tokenizer(vocab, True, special_tokens=True)
    assert google.tokenize(text)[1:6] == ["今", "[", "ma", "##sk", "]"]
    tokens = whole.tokenize(text)
    assert tokens[1:5] == ["今", "[MASK]", "天", "[CLS]"]
    assert whole.encode(text)[0] == whole.tokens_to_ids(tokens)
    assert whole.rematch(text, tokens)[1:5] == [[0], [], [7], []]
    assert tokens[-2] in ("qzx", "##zx", "##x")


@given(st.lists(st.sampled_from(["[MASK]", "[SEP]", "囧", "Йж", "a'", "ΑΣ", " ", "de", "[UNK"]), max_size=12))
def test_unknown_words_keep_their_name_beside_whole_special_tokens(data, parts):
    tokenizer = Tokenizer(
        {"[UNK]": 0, "[MASK]": 1, "[SEP]": 2, "a": 3, "囧": 4}, False, None, None, special_tokens=True
    )
    text = "".join(parts)
    tokens = tokenizer.tokenize(text)
    assert "".join(tokens) == text.replace(" ", "")
    assert tokenizer.tokens_to_ids(tokens) == tokenizer([text]).input_ids[0].tolist()


def test_options_that_change_the_rules(vocab):
    joined = Tokenizer(vocab, tokenize_chinese_chars=False, token_start=None, token_end=None)
    assert joined.tokenize("天天") == ["天", "##天"]
    assert "é" in Tokenizer(vocab, True, strip_accents=False).tokenize("É é")
    assert Tokenizer(vocab, word_maxlen=3).tokenize("abc abcd")[-2] == "abcd"


def test_ids_and_names_of_special_tokens(data):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt")
    ids = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert ids == (0, 100, 101, 102)
    assert (tokenizer._token_pad_id, tokenizer._token_start_id, tokenizer._token_end_id) == (0, 101, 102)
    assert tokenizer.mask_token_id == tokenizer._token_mask_id == 103
    assert tokenizer.bos_token_id is None and tokenizer.eos_token_id is None
    assert tokenizer.ids_to_tokens([791, 1921]) == ["今", "天"] and tokenizer.vocab_size == 21128
    with pytest.raises(TokenizerError, match="21128 is not in the vocabulary"):
        tokenizer.id_to_token(21128)
    plain = Tokenizer({"[UNK]": 0, "a": 1}, token_start=None, token_end=None)
    assert plain.pad_token_id is None and plain._token_start_id is None


def test_decode_keeps_special_tokens_on_demand(data):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt")
    assert tokenizer.decode([101, 791, 102], skip_special_tokens=False) == "[CLS]今[SEP]"
    assert tokenizer.decode([], tokens=["今", "天", "un", "##able"]) == "今天unable"
    assert tokenizer.decode(np.array([791, 1921], np.int32)) == "今天"


@pytest.mark.parametrize(
    ("vocab", "options", "message"),
    [
        ({}, {}, "token_dict: not a vocabulary:\n  - it is empty"),
        ({"a": 0}, {}, r"token_unk: '\[UNK\]' is not among"),
        ({"[UNK]": 0}, {}, r"token_start: '\[CLS\]'.*token_start=None"),
        ({"[UNK]": 0, "[CLS]": 1}, {}, r"token_end: '\[SEP\]'"),
        ({"[UNK]": -1}, {}, "expected a token with an id"),
        ({"[UNK]": 1.5}, {}, "expected a token with an id"),
        ({3: 1}, {}, "expected a token with an id"),
        ({"[UNK]": True}, {}, "expected a token with an id"),
    ],
)
def test_impossible_vocabularies_are_refused(vocab, options, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer(vocab, **options)
