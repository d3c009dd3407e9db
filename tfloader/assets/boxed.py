"""Where the models that come with the package are."""

from __future__ import annotations

import os

from tfloader.errors import CheckpointError

FOLDER = os.path.dirname(os.path.abspath(__file__))


def path(name: str = "classical_poems") -> str:
    """The folder of a model in the box: what `tfloader.load` and `tfloader.load_tokenizer` take.

    Raises:
        CheckpointError: there is no such model; the message names those that there are.
    """
    found = os.path.join(FOLDER, name)
    if not os.path.isfile(os.path.join(found, "config.json")):
        there = sorted(item for item in os.listdir(FOLDER) if os.path.isfile(os.path.join(FOLDER, item, "config.json")))
        raise CheckpointError(f"No model {name!r} comes with this tfloader; there is {', '.join(there) or 'none'}.")
    return found
