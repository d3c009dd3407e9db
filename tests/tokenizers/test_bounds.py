"""A tokenizer.json that would cost gigabytes or hours is refused when it is opened; the library's panics are errors."""

import copy
import json

import pytest

from tfloader import load_tokenizer
from tfloader.errors import TokenizerError
from tfloader.tokenizers.bounds import border


def doubled(name="a", times=40):
    step = {"type": "Replace", "pattern": {"String": name}, "content": name * 2}
    return [step] * times


TWICE = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
PAIR = [*TWICE, {"Sequence": {"id": "B", "type_id": 1}}]
TEMPLATE = {"type": "TemplateProcessing", "single": TWICE, "pair": PAIR, "special_tokens": {}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
CASES = {
    "normalizer": {"normalizer": {"type": "Sequence", "normalizers": doubled()}},
    "nested": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": doubled()}]}},
    "expression": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 5000},
    },
    "prepended": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "xxxx"}] * 20}},
    "pre_tokenizer": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 20}},
    "post_processor": {"post_processor": {"type": "Sequence", "processors": [TEMPLATE] * 30}},
    "decoder": {"decoder": {"type": "Sequence", "decoders": doubled(times=24)}},
}


@pytest.fixture(scope="module")
def content(data):
    return json.loads((data / "tiny_bert_random" / "tokenizer.json").read_text(encoding="utf-8"))


def written(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize("part", CASES)
def test_steps_that_multiply_a_text_are_refused(tmp_path, content, part):
    path = written(tmp_path, content | CASES[part])
    with pytest.raises(TokenizerError, match=r"times longer: [0-9]+"):
        load_tokenizer(path)


def test_steps_of_real_tokenizers_pass(tmp_path, content):
    steps = [
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    path = written(tmp_path, content | {"normalizer": {"type": "Sequence", "normalizers": steps}})
    assert load_tokenizer(path).vocab_size == 256


def test_words_without_end_are_refused(tmp_path, content):
    content = copy.deepcopy(content)
    content["model"]["max_input_chars_per_word"] = 10**9
    with pytest.raises(TokenizerError, match="max_input_chars_per_word: 1000000000"):
        load_tokenizer(written(tmp_path, content))


def test_what_the_library_cannot_do_is_an_error_of_ours(tmp_path, content):
    content = copy.deepcopy(content)
    content["model"]["unk_token"] = "nowhere"
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: the tokenizers library fails"):
        load_tokenizer(written(tmp_path, content))
    content["model"]["vocab"]["a"] = 256
    tokenizer = load_tokenizer(written(tmp_path, content))
    for call in (lambda: tokenizer(["☃"]), lambda: tokenizer.encode("☃"), lambda: tokenizer.tokenize("☃")):
        with pytest.raises(TokenizerError, match="the tokenizers library fails"):
            call()


def test_panics_become_errors_and_interrupts_do_not():
    class PanicException(BaseException):
        pass

    with (
        pytest.raises(TokenizerError, match=r"tokenizer\.json: the tokenizers library fails"),
        border("tokenizer.json"),
    ):
        raise PanicException
    with pytest.raises(KeyboardInterrupt), border("tokenizer.json"):
        raise KeyboardInterrupt
