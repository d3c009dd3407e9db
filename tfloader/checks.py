"""A check and its outcome, as `verify`, `compare`, `convert` and `export` report it; and the input that they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfloader.config import TransformerConfig
from tfloader.errors import TfloaderError


@dataclass(frozen=True)
class Check:
    """The outcome of one check: "ok", "FAILED", or "skipped" where it could not be made or does not apply."""

    name: str
    status: str
    detail: str
    error: Exception | None = None


class Skipped(Exception):  # noqa: N818 (no error)
    """Raised by a check that does not apply, with the reason."""


def outcome(name: str, check: Callable[..., tuple[Any, str]], *arguments: Any) -> tuple[Check, Any]:
    """Runs a check, which returns (result, detail); gives its outcome, and the result or None."""
    try:
        found, detail = check(*arguments)
    except Skipped as reason:
        return Check(name, "skipped", str(reason)), None
    except TfloaderError as error:
        return Check(name, "FAILED", str(error), error), None
    except Exception as error:  # whatever damage leads to, it is not sound
        return Check(name, "FAILED", f"{type(error).__name__}: {error}", error), None
    return Check(name, "ok", detail), found


def outputs_on_random_ids(model: Any, config: TransformerConfig) -> list[np.ndarray]:
    """What a model gives for token ids [2, 8 or the longest] that are always the same."""
    import keras

    length = min(8, config.max_position_embeddings or 8)
    random = np.random.default_rng(0)
    segments = config.vocab_size if config.shared_segment_embeddings else config.type_vocab_size
    inputs = [
        random.integers(0, segments if "Segment" in tensor.name else config.vocab_size, (2, length))
        for tensor in model.inputs
    ]
    outputs = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    return [keras.ops.convert_to_numpy(item) for item in outputs]
