"""Everything bert4keras returned for these calls, we return."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.tokenizers.tokenizer_data import golden
from tfloader.errors import TokenizerError
from tfloader.tokenizers import SpTokenizer, Tokenizer, load_vocab

GOLDEN = golden("bert4keras.json.gz")


@pytest.fixture(scope="module")
def chinese(data):
    vocab = load_vocab(data / "bert-base-chinese.txt")
    return {lower: Tokenizer(vocab, do_lower_case=lower) for lower in (False, True)}


def _name(case) -> str:
    return ascii(case.get("text", case.get("first", "")))[:30]


@pytest.mark.parametrize("case", GOLDEN["single"], ids=_name)
def test_single_text(chinese, case):
    tokenizer = chinese[case["lower"]]
    tokens = tokenizer.tokenize(case["text"])
    assert tokens == case["tokens"]
    assert tokenizer.encode(case["text"]) == (case["ids"], case["segments"])
    assert tokenizer.tokens_to_ids(tokens) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["decoded"]
    expected = case["rematch"]
    if case["text"] == "İstanbul Iıiİ" and case["lower"]:
        # bert4keras counts in the lowered text, where "İ" is two characters: its last index is too high.
        assert expected[1] == [0, 2] and expected[5] == [10, 11, 12, 13]
        expected = [[], [0, 1], [2, 3, 4], [5, 6], [7], [9, 10, 11, 12], []]
    assert tokenizer.rematch(case["text"], tokens) == [sorted(set(places)) for places in expected]


@pytest.mark.parametrize("case", GOLDEN["pairs"], ids=_name)
def test_pair(chinese, case):
    options = {key: case[key] for key in ("maxlen", "pattern", "truncate_from")}
    tokenizer = chinese[case["lower"]]
    expected = (case["ids"], case["segments"])
    assert tokenizer.encode(case["first"], case["second"], **options) == expected
    first, second = (text and tokenizer.tokenize(text) for text in (case["first"], case["second"]))
    if first and (second or case["second"] is None):
        assert tokenizer.encode(first, second, **options) == expected, "tokens in place of texts"


@pytest.mark.parametrize("case", GOLDEN["tokenize_maxlen"], ids=_name)
def test_tokenize_maxlen(chinese, case):
    assert chinese[True].tokenize(case["text"], maxlen=case["maxlen"]) == case["tokens"]


def test_without_start_and_end(data):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt", True, token_start=None, token_end=None)
    for case in GOLDEN["no_start_end"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert tokenizer.encode(case["text"], maxlen=4)[0] == case["encode_maxlen4"]


def test_pre_tokenize(data):
    tokenizer = Tokenizer(data / "bert-base-chinese.txt", True, pre_tokenize=lambda text: text.split("a"))
    for case in GOLDEN["pre_tokenize_split_a"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]


def test_token_translate(data):
    for case in GOLDEN["token_translate"]:
        tokenizer = Tokenizer(data / "bert-base-chinese.txt", True, token_translate=case["translate"])
        assert tokenizer.tokenize(case["text"]) == case["tokens"]


@pytest.mark.parametrize("case", GOLDEN["decode_ids"], ids=lambda case: str(case["ids"])[:30])
def test_decode(chinese, case):
    assert chinese[False].decode(case["ids"]) == case["decoded"]


FILES = {
    "bert-base-chinese/vocab.txt": "bert-base-chinese.txt",
    "bert-base-uncased/vocab.txt": "bert-base-uncased.txt",
    "gpt2_ml/clue-vocab.txt": "clue-vocab.txt",
}


def _hash(vocab: dict[str, int]) -> str:
    lines = [f"{token} {id}" for token, id in sorted(vocab.items(), key=lambda item: (item[1], item[0]))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("case", GOLDEN["load_vocab"], ids=lambda c: f"{c['file']} {len(c['startswith'])}")
@pytest.mark.parametrize("compat", [None, "bert4keras"])
def test_load_vocab(data, case, compat):
    path = data / FILES[case["file"]]
    full = load_vocab(path, compat=compat)
    assert (len(full), max(full.values()), _hash(full)) == (
        case["full_size"],
        case["full_max_id"],
        case["full_sha256"],
    )
    small, keep = load_vocab(path, simplified=True, startswith=case["startswith"], compat=compat)
    assert list(small)[:12] == case["first_tokens"]
    assert list(small)[-5:] == case["last_tokens"]
    assert (len(small), _hash(small)) == (case["simplified_size"], case["simplified_sha256"])
    assert hashlib.sha256(json.dumps(keep).encode()).hexdigest() == case["keep_tokens_sha256"]


def test_repeated_tokens_only_on_demand(tmp_path):
    case = GOLDEN["load_vocab_duplicates"]
    path = tmp_path / "vocab.txt"
    path.write_text(case["content"])
    assert load_vocab(path, compat="bert4keras") == case["result"]
    with pytest.raises(TokenizerError, match=r"line 7 repeats line 5: 'a'"):
        load_vocab(path)


SP_FILES = {"sp_small/test_model.model": "test_model.model", "albert/spiece.model": "albert.model"}


@pytest.mark.parametrize("case", GOLDEN["sp"], ids=lambda c: f"{c['model']} {c['options']['token_end']}")
def test_sentencepiece(data, case):
    path = data / SP_FILES[case["model"]]
    if "constructor" in case:
        # bert4keras could not open a model without a padding piece; nothing forbids it.
        assert SpTokenizer(path, **case["options"]).pad_token_id is None
        return
    options = dict(case["options"])
    if options["token_end"] == "</s>":
        # ALBERT's model has no "</s>": bert4keras put its unknown piece at the end instead, without a word.
        with pytest.raises(TokenizerError, match="token_end"):
            SpTokenizer(path, **options)
        options["token_end"] = None
    tokenizer = SpTokenizer(path, **options)
    assert tokenizer.vocab_size == case["vocab_size"]
    assert tokenizer.special_tokens["pad"] == case["token_pad"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (case["pad_id"], case["unk_id"])
    end = 0 if case["options"]["token_end"] is None else 1
    for text in case["cases"]:
        length = len(text["tokens"]) - end
        assert tokenizer.tokenize(text["text"]) == text["tokens"][:length]
        assert tokenizer.encode(text["text"])[0] == text["ids"][:length]
        assert tokenizer.decode(text["ids"]) == text["decoded"]
    for ids in case["decode"]:
        assert tokenizer.decode(ids["ids"]) == ids["decoded"]
