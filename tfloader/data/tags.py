"""Tags of words and spans of words, into one another (BIO, BIOES, BMES, BILOU), and how well spans were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from tfloader.border import public
from tfloader.errors import DataError, listing


class Span(NamedTuple):
    """Words start, ..., end - 1 of a sentence, under a label ("" in word segmentation)."""

    start: int
    end: int
    label: str


class Scheme(NamedTuple):
    """The letter of a span's first word, of those inside, of the last, and of a span's only word."""

    begin: str
    inside: str
    end: str
    single: str

    def letters(self, length: int) -> list[str]:
        """The letters of a span of so many words."""
        if length == 1:
            return [self.single]
        return [self.begin, *[self.inside] * (length - 2), self.end]


SCHEMES = {
    "BIO": Scheme("B", "I", "I", "B"),
    "BIOES": Scheme("B", "I", "E", "S"),
    "BMES": Scheme("B", "M", "E", "S"),
    "BILOU": Scheme("B", "I", "L", "U"),
}


@public
def tag_names(labels: Iterable[str], scheme: str = "BIO") -> list[str]:
    """All tags of some span labels in a fixed order: "O", then for each label in alphabetical order its tags."""
    letters = dict.fromkeys(_scheme(scheme))
    return ["O", *(_tag(letter, label) for label in sorted(set(labels)) for letter in letters)]


@public
def spans_to_tags(spans: Iterable[Span], length: int, scheme: str = "BIO") -> list[str]:
    """The tags of a sentence of `length` words with these spans.

    Raises:
        DataError: a span is empty or not within the sentence, or two overlap.
    """
    tags = ["O"] * length
    for start, end, label in spans:
        if not (within := 0 <= start < end <= length) or any(tag != "O" for tag in tags[start:end]):
            problem = "overlaps another" if within else f"is not within {length} words"
            raise DataError(f"spans: {Span(start, end, label)} {problem}.")
        tags[start:end] = [_tag(letter, label) for letter in _scheme(scheme).letters(end - start)]
    return tags


@public
def tags_to_spans(tags: Sequence[str], scheme: str = "BIO", strict: bool = False) -> list[Span]:
    """The spans of a sentence, from its tags: "O", or a letter, a hyphen and a label ("B-person"), or a letter alone.

    Args:
        strict: refuses tags that no spans have, such as I-person behind O. Otherwise they are read as conlleval
            does: a span continues as long as its label does and nothing begins or ends; else a new one begins.

    Raises:
        DataError: a tag that the scheme has not, or with `strict` one that cannot stand where it does.
    """
    letters = _scheme(scheme)
    parts = [tag.partition("-") for tag in tags]
    unknown = [f"tags[{place}]: {tags[place]!r}" for place, part in enumerate(parts) if part[0] not in (*letters, "O")]
    if unknown:
        expected = f"O or a letter of {scheme}, {' '.join(dict.fromkeys(letters))}, a hyphen and a label"
        raise DataError(f"tags: expected {expected}; found\n{listing(unknown)}")
    ends = {letters.end, letters.single} - {letters.begin, letters.inside}
    spans: list[Span] = []
    start, running = -1, ""  # of the span that is open; -1: none is
    for place, (letter, _, label) in enumerate([*parts, ("O", "", "")]):
        goes_on = start >= 0 and letter in (letters.inside, letters.end) and label == running
        if start >= 0 and not goes_on:
            spans.append(Span(start, place, running))
            start = -1
        if start < 0 and letter != "O":
            start, running = place, label
        if letter in ends:
            spans.append(Span(start, place + 1, running))
            start = -1
    if strict and (right := spans_to_tags(spans, len(tags), scheme)) != list(tags):
        place = next(place for place, pair in enumerate(zip(right, tags, strict=True)) if pair[0] != pair[1])
        before, after = " ".join(tags[:place][-3:]), " ".join(tags[place + 1 :][:3])
        raise DataError(
            f"tags[{place}]: in {scheme}, {tags[place]!r} cannot stand behind {before!r} and before {after!r}. Mend "
            "the data, or read them with strict=False."
        )
    return spans


class Score(NamedTuple):
    """Counts of spans: those found that are right, those found, those that are there."""

    right: int
    found: int
    there: int

    @property
    def precision(self) -> float:
        """The share of those found that is right; 0 if none is found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """The share of those there that is found; 0 if none is there."""
        return self.right / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.found + self.there) if self.found + self.there else 0.0


@public
def score_spans(there: Sequence[Collection[Span]], found: Sequence[Collection[Span]]) -> tuple[Score, dict[str, Score]]:
    """Scores the spans found in sentences; one is right if its start, end and label are.

    Returns:
        The score over all spans (micro average), and that of each label in alphabetical order, as conlleval counts.

    Raises:
        DataError: not as many sentences in one as in the other.
    """
    if len(there) != len(found):
        raise DataError(f"found: there are {len(there)} sentences, but spans were found for {len(found)}.")
    counts = [Counter[str](), Counter[str](), Counter[str]()]
    for here, got in zip(map(set, there), map(set, found), strict=True):
        for count, spans in zip(counts, (here & got, got, here), strict=True):
            count.update(span.label for span in spans)
    labels = {label: Score(*(count[label] for count in counts)) for label in sorted(counts[1] | counts[2])}
    return Score(*(count.total() for count in counts)), labels


def _scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise DataError(f"scheme: expected one of {', '.join(SCHEMES)}; found {name!r}.")
    return SCHEMES[name]


def _tag(letter: str, label: str) -> str:
    return f"{letter}-{label}" if label else letter
