"""Tags and spans are two forms of the same; broken tags are read as conlleval reads them; scores are seqeval's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader.data.tags import SCHEMES, Score, Span, score_spans, spans_to_tags, tag_names, tags_to_spans
from tfloader.errors import DataError

schemes = st.sampled_from(sorted(SCHEMES))
LABELS = ["person", "creative-work", ""]


@st.composite
def sentences(draw):
    """(length, spans) that do not overlap."""
    spans, at = [], 0
    for gap, size, label in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(LABELS)), max_size=5)
    ):
        spans.append(Span(at + gap, at + gap + size, label))
        at += gap + size
    return at + draw(st.integers(0, 2)), spans


@given(sentences(), schemes)
def test_spans_become_tags_and_spans_again(sentence, scheme):
    length, spans = sentence
    tags = spans_to_tags(spans, length, scheme)
    assert len(tags) == length
    assert tags_to_spans(tags, scheme, strict=True) == spans


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", "O B-x I-x I-x B-x B-y O"),
        ("BIOES", "O B-x I-x E-x S-x S-y O"),
        ("BMES", "O B-x M-x E-x S-x S-y O"),
        ("BILOU", "O B-x I-x L-x U-x U-y O"),
    ],
)
def test_the_letters_of_each_scheme(scheme, tags):
    spans = [Span(1, 4, "x"), Span(4, 5, "x"), Span(5, 6, "y")]
    assert spans_to_tags(spans, 7, scheme) == tags.split()
    assert tags_to_spans(tags.split(), scheme, strict=True) == spans


def test_letters_alone_are_words():
    assert tags_to_spans(list("BESBME"), "BMES") == [Span(0, 2, ""), Span(2, 3, ""), Span(3, 6, "")]


def begins(before, tag):
    """Whether a chunk begins at a tag: the table of conlleval (Tjong Kim Sang and Buchholz, 2000)."""
    (last, last_label), (letter, label) = before, tag
    pairs = {("E", "E"), ("E", "I"), ("S", "E"), ("S", "I"), ("O", "E"), ("O", "I")}
    return letter in "BS" or (last, letter) in pairs or (letter != "O" and label != last_label)


def ends(before, tag):
    """Whether a chunk ends before a tag, by the same table."""
    (last, last_label), (letter, label) = before, tag
    return last in "ES" or (last in "BI" and letter in "BSO") or (last != "O" and label != last_label)


@given(st.lists(st.tuples(st.sampled_from("OBIES"), st.sampled_from(["x", "y"])), max_size=9))
def test_broken_tags_are_read_as_conlleval_does(pairs):
    pairs = [("O", "") if letter == "O" else (letter, label) for letter, label in pairs]
    expected, start, before = [], 0, ("O", "")
    for place, tag in enumerate([*pairs, ("O", "")]):
        if ends(before, tag):
            expected.append(Span(start, place, before[1]))
        if begins(before, tag):
            start = place
        before = tag
    tags = [letter if letter == "O" else f"{letter}-{label}" for letter, label in pairs]
    assert tags_to_spans(tags, "BIOES") == expected


@pytest.mark.parametrize(
    ("scheme", "tags", "place"),
    [
        ("BIO", "O I-x", 1),
        ("BIO", "B-x I-y", 1),
        ("BIOES", "B-x O", 0),
        ("BIOES", "B-x I-x B-x E-x", 1),
        ("BIOES", "E-x", 0),
        ("BMES", "S-x E-x", 1),
        ("BILOU", "B-x I-x U-x", 1),
    ],
)
def test_strict_reading_refuses_broken_tags_and_names_the_place(scheme, tags, place):
    tags = tags.split()
    assert tags_to_spans(tags, scheme)
    with pytest.raises(DataError, match=rf"tags\[{place}\]: in {scheme}, '{tags[place]}' cannot stand behind"):
        tags_to_spans(tags, scheme, strict=True)


def test_tags_of_another_scheme_are_refused_always():
    with pytest.raises(DataError, match=r"O or a letter of BIO, B I.*\n.*tags\[0\]: 'S-x'\n.*tags\[2\]: 'x'"):
        tags_to_spans(["S-x", "O", "x"])
    with pytest.raises(DataError, match=r"scheme: expected one of BIO, .*; found 'IOB'"):
        tags_to_spans(["O"], "IOB")


@pytest.mark.parametrize(
    ("spans", "problem"),
    [
        ([(0, 2, "x"), (1, 3, "y")], "Span.start=1, end=3, label='y'. overlaps another"),
        ([(2, 2, "x")], "not within 4"),
        ([(-1, 2, "x")], "not within 4"),
        ([(3, 5, "x")], "not within 4"),
    ],
)
def test_spans_that_no_tags_can_show_are_refused(spans, problem):
    with pytest.raises(DataError, match=problem):
        spans_to_tags(spans, 4)


def test_tag_names_have_an_order_that_does_not_depend_on_the_data():
    assert tag_names(["b", "a", "b"]) == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert tag_names(iter("ab"), "BMES") == ["O", "B-a", "M-a", "E-a", "S-a", "B-b", "M-b", "E-b", "S-b"]
    assert tag_names([""], "BMES") == ["O", "B", "M", "E", "S"]


# Scores

THERE = [
    "I-per B-per B-loc B-loc B-per I-loc O",
    "I-per B-per I-per O B-per B-per O",
    "B-per B-loc O O O O O",
]
FOUND = [
    "I-per O B-loc O B-per B-per O",
    "I-per O I-per I-loc B-per B-per O",
    "B-per B-loc B-per O O O O",
]


def test_scores_are_those_of_seqeval():
    """seqeval 1.2.2 gives for these tags: micro average 2/3, 2/3, 2/3 of 12; loc 2/3, 1/2, 4/7 of 4; per 2/3, ..."""
    there, found = ([tags_to_spans(tags.split()) for tags in side] for side in (THERE, FOUND))
    total, labels = score_spans(there, found)
    assert (total.precision, total.recall, total.f1, total.there) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 12))
    assert list(labels) == ["loc", "per"]
    loc, per = labels.values()
    assert (loc.precision, loc.recall, loc.f1, loc.there) == pytest.approx((2 / 3, 0.5, 4 / 7, 4))
    assert (per.precision, per.recall, per.f1, per.there) == pytest.approx((2 / 3, 0.75, 12 / 17, 8))


def test_nothing_found_or_nothing_there_scores_zero():
    assert score_spans([[]], [[]]) == (Score(0, 0, 0), {})
    total, _ = score_spans([[Span(0, 1, "x")], []], [[], []])
    assert (total.precision, total.recall, total.f1) == (0, 0, 0)
    assert Score(0, 3, 0).f1 == 0


def test_scores_want_as_many_sentences_on_both_sides():
    with pytest.raises(DataError, match="2 sentences, but spans were found for 1"):
        score_spans([[], []], [[]])
