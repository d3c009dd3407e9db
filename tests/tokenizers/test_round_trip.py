"""What `save` writes, `load_tokenizer` reads, every setting of it, whatever model the folder is of."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from tests.tokenizers.tokenizer_data import DATA
from tfloader import BytePairTokenizer, SpTokenizer, Tokenizer, load_tokenizer
from tfloader.tokenizers import JsonTokenizer

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<x>"]
VOCAB = {token: id for id, token in enumerate([*NAMES, *"abéÉ<>x/s[]ck", "##a", "##b", "ab", "天", "天天"])}
TEXTS = ["ab É abba <y>beyond", "a[MASK]b <x> a<x>b", "</s>天天 <s>", "abab" * 9]
MODELS = (None, "bert", "gpt2", "gpt2_ml", "roberta", "t5", "electra")
SIDES = st.sampled_from(["right", "left"])
TOKENS = st.sampled_from([None, *NAMES[2:]])
ADDED = st.lists(
    st.builds(
        AddedToken,
        st.sampled_from([*NAMES[2:], "<y>", "beyond"]),
        **dict.fromkeys(("lstrip", "rstrip", "normalized", "special"), st.booleans()),
    ),
    max_size=2,
    unique_by=lambda token: token.content,
)


def state(tokenizer):
    """All that can be set, and what comes of it."""
    apart = "_rust _lowering _folded _whole _marks _sp _model content added_tokens padding_side truncation_side"
    values = {name: value for name, value in vars(tokenizer).items() if name not in apart.split()}
    added = {content: token.__getstate__() for content, token in tokenizer.added_tokens.items()}
    results = [
        (tokenizer.tokenize(text), tokenizer.encode(text, "a"), tokenizer(text, "b").segment_ids.tolist())
        for text in TEXTS
    ]
    return type(tokenizer), values, added, tokenizer.padding_side, tokenizer.truncation_side, results


def reloaded(tokenizer, model_type):
    with tempfile.TemporaryDirectory() as folder:
        if model_type is not None:
            (Path(folder) / "config.json").write_text(json.dumps({"model_type": model_type}))
        tokenizer.save(folder)
        return load_tokenizer(folder)


@given(
    st.sampled_from(MODELS),
    SIDES,
    SIDES,
    ADDED,
    st.fixed_dictionaries(
        {
            "do_lower_case": st.booleans(),
            "token_start": TOKENS,
            "token_end": TOKENS,
            "token_unk": st.sampled_from(["[UNK]", "x"]),
            "token_pad": st.sampled_from([None, "[PAD]", "x", "nowhere"]),
            "token_mask": st.sampled_from([None, "[MASK]", "<x>"]),
            "word_maxlen": st.integers(1, 40),
            "strip_accents": st.sampled_from([None, False, True]),
            "tokenize_chinese_chars": st.booleans(),
            "special_tokens": st.booleans(),
        }
    ),
)
def test_every_setting_of_wordpiece_survives(model_type, padding, truncation, added, options):
    tokenizer = Tokenizer(VOCAB, **options, added_tokens=added)
    tokenizer.padding_side, tokenizer.truncation_side = padding, truncation
    assert state(reloaded(tokenizer, model_type)) == state(tokenizer)


@pytest.fixture(scope="module")
def byte_level():
    vocab = json.loads(gzip.decompress((DATA / "encoder.json.gz").read_bytes()))
    letters = {token: id for token, id in vocab.items() if id < 256}
    return letters | {name: 256 + number for number, name in enumerate(["ab", *NAMES])}


@given(
    st.sampled_from(MODELS),
    SIDES,
    TOKENS,
    TOKENS,
    st.dictionaries(st.sampled_from(["pad", "bos", "eos", "cls", "sep", "mask"]), st.sampled_from(NAMES)),
    st.booleans(),
    ADDED,
)
def test_every_setting_of_byte_level_bpe_survives(byte_level, model_type, side, start, end, roles, special, added):
    tokenizer = BytePairTokenizer(
        byte_level, [("a", "b")], start, end, tokens=roles, special_tokens=special, added_tokens=added
    )
    tokenizer.padding_side = side
    assert state(reloaded(tokenizer, model_type)) == state(tokenizer)


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token_start": "</s>", "token_end": None},
        {"extra_ids": 7, "special_tokens": True},
        {"added_tokens": ["<unk>"]},
        {"added_tokens": ["<y>", AddedToken("beyond", single_word=True, special=True)], "extra_ids": 7},
    ],
)
def test_every_setting_of_sentencepiece_survives(data, model_type, options):
    tokenizer = SpTokenizer(data / "t5_mesh_v10" / "spiece.model", **options)
    assert state(reloaded(tokenizer, model_type)) == state(tokenizer)


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("options", [{}, {"tokens": {}}, {"tokens": {"eos": "[SEP]"}, "special_tokens": False}])
def test_every_setting_of_a_tokenizer_json_survives(data, model_type, options):
    tokenizer = JsonTokenizer(data / "tiny_bert_random" / "tokenizer.json", **options)
    assert state(reloaded(tokenizer, model_type)) == state(tokenizer)
