"""SentencePiece models keep their own ids; T5's sentinels and end token are where T5 has them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tokenizers.tokenizer_data import golden
from tfloader.errors import TokenizerError
from tfloader.tokenizers import JsonTokenizer, SpTokenizer, load_tokenizer

ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@pytest.fixture(scope="module")
def t5(data):
    return load_tokenizer(data / "t5_mesh_v10")


@pytest.mark.parametrize("folder", ["t5_mesh_v10", "mt5_mesh"])
def test_sentencepiece_goldens_and_their_sentinels(data, folder):
    tokenizer = load_tokenizer(data / folder)
    content = golden(f"{folder}/tokenizer_goldens.json")
    assert "size 111, +100 extra ids <extra_id_N> = size-1-N counted from 211" in content["about"]
    for case in content["goldens"]:
        assert tokenizer.tokenize(case["text"]) == [*case["pieces"], "</s>"]
        assert tokenizer.encode(case["text"])[0] == [*case["ids"], 1]
        assert tokenizer([case["text"]], add_special_tokens=False).input_ids[0].tolist() == case["ids"]
    assert tokenizer.vocab_size == 211
    assert tokenizer.tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [210, 111]
    assert tokenizer.ids_to_tokens([210, 111, 110]) == ["<extra_id_0>", "<extra_id_99>", "e"]
    assert tokenizer.token_to_id("<extra_id_100>") == tokenizer.unk_token_id == 2


def test_sentinels_in_a_text_are_single_tokens(t5):
    text = "the <extra_id_0> fox<extra_id_99><extra_id_100>"
    tokens = t5.tokenize(text)
    assert tokens[:4] == ["▁the", "<extra_id_0>", "▁fox", "<extra_id_99>"]
    assert "<extra_id_100>" not in tokens
    ids = t5.tokens_to_ids(tokens)
    assert t5.encode(text)[0] == t5([text]).input_ids[0].tolist() == ids
    assert [text[start:end] for start, end in t5.offsets(text)][:4] == [
        "the",
        "<extra_id_0>",
        "fox",
        "<extra_id_99>",
    ]
    assert t5.decode(ids[:4]) == "the fox"
    assert t5.decode(ids[:4], skip_special_tokens=False) == "the <extra_id_0> fox <extra_id_99>"


def test_other_special_pieces_in_a_text_are_text_unless_asked(data, t5):
    path = data / "t5_mesh_v10" / "spiece.model"
    assert 1 not in t5.encode("the </s> fox")[0][:-1]
    whole = SpTokenizer(path, extra_ids=100, special_tokens=True)
    assert whole.tokenize("the </s> fox") == ["▁the", "</s>", "▁fox", "</s>"]
    assert whole.encode("the </s> fox")[0] == [5, 1, 34, 1]


def test_ids_beyond_the_vocabulary_decode_to_nothing(t5):
    assert t5.decode([5, 211, 100000, 34]) == "the fox"
    assert t5.decode([5, 211, 34], skip_special_tokens=False) == "the fox"
    with pytest.raises(TokenizerError, match="-1 is not in the vocabulary"):
        t5.decode([-1])


@given(ANY)
@example("  ＦＵＬＬ width½ ﷺ e\u0301")
@example("<extra_id_5> a <extra_id_5>")
def test_offsets_are_in_order_and_ids_agree(data, t5, text):
    tokens, ids = t5.tokenize(text), t5.encode(text)[0]
    assert t5([text]).input_ids[0].tolist() == ids and len(tokens) == len(ids)
    last = 0
    for start, end in t5.offsets(text)[:-1]:
        assert last <= start <= end <= len(text)
        last = end
    places = t5.rematch(text, tokens)
    assert len(places) == len(tokens)


def test_offsets_count_characters(data):
    tokenizer = SpTokenizer(data / "test_model.model", None, None)
    text = "😀 hello ＦＵＬＬ é"
    assert "".join(text[start:end] for start, end in tokenizer.offsets(text)) == text


def test_pre_tokenize_and_translate(data):
    tokenizer = SpTokenizer(
        data / "t5_mesh_v10" / "spiece.model",
        token_end=None,
        pre_tokenize=lambda text: text.split(","),
        token_translate={"▁the": "▁fox"},
    )
    assert tokenizer.tokenize("the,hello") == ["▁fox", "▁", "h", "e", "l", "l", "o"]
    ids = tokenizer.encode("the,hello")[0]
    assert ids == [34, 68, 100, 110, 101, 101, 104] == tokenizer(["the,hello"]).input_ids[0].tolist()
    assert tokenizer.decode(ids) == "the hello"
    with pytest.raises(TokenizerError, match="no offsets in the original"):
        tokenizer.rematch("the,hello", tokenizer.tokenize("the,hello"))


def test_equals_hugging_faces_tokenizer_json(data):
    there = JsonTokenizer(data / "t5-small.json")
    assert (there.vocab_size, there.token_to_id("<extra_id_0>"), there.eos_token_id) == (32100, 32099, 1)
    assert there.encode("Hello <extra_id_0> world")[0] == [8774, 32099, 296, 1]
    assert there.tokenize("Hello") == ["▁Hello", "</s>"]
    assert there.decode([8774, 296, 1, 32120]) == "Hello world"
    assert there.encode("Hello", "world") == ([8774, 1, 296, 1], [0, 0, 0, 0])
    assert there.offsets("Hello world")[:2] == [(0, 5), (6, 11)]
    assert there.rematch("Hello", there.tokenize("Hello")) == [[0, 1, 2, 3, 4], []]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_end": "[SEP]x"}, "token_end: the model .* has no piece"),
        ({"token_start": "<s>"}, "token_start: the model .* has no piece '<s>'"),
        ({"extra_ids": -1}, "extra_ids: expected a number"),
        ({"extra_ids": True}, "extra_ids: expected a number"),
        ({"extra_ids": 10**9}, "extra_ids: expected a number"),
    ],
)
def test_impossible_options_are_refused(data, options, message):
    with pytest.raises(TokenizerError, match=message):
        SpTokenizer(data / "t5_mesh_v10" / "spiece.model", **options)


def test_damaged_models_are_refused(data, tmp_path):
    model = (data / "t5_mesh_v10" / "spiece.model").read_bytes()
    for name, content in {
        "empty": b"",
        "text": b"not a model",
        "zeros": bytes(500),
        "half": model[:5000],
        "piece": model.replace("▁fox".encode(), b"\xff" * 6),
    }.items():
        path = tmp_path / f"{name}.model"
        path.write_bytes(content)
        with pytest.raises(TokenizerError, match=f"{name}.model: (not a SentencePiece model|the file is empty)"):
            SpTokenizer(path)
