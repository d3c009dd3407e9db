"""Google BERT's tokenization rules in plain Python, character by character, for comparison."""

from __future__ import annotations

import unicodedata

CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
SYMBOLS = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def clean(text: str) -> str:
    """Drops control characters and puts spaces around Chinese ones."""
    kept = []
    for character in text:
        code, category = ord(character), unicodedata.category(character)
        if code in (0, 0xFFFD) or (category in ("Cc", "Cf") and character not in "\t\n\r"):
            continue
        chinese = any(low <= code <= high for low, high in CJK)
        kept.append(f" {character} " if chinese else character)
    return "".join(kept)


def words(text: str, lower: bool, strip: bool | None = None) -> list[str]:
    """The words of a text, punctuation marks being words of their own."""
    found = []
    for word in clean(text).split():
        if lower:
            word = word.lower()
        if lower if strip is None else strip:
            decomposed = unicodedata.normalize("NFD", word)
            word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        current = ""
        for character in word:
            if character in SYMBOLS or unicodedata.category(character).startswith("P"):
                found += [current, character]
                current = ""
            else:
                current += character
        found.append(current)
    return [word for word in found if word]


def pieces(word: str, vocab: dict[str, int], longest: int = 200) -> list[str] | None:
    """The longest known pieces from the left; None where there are none for the whole word."""
    if len(word) > longest:
        return None
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocab:
                break
        else:
            return None
        found.append(piece)
        start = end
    return found


def tokenize(text: str, vocab: dict[str, int], lower: bool, strip: bool | None = None) -> list[str]:
    """All tokens of a text; a word that cannot be spelled stands for itself."""
    tokens: list[str] = []
    for word in words(text, lower, strip):
        tokens += pieces(word, vocab) or [word]
    return tokens
