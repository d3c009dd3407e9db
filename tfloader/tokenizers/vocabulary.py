"""Vocabulary files: one token a line, whose line number is its id."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, overload

from tfloader.border import public
from tfloader.errors import TokenizerError, listing
from tfloader.files import decoded, read_bytes, write_bytes

Path = str | os.PathLike[str]
Tokens = Sequence[str] | None
MAX_VOCAB_BYTES = 64 * 1024 * 1024

# The blocks that Google's BERT treats as Chinese characters, as ranges of a regular expression.
CJK_RANGES = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
)
_CJK = re.compile(f"[{CJK_RANGES}]")


def is_cjk(character: str) -> bool:
    """Whether Google's BERT treats a character as a Chinese one."""
    return _CJK.fullmatch(character) is not None


def is_punctuation(character: str) -> bool:
    """Whether Google's BERT treats a character as punctuation: ASCII symbols and Unicode's P categories."""
    ascii_symbol = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_symbol or unicodedata.category(character).startswith("P")


@overload
def load_vocab(
    path: Path, encoding: str = ..., simplified: Literal[False] = ..., startswith: None = ..., compat: str | None = ...
) -> dict[str, int]: ...
@overload
def load_vocab(
    path: Path, encoding: str = ..., *, simplified: Literal[True], startswith: Tokens = ..., compat: str | None = ...
) -> tuple[dict[str, int], list[int]]: ...
@public
def load_vocab(
    path: Path,
    encoding: str = "utf-8",
    simplified: bool = False,
    startswith: Tokens = None,
    compat: str | None = None,
) -> dict[str, int] | tuple[dict[str, int], list[int]]:
    """Reads a vocabulary: the dictionary from token to id.

    Args:
        path: a text file with one token a line. A byte order mark, Windows line ends and empty lines at the end do no
            harm. A token that stands there twice, or a line of several words, is an error: readers disagree on them.
        simplified: also drops tokens that Chinese models hardly need (pieces longer than one character that contain a
            Chinese character or punctuation), and returns the smaller dictionary with the list of original ids in its
            order, the `keep_tokens` of the model loader.
        startswith: with `simplified`, tokens to put first, in this order, whatever they look like.
        compat: "bert4keras" numbers repeated tokens as bert4keras did, which shifts the ids after them.
    """
    path = os.fspath(path)
    if compat not in (None, "bert4keras"):
        raise TokenizerError(f"compat: expected None or 'bert4keras'; found {compat!r}.")
    lines = decoded(read_bytes(path, TokenizerError, MAX_VOCAB_BYTES), path, TokenizerError, encoding).split("\n")
    vocab = _bert4keras_numbers(lines) if compat else _line_numbers(lines, path)
    if not vocab:
        raise TokenizerError(f"{path}: the file holds no tokens. Download it again.")
    return _simplify(vocab, startswith or (), path) if simplified else vocab


def save_vocab(path: Path, token_dict: Mapping[str, int] | Sequence[str], encoding: str = "utf-8") -> None:
    """Writes a vocabulary that `load_vocab` reads back equal: one token a line, in the order of ids."""
    write_bytes(os.fspath(path), vocab_lines(token_dict).encode(encoding), TokenizerError)


def vocab_lines(vocab: Mapping[str, int] | Sequence[str]) -> str:
    """The text of a vocabulary file."""
    if not isinstance(vocab, Mapping):
        vocab = {token: i for i, token in enumerate(vocab)} if len(set(vocab)) == len(vocab) else {}
    tokens = sorted(vocab, key=vocab.__getitem__)
    if not tokens or [vocab[token] for token in tokens] != list(range(len(tokens))):
        raise TokenizerError(
            "token_dict: a vocabulary file needs each token once and the ids 0, 1, 2, ... without gaps. "
            "Rebuild the dictionary, or save the whole one instead of a cut of it."
        )
    bad = [f"id {vocab[token]}: {token!r}" for token in tokens if token.split() != [token] and token]
    bad += ["the last token is empty"] if tokens[-1] == "" else []
    if bad:
        raise TokenizerError(f"token_dict: these tokens cannot stand in a vocabulary file:\n{listing(bad)}")
    return "".join(f"{token}\n" for token in tokens)


def tokens_by_id(vocab: Mapping[str, int], name: str, repeats: bool = False) -> dict[int, str]:
    """The token of each id, of a vocabulary from wherever; `repeats`: two tokens may have one id."""
    tokens: dict[int, str] = {}
    problems = []
    for token, id in vocab.items():
        if not isinstance(token, str) or not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 2**31:
            problems.append(f"expected a token with an id from 0 on, found {token!r}: {id!r}")
        elif id in tokens and not repeats:
            problems.append(f"{token!r} and {tokens[id]!r} have the same id {id}")
        else:
            tokens[id] = token
    if problems or not tokens:
        raise TokenizerError(f"{name}: not a vocabulary:\n{listing(problems or ['it is empty'])}")
    return tokens


def _line_numbers(lines: list[str], path: str) -> dict[str, int]:
    while lines and lines[-1] in ("", "\r"):
        del lines[-1]
    vocab: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines):
        token = line.strip()
        if token in vocab:
            problems.append(f"line {number + 1} repeats line {vocab[token] + 1}: {token!r}")
        elif len(token.split()) > 1:
            problems.append(f"line {number + 1} holds several words: {token[:60]!r}")
        vocab.setdefault(token, number)
    if problems:
        raise TokenizerError(
            f"{path}: the ids of this vocabulary are not certain:\n{listing(problems)}\nRepair the file (the id of a "
            "token is its line number, counted from 0). To number repeated tokens as bert4keras did, and take the "
            "first word of a line, load it with load_vocab(..., compat='bert4keras')."
        )
    return vocab


def _bert4keras_numbers(lines: list[str]) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for line in lines if lines[-1] else lines[:-1]:
        token = (line.split() or [""])[0]
        vocab[token] = len(vocab)
    return vocab


def _simplify(vocab: dict[str, int], first: Sequence[str], path: str) -> tuple[dict[str, int], list[int]]:
    missing = [token for token in first if token not in vocab]
    if missing or len(set(first)) < len(first):
        found = f"not in the vocabulary: {missing}" if missing else f"a token twice: {list(first)}"
        raise TokenizerError(f"{path}: startswith names tokens that cannot come first; {found}.")
    apart = {t for t in vocab if len(t) > 1 and any(is_cjk(c) or is_punctuation(c) for c in t.removeprefix("##"))}
    apart.update(first)
    kept = [*first, *sorted((token for token in vocab if token not in apart), key=vocab.__getitem__)]
    return {token: i for i, token in enumerate(kept)}, [vocab[token] for token in kept]
