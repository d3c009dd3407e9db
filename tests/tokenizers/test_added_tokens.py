"""Tokens that a folder adds stand in a text whole. Right ids are those of transformers 5.24 (tokenizers 0.23.3)."""

import json

import pytest
from tokenizers import AddedToken

from tfloader import BytePairTokenizer, SpTokenizer, Tokenizer, load_tokenizer
from tfloader.errors import TokenizerError
from tfloader.tokenizers import JsonTokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] [speaker1] <n> ing [ ] speaker ##1 < n > go ##ing s ##s 你 好 ##er1 mask speak"
VOCAB = WORDS.split()
TEXTS = ["[speaker1]你好", "[SPEAKER1] go [MASK]", "go <n> s going", "ing going<n>zz [speaker1]zz"]
PLAIN = [[8, 10, 11, 9, 19, 20], [8, 10, 11, 9, 15, 4], [15, 12, 13, 14, 17, 15, 16]]
WHOLE = [[5, 19, 20], PLAIN[1], PLAIN[2], [7, 15, 16, 12, 13, 14, 1, 5, 1]]
NORMALIZED = [WHOLE[0], [5, 15, 4], *WHOLE[2:]]
QUICK = [88, 99, 103, 94, 85]
SPLIT = [PLAIN[0], [8, 10, 11, 9, 15, 8, 22, 9], PLAIN[2], [7, 15, 16, 12, 13, 14, 1, 8, 10, 11, 9, 1]]


def options(content, **others):
    return {
        "content": content,
        **dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False),
        **others,
    }


def decoder(id, content, **others):
    return {"added_tokens_decoder": {id: options(content, **others)}}


WAYS = {
    "additional": ({"additional_special_tokens": ["[speaker1]"]}, WHOLE),
    "extra": ({"extra_special_tokens": ["[speaker1]"]}, WHOLE),
    "extra, named": ({"extra_special_tokens": {"speaker": "[speaker1]"}}, WHOLE),
    "none, as transformers 4 writes it": (
        {"extra_special_tokens": {}, **decoder("5", "[speaker1]", special=True)},
        WHOLE,
    ),
    "decoder": (decoder("5", "[speaker1]", special=True), WHOLE),
    "split": ({"split_special_tokens": True, **decoder("5", "[speaker1]", special=True)}, SPLIT),
    "split, not special": (
        {"split_special_tokens": True, **decoder("5", "[speaker1]")},
        [WHOLE[0], SPLIT[1], *WHOLE[2:]],
    ),
    "normalized": (decoder("5", "[speaker1]", normalized=True), NORMALIZED),
    "strips": (
        decoder("6", "<n>", lstrip=True, rstrip=True),
        [PLAIN[0], PLAIN[1], [15, 6, 17, 15, 16], [7, 15, 16, 6, 1, 8, 10, 11, 9, 1]],
    ),
    "single word": (decoder("7", "ing", single_word=True), [*PLAIN, SPLIT[3]]),
    "inside a word": (
        decoder("7", "ing"),
        [PLAIN[0], PLAIN[1], [15, 12, 13, 14, 17, 15, 7], [7, 15, 7, 12, 13, 14, 1, 8, 10, 11, 9, 1]],
    ),
}
FILES = {name: ({"tokenizer_config.json": config}, ids) for name, (config, ids) in WAYS.items()} | {
    "special_tokens_map.json": ({"special_tokens_map.json": {"additional_special_tokens": ["[speaker1]"]}}, WHOLE),
    "added_tokens.json": ({"added_tokens.json": {"[speaker1]": 5}}, NORMALIZED),
}


