"""Text of new ids: the same in pieces as in one, behind its prompt, and up to a stop string."""

from __future__ import annotations

import functools

import pytest
import tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import decoders

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.generation.detokenizing import Detokenizer
from tfloader.tokenizers.fast import JsonTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["it", "'", *"strvldm", "re", "ve", "ll", "##s", "##l", "##e", "##'", "good", *".,-/()=12我说“。…", "##3"]
PIECES = ["<unk>", "▁a", "b", "▁", "c</w>", "d", "|", "'s", "n't", ".", "##e", "it", "'"]
BYTES = [f"<0x{byte:02X}>" for byte in (0x41, 0x20, 0xE4, 0xB8, 0xAD, 0xFF)]
llama = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
DECODERS = {
    "llama": llama,
    "metaspace": decoders.Metaspace(),
    "bpe": decoders.BPEDecoder(),
    "ctc": decoders.CTC(),
    "wordpiece": decoders.WordPiece(),
    "rules for the whole text": decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")]),
    "none": None,
}


@functools.cache
def word_pieces():
    return tfloader.Tokenizer({token: index for index, token in enumerate([*SPECIAL, *WORDS])})


@pytest.fixture(scope="module")
def by_name(tmp_path_factory):
    """A function from a name to a tokenizer."""

    @functools.cache
    def make(name):
        if name == "WordPiece":
            return word_pieces()
        if name not in DECODERS:
            return tfloader.load_tokenizer(CHECKPOINTS / name)
        numbers = {piece: number for number, piece in enumerate([*PIECES, *BYTES])}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
        made.decoder = DECODERS[name]
        path = tmp_path_factory.mktemp("json") / "tokenizer.json"
        made.save(str(path))
        return JsonTokenizer(path)

    return make


def detokenizer(tokenizer) -> Detokenizer:
    return Detokenizer(tokenizer, (), tokenizer.vocab_size, continues=True)


@pytest.mark.parametrize("name", ["WordPiece", "gpt2_openai", "hf_t5_v11", *DECODERS])
@given(data=st.data())
def test_what_is_settled_stays_whatever_comes(by_name, name, data):
    tokenizer = by_name(name)
    made = detokenizer(tokenizer)
    few = st.integers(0, min(tokenizer.vocab_size, 300) - 1)  # of BPE the single bytes
    prompt, ids = data.draw(st.lists(few, max_size=4)), data.draw(st.lists(few, max_size=10))
    assume("\ufffd" not in tokenizer.decode(prompt))  # a prompt is made of whole characters
    whole = made.text(ids, prompt)
    for end in range(len(ids) + 1):
        assert whole.startswith(made.settled(ids[:end], prompt))


@pytest.mark.parametrize("name", ["WordPiece", "gpt2_openai", "hf_t5_v11", "llama", "bpe"])
def test_ordinary_text_settles_before_its_end(by_name, name):
    tokenizer = by_name(name)
    ids = [tokenizer.token_to_id(token) for token in ("b", "d", "d")] if name in DECODERS else None
    ids = ids or tokenizer.encode("it it it")[0][: -1 if tokenizer._end else None]
    assert detokenizer(tokenizer).settled(ids, []) == tokenizer.decode(ids) != ""


@pytest.mark.parametrize(
    ("prompt", "new", "text"),
    [
        ("it", "good", " good"),
        ("it", "##s good", "s good"),
        ("it", "' s good", "'s good"),
        ("it ' s", "good", " good"),
        ("it ' s", ".", "."),
        ("1 . 2 .", "1", " 1"),
        ("1 .", "2 . 1", "2. 1"),
        ("我", "说", "说"),
        ("it", "[SEP]", ""),
    ],
)
def test_prompt_and_new_text_make_the_whole_text(prompt, new, text):
    made = detokenizer(word_pieces())
    prompt, new = (word_pieces().tokens_to_ids(tokens.split()) for tokens in (prompt, new))
    assert made.text(new, prompt) == text
    made.continues = False
    assert made.text(new, prompt) == text.strip() or prompt[-1:] == word_pieces().tokens_to_ids(["."])


@pytest.mark.parametrize(
    ("name", "text", "token", "possible"),
    [
        ("WordPiece", "[SEP]", "[SEP]", False),
        ("WordPiece", "\n", None, False),
        ("WordPiece", "Good", None, False),
        ("WordPiece", "字", None, False),
        ("WordPiece", "  ", None, False),
        ("WordPiece", "- ", None, False),
        ("WordPiece", "##e", None, False),
        ("WordPiece", " good", None, True),
        ("WordPiece", "e s", None, True),
        ("WordPiece", "' s", None, True),
        ("gpt2_openai", "<|endoftext|>", "<|endoftext|>", False),
        ("gpt2_openai", "\n\n", None, True),
        ("gpt2_openai", " 字", None, True),
        ("hf_t5_v11", "</s>", "</s>", False),
        ("hf_t5_v11", "\n", None, False),
    ],
)
def test_a_stop_string_is_a_token_or_a_text_that_can_come(by_name, name, text, token, possible):
    tokenizer = by_name(name)
    made = detokenizer(tokenizer)
    assert made.token_of(text) == (None if token is None else tokenizer.token_to_id(token))
    assert token is not None or made.can_write(text) == possible


def test_a_stop_string_ends_with_the_token_that_completes_it_and_not_where_it_stood_for_a_moment():
    made = detokenizer(word_pieces())

    def ids(tokens):
        return word_pieces().tokens_to_ids(tokens.split())

    assert made.stop_of(ids("it good . it"), [], ("good.",)) == 3
    assert made.stop_of(ids("it ' s good"), [], ("' s",)) is None
    assert made.stop_of(ids("it ' s good ' s"), [], ("' s",)) == 6
    assert made.stop_of(ids("it it"), [], None) is None
