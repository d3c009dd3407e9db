"""The folder that a conversion makes: a new one, which appears whole or not at all."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from tfloader.checkpoints.base import folder_of
from tfloader.errors import ConversionError
from tfloader.staging import names_in, only_new, staged

# Gives a folder to fill, `new_folder(target, nbytes=...)`, which becomes the target; see `staged`.
new_folder = functools.partial(staged, error=ConversionError, replaces=only_new)


def problems_with(target: str, source: str | None) -> Iterator[str]:
    """Why a folder cannot be the target; the source is None where it is no file."""
    place = os.path.realpath(target)
    original = None if source is None else os.path.realpath(folder_of(source))
    if place == original:
        yield f"{target}: the target is the source. Give another folder."
    elif original is not None and os.path.commonpath([place, original]) == original:
        yield f"{target}: the target lies inside the source, which stays as it is. Give a folder elsewhere."
    elif os.path.isdir(target):
        if found := names_in(target):
            shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
            yield f"{target}: the folder is there and holds {shown}. Give a new one, or empty it."
    elif os.path.lexists(target):
        yield f"{target}: there is a file of this name. Give the name of a new folder."