def folder(path, files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def wordpiece(path, files):
    config = {"do_lower_case": True, **files.get("tokenizer_config.json", {})}
    return folder(path, {**files, "vocab.txt": "\n".join(VOCAB), "tokenizer_config.json": config})


@pytest.mark.parametrize("way", FILES)
def test_wordpiece_keeps_declared_tokens_whole_as_transformers_does_also_after_saving(tmp_path, way):
    files, expected = FILES[way]
    tokenizer = load_tokenizer(wordpiece(tmp_path / "here", files))
    assert [tokenizer.encode(text)[0][1:-1] for text in TEXTS] == expected
    tokenizer.save(tmp_path / "saved")
    for again in (load_tokenizer(tmp_path / "saved"), load_tokenizer(tmp_path / "saved" / "tokenizer.json")):
        assert [again.encode(text)[0][1:-1] for text in TEXTS] == expected


PLACED = options("<y>", normalized=True)
BERT = {"config.json": {"model_type": "bert", "vocab_size": 30}}
UNDECLARED = {
    "Google's": ({}, [[8, 22, 9, 19, 8, 1, 9, 15], [8, 22, 9, 15], [12, 1, 14, 15, 12, 1, 14]]),
    "config.json": (BERT, [[4, 19, 3, 15], [8, 22, 9, 15], [12, 1, 14, 15, 12, 1, 14]]),
    "mask with options": (
        {"tokenizer_config.json": {"mask_token": options("[MASK]", lstrip=True, normalized=True)}},
        [[4, 19, 3, 15], [4, 15], [12, 1, 14, 15, 12, 1, 14]],
    ),
    "beyond, decoder": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"24": PLACED}}},
        [[4, 19, 3, 15], [8, 22, 9, 15], [24, 15, 24]],
    ),
    "beyond, added_tokens.json": (
        {**BERT, "added_tokens.json": {"<z>": 25, "<y>": 24}},
        [[4, 19, 3, 15], [8, 22, 9, 15], [24, 15, 24]],
    ),
    "beyond, a role": (
        {"tokenizer_config.json": {"mask_token": "<y>", "added_tokens_decoder": {"24": options("<y>", special=True)}}},
        [[8, 22, 9, 19, 3, 15], [8, 22, 9, 15], [24, 15, 12, 1, 14]],
    ),
}


@pytest.mark.parametrize("way", UNDECLARED)
def test_special_tokens_stay_whole_in_hugging_faces_folders_also_beyond_the_vocabulary(tmp_path, way):
    files, expected = UNDECLARED[way]
    texts = ["[MASK]你[SEP] go", "[mask] go", "<y> go <Y>"]
    made = {**files, "vocab.txt": "\n".join(VOCAB)}
    if way != "Google's":
        made["tokenizer_config.json"] = {"do_lower_case": True, **files.get("tokenizer_config.json", {})}
    tokenizer = load_tokenizer(folder(tmp_path / "here", made))
    assert [tokenizer.encode(text)[0][1:-1] for text in texts] == expected
    assert tokenizer.tokens_to_ids(tokenizer.tokenize("<y> [MASK]你")) == tokenizer.encode("<y> [MASK]你")[0]
    tokenizer.save(tmp_path / "saved")
    for again in (load_tokenizer(tmp_path / "saved"), load_tokenizer(tmp_path / "saved" / "tokenizer.json")):
        assert [again.encode(text)[0][1:-1] for text in texts] == expected


@pytest.mark.parametrize(
    ("config", "text", "ids"),
    [
        ({}, "a<|endoftext|>b", [64, 50256, 65]),
        ({"pad_token": "[PAD]", **decoder("50257", "[PAD]", special=True)}, "x[PAD]y", [87, 50257, 88]),
        ({"split_special_tokens": True}, "<|", [27, 91]),
    ],
)
def test_gpt2s_special_tokens_stay_whole_in_hugging_faces_folders(data, tmp_path, config, text, ids):
    files = {name: (data / source).read_text("utf-8") for name, source in GPT2_FILES.items()}
    made = folder(tmp_path, {**files, "config.json": {"model_type": "gpt2"}, "tokenizer_config.json": config})
    assert load_tokenizer(made).encode(text)[0] == ids
    for name, source in GPT2_FILES.items():  # OpenAI's own
        (tmp_path / name).rename(tmp_path / source)
        (tmp_path / "config.json").unlink(missing_ok=True)
        (tmp_path / "tokenizer_config.json").unlink(missing_ok=True)
    assert 50256 not in load_tokenizer(tmp_path).encode("a<|endoftext|>b")[0]


GPT2_FILES = {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}


