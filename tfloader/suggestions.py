"""Which name may have been meant: the end of every error about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

from tfloader.files import show

# Names come from strangers' files too: comparing two takes time with the product of their lengths.
MAX_LENGTH, MAX_NAMES, MAX_SUGGESTIONS = 200, 5000, 3


def near(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of the names that are spelled like this one, the nearest first; upper and lower case are the same."""
    spelled = {other[:MAX_LENGTH].lower(): other for other in islice(names, MAX_NAMES) if other}
    found = difflib.get_close_matches(name[:MAX_LENGTH].lower(), spelled, n=MAX_SUGGESTIONS)
    return [spelled[key] for key in found]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`near` as errors append it: "; did you mean 'this' or 'that'?"; nothing where none is near."""
    found = " or ".join(map(show, near(name, names)))
    return f"; did you mean {found}?" if found else ""
