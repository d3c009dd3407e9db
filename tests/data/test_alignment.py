"""Words find their pieces, whatever the tokenizer does to characters: Chinese, accents, emoji, unknown words."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers.tokenizer_data import DATA
from tfloader import BytePairTokenizer, DataError, SpTokenizer, Tokenizer
from tfloader.data.alignment import align_words

SENTENCES = [
    ["@paulwalk", "It", "'s", "the", "view", "from", "ESB", "."],
    ["北", "京", "2008", "年", "奥运会", "，", "NBA球星", "！"],
    ["Café", "naïve", "Å", "re\u0301sume\u0301", "ΟΔΟΣ", "straße"],
    ["😀", "I", "❤️", "👨‍👩‍👧", "NY", "🇨🇳", ":-)"],
    ["supercalifragilistic", "ทดสอบ", "한국어", "№5", "ﬁne", "½", "…"],
    ["#", "[SEP]", "##a", "<s>", "\u3000x"],
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    def path(name):
        target = tmp_path_factory.mktemp("vocabulary") / name
        target.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
        return str(target)

    return path


@pytest.fixture(scope="module")
def uncased(unpacked):
    return Tokenizer(unpacked("bert-base-uncased.txt"), do_lower_case=True)


@pytest.fixture(scope="module")
def tokenizers(unpacked, uncased):
    return {
        "uncased": uncased,
        "cased": Tokenizer(unpacked("bert-base-cased.txt")),
        "chinese": Tokenizer(unpacked("bert-base-chinese.txt"), do_lower_case=True),
        "gpt2": BytePairTokenizer(unpacked("encoder.json"), unpacked("vocab.bpe")),
        "sentencepiece": SpTokenizer(unpacked("albert.model"), token_start="[CLS]", token_end="[SEP]"),
    }


def one_by_one(tokenizer, words):
    """The same for WordPiece, where words can be encoded alone."""
    ids, places = [tokenizer.cls_token_id], []
    for word in words:
        pieces = tokenizer.encode(word)[0][1:-1]
        places.append((len(ids), len(ids) + len(pieces)))
        ids += pieces
    return [*ids, tokenizer.sep_token_id], places


@pytest.mark.parametrize("name", ["uncased", "cased", "chinese"])
@pytest.mark.parametrize("words", SENTENCES, ids=lambda words: words[0])
def test_wordpieces_are_those_of_the_words_alone(tokenizers, name, words):
    assert align_words(tokenizers[name], words) == one_by_one(tokenizers[name], words)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=5))
def test_wordpieces_of_any_words_are_those_of_the_words_alone(uncased, words):
    found = align_words(uncased, words)
    assert found == one_by_one(uncased, words)
    assert found.ids == uncased.encode(" ".join(words))[0]


def test_added_tokens_with_spaces_are_found_across_words(uncased):
    vocab = {**uncased._vocab, "new york": uncased.vocab_size}
    tokenizer = Tokenizer(vocab, do_lower_case=True, added_tokens=["new york"])
    ids, places = align_words(tokenizer, ["in", "new", "york", "now"])
    assert ids[1:-1] == tokenizer.tokens_to_ids(["in", "new york", "now"])
    assert places == [(1, 2), (2, 3), (3, 3), (3, 4)]


@pytest.mark.parametrize("name", ["gpt2", "sentencepiece"])
@pytest.mark.parametrize("words", SENTENCES, ids=lambda words: words[0])
def test_pieces_of_other_tokenizers_lie_in_order_side_by_side(tokenizers, name, words):
    tokenizer = tokenizers[name]
    ids, places = align_words(tokenizer, words)
    assert ids == tokenizer.encode(" ".join(words))[0]
    assert len(places) == len(words)
    edges = [edge for place in places for edge in place]
    assert edges == sorted(edges) and edges[1:-1:2] == edges[2::2]
    for word, (start, end) in zip(words, places, strict=True):
        is_plain = word.isascii() and word not in ("[SEP]", "<s>")
        if is_plain and tokenizer.unk_token_id not in ids[start:end]:
            assert tokenizer.decode(ids[start:end]).strip() == word


def test_words_without_pieces_stand_before_the_next_piece(uncased):
    words = ["\u200b", "a", "\ufe0f", "\x00", "b", "\u0301"]
    ids, places = align_words(uncased, words)
    assert len(ids) == 4
    assert places == [(1, 1), (1, 2), (2, 2), (2, 2), (2, 3), (3, 3)]
    assert align_words(uncased, ["\u200b"]).places == [(1, 1)]


def test_what_is_too_long_loses_whole_words_and_the_rest_of_one(uncased):
    words = ["a", "supercalifragilistic", "b"]
    ids, places = align_words(uncased, words)
    (_, (start, end), _) = places
    assert end - start > 2
    cut_ids, cut_places = align_words(uncased, words, max_length=start + 2 + 1)
    assert cut_ids == [*ids[: start + 2], uncased.sep_token_id]
    assert cut_places == [places[0], (start, start + 2)]
    assert align_words(uncased, words, max_length=start + 1).places == places[:1]
    assert align_words(uncased, words, max_length=len(ids)) == (ids, places)


def test_empty_words_are_refused(uncased):
    with pytest.raises(DataError, match=r"words\[1\] is empty"):
        align_words(uncased, ["a", "", "b"])