def test_robertas_mask_takes_in_the_space_before_it_as_its_own_program_does(data, tmp_path):
    """fairseq's fill_mask; the tokenizer.json that is published with roberta-base."""
    tokens = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
    vocab = json.loads((data / "encoder.json").read_text("utf-8")) | {each: 50257 + i for i, each in enumerate(tokens)}
    files = {"vocab.json": vocab, "merges.txt": (data / "vocab.bpe").read_text("utf-8")}
    tokenizer = load_tokenizer(folder(tmp_path / "here", {**files, "config.json": {"model_type": "roberta"}}))
    texts = {"a <mask> b": [64, 50261, 275], "a<mask>b": [64, 50261, 65], "a </s> b": [64, 220, 50258, 275]}
    tokenizer.save(tmp_path / "saved")
    for each in (tokenizer, load_tokenizer(tmp_path / "saved")):
        assert {text: each.encode(text)[0][1:-1] for text in texts} == texts


T5_TEXTS = {
    "the</s> fox": [5, 1, 34],
    "the <pad><unk> fox": [5, 0, 2, 34],
    "the <extra_id_0> fox<extra_id_99>": [5, 210, 34, 111],
    "the <new>the": [5, 211, 5],
    "quick quicker \u00b2quick quick\u00b2 \u24d0quick": [*(212, 45, 110, 107, 68, 2, 212, 212, 68, 2, 37), *QUICK],
}


