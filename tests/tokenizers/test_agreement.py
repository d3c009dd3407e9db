"""A tokenizer.json beside other files says the same as they do, or the folder is refused with the difference."""

import json
import re

import pytest

from tfloader import Tokenizer, load_tokenizer
from tfloader.errors import TokenizerError

ENDS = [f"##{letter}" for letter in "Hhelowrd"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"Hhelowrd!,.今天", *ENDS, "<sep>", "<", ">"]


@pytest.fixture
def saved(tmp_path):
    Tokenizer({token: id for id, token in enumerate(VOCAB)}, True).save(tmp_path)
    return tmp_path


def change(path, mutate):
    content = json.loads(path.read_text(encoding="utf-8"))
    mutate(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def swap(vocab):
    vocab["今"], vocab["天"] = vocab["天"], vocab["今"]


def add(content):
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": VOCAB.index("<sep>"), "content": "<sep>", "special": False, **options})


DIFFERENCES = {
    "another id": (lambda c: swap(c["model"]["vocab"]), "'今': 17 in tokenizer.json, else 16"),
    "a token less": (lambda c: c["model"]["vocab"].popitem(), "tokenizer.json has 28 tokens, the others 29"),
    "case": (lambda c: c.update(normalizer=None), "'Hello, World!' gives"),
    "splitting": (lambda c: c.update(pre_tokenizer={"type": "WhitespaceSplit"}), "'Hello, World!' gives"),
    "an added token": (add, "'<sep>' gives"),
}


@pytest.mark.parametrize("change_of", DIFFERENCES)
def test_a_tokenizer_json_that_differs_from_the_vocabulary_is_refused(saved, change_of):
    mutate, message = DIFFERENCES[change_of]
    change(saved / "tokenizer.json", mutate)
    with pytest.raises(TokenizerError, match=r"are not the same:\n[\s\S]*" + re.escape(message)):
        load_tokenizer(saved)
    for name in ("vocab.txt", "tokenizer.json"):
        assert load_tokenizer(saved / name)("天").input_ids.shape == (1, 3)


def test_a_vocabulary_that_differs_from_the_tokenizer_json_is_refused(saved):
    change(saved / "tokenizer_config.json", lambda c: c.pop("max_input_chars_per_word"))
    assert type(load_tokenizer(saved)).__name__ == "JsonTokenizer"
    (saved / "vocab.txt").write_text("\n".join([*VOCAB[:-2], "other"]), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"'other': None in tokenizer\.json, 27 in vocab\.txt"):
        load_tokenizer(saved)
