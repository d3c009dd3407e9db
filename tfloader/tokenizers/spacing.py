"""Readable text from WordPieces, spaced as bert4keras did: as English wants it, and Chinese does not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tfloader.tokenizers.vocabulary import is_cjk, is_punctuation

# Punctuation after which bert4keras writes no space: Chinese marks, and signs that open or join.
TIGHT = (
    "\uff02-\uff0d\uff0f\uff1a-\uff1e\uff20\uff3b-\uff40\uff5b-\uff60\uff62-\uff64\u3000\u3001\u3003\u3008-\u3011"
    "\u3014-\u301f\u3030\u303e\u303f\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\ufe4f\ufe51\ufe54\xb7"
    "\uff01\uff1f\uff61\u3002+\\-/={(<\\["
)


def join(tokens: Iterable[str]) -> str:
    """Joins WordPieces to a text."""
    parts, last = [], ""
    for token in tokens:
        if token.startswith("##"):
            part = token[2:]
        elif len(token) == 1 and is_cjk(token):
            part = token
        elif len(token) == 1 and is_punctuation(token):
            part = token + " "
        else:
            part = token if last and is_cjk(last) else " " + token
        parts.append(part)
        last = part[-1:] or last
    text = re.sub(" +", " ", "".join(parts))
    text = re.sub("' (re|m|s|t|ve|d|ll) ", r"'\1 ", text)
    text = re.sub(f"([{TIGHT}]) ", r"\1", text)
    return re.sub(r"(\d\.) (\d)", r"\1\2", text).strip()