def test_t5s_special_tokens_and_added_ones_beyond_its_sentinels(data, tmp_path):
    config = decoder("211", "<new>")
    config["added_tokens_decoder"]["212"] = options("quick", single_word=True)
    (tmp_path / "spiece.model").write_bytes((data / "t5_mesh_v10" / "spiece.model").read_bytes())
    tokenizer = load_tokenizer(
        folder(tmp_path, {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", **config}})
    )
    assert {text: tokenizer.encode(text)[0][:-1] for text in T5_TEXTS} == T5_TEXTS
    assert tokenizer.vocab_size == 213 and tokenizer.decode([5, 211, 34, 213]) == "the <new> fox"
    assert tokenizer.offsets("the <new>the")[:-1] == [(0, 3), (4, 9), (9, 12)]


def test_the_tokens_of_unknown_words_are_the_words_beside_added_tokens_too(tmp_path):
    tokenizer = load_tokenizer(wordpiece(tmp_path, FILES["additional"][0]))
    assert tokenizer.tokenize("Zz [speaker1]éé [UNK]!")[1:-1] == ["zz", "[speaker1]", "ee", "[UNK]", "!"]
    tokenizer = load_tokenizer(wordpiece(tmp_path, FILES["single word"][0]))
    assert tokenizer.tokenize("ings ing zz")[1:-1] == ["ing", "##s", "ing", "zz"]


def test_words_of_a_segmenter_are_those_between_added_tokens():
    cut = []
    tokenizer = Tokenizer(
        {token: id for id, token in enumerate(VOCAB)},
        pre_tokenize=lambda text: cut.append(text) or text.split(),
        added_tokens=["[speaker1]"],
    )
    assert tokenizer.tokenize("go[speaker1]你 好")[1:-1] == ["go", "[speaker1]", "你", "好"]
    assert cut == ["go", "你 好"]


def test_byte_level_bpe_keeps_added_tokens_whole(data, tmp_path):
    base = BytePairTokenizer(data / "encoder.json", data / "vocab.bpe")
    vocab = base._vocab | {"<|sep|>": 50257}
    files = {"vocab.json": vocab, "merges.txt": (data / "vocab.bpe").read_text(encoding="utf-8")}
    config = {"tokenizer_class": "GPT2Tokenizer", "additional_special_tokens": ["<|sep|>"]}
    tokenizer = load_tokenizer(folder(tmp_path / "here", {**files, "tokenizer_config.json": config}))
    assert tokenizer.encode("a<|sep|>b<|endoftext|>")[0] == [64, 50257, 65, 50256]
    assert tokenizer.decode([64, 50257, 65]) == "ab"
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode("a<|sep|>b")[0] == [64, 50257, 65]
    assert (
        BytePairTokenizer(vocab, base._merges, added_tokens=["<|sep|>"]).encode("<|sep|><|endoftext|>")[0][0] == 50257
    )


def test_sentencepiece_keeps_added_pieces_whole(data, tmp_path):
    model = (data / "t5_mesh_v10" / "spiece.model").read_bytes()
    plain = SpTokenizer(data / "t5_mesh_v10" / "spiece.model")
    other = next(plain.id_to_token(id) for id in range(3, 99) if plain.id_to_token(id).isalpha())
    (tmp_path / "spiece.model").write_bytes(model)
    config = {"additional_special_tokens": ["<extra_id_0>", other]}
    tokenizer = load_tokenizer(folder(tmp_path, {"tokenizer_config.json": config}))
    inner = tokenizer.tokenize(f"the{other}the <extra_id_0>")[:-1]
    assert inner == [*plain.tokenize("the")[:-1], other, *plain.tokenize("the")[:-1], "<extra_id_0>"]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"id": 7, "content": "[MASK]"}, r"'\[MASK\]': 7, but found 4"),
        ({"id": 5000, "content": "<new>"}, "'<new>': 5000, but found 256"),
    ],
)
def test_ids_that_tokenizer_json_states_are_those_that_its_tokens_get(data, tmp_path, token, message):
    content = json.loads((data / "tiny_bert_random" / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [options("x", special=True, normalized=False) | token]
    folder(tmp_path, {"tokenizer.json": content})
    with pytest.raises(TokenizerError, match=message):
        JsonTokenizer(tmp_path / "tokenizer.json")


def test_the_config_beside_tokenizer_json_adds_tokens_and_changes_their_options(data, tmp_path):
    content = json.loads((data / "tiny_bert_random" / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    token, text = "t5", "t5t5"
    folder(tmp_path, {"tokenizer.json": content})
    assert load_tokenizer(tmp_path).encode(text)[0][1:-1] != [vocab[token]] * 2
    folder(tmp_path, {"tokenizer_config.json": {"extra_special_tokens": [token]}})
    assert load_tokenizer(tmp_path).encode(text)[0][1:-1] == [vocab[token]] * 2
    folder(tmp_path, {"tokenizer_config.json": decoder(str(vocab[token]), token, single_word=True)})
    assert load_tokenizer(tmp_path).encode(text)[0][1:-1] != [vocab[token]] * 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (decoder("6", "[speaker1]"), "speaker1.*: 6, but found 5"),
        (decoder("five", "[speaker1]"), "'five', but found 5"),
        ({"extra_special_tokens": ["[speaker2]"]}, r"not among the 24.*\n.*speaker2"),
        (
            {"extra_special_tokens": [{"content": "[speaker1]", "lstrip": "yes"}]},
            "extra_special_tokens: expected tokens",
        ),
        ({"extra_special_tokens": [{"content": "[speaker1]", "shape": True}]}, "extra_special_tokens: expected tokens"),
        ({"extra_special_tokens": [""]}, "expected tokens"),
        ({"extra_special_tokens": [3]}, "expected tokens"),
    ],
)
def test_what_is_declared_wrongly_is_refused(tmp_path, config, message):
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(wordpiece(tmp_path, {"tokenizer_config.json": config}))


def test_added_tokens_of_a_constructor_are_strings_or_the_librarys_objects():
    vocab = {token: id for id, token in enumerate(VOCAB)}
    assert Tokenizer(vocab, added_tokens=["[speaker1]"]).encode("[speaker1][MASK]")[0][1] == 5
    special = AddedToken("[speaker1]", special=True)
    assert Tokenizer(vocab, added_tokens=[special]).encode("[speaker1]")[0][1] == 8
    assert Tokenizer(vocab, special_tokens=True, added_tokens=[special]).encode("[speaker1]")[0][1] == 5
    assert Tokenizer(vocab, added_tokens=["[MASK]"]).added_tokens["[MASK]"].special  # a role's token always is
    with pytest.raises(TokenizerError, match=r"added_tokens: expected strings or .*AddedToken, found int"):
        Tokenizer(vocab, added_tokens=[5])
