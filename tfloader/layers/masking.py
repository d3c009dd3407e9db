"""Scores that count nowhere are marked in the tensor itself: a Keras mask is lost at the first cast or function."""

from __future__ import annotations

from typing import Any

from keras import ops

# A power of two goes through float32, bfloat16 and NumPy unchanged, becomes -inf in float16, and adds up without NaN.
# It is below what the losses of tfloader.losses take for masked.
MASKED = -(2.0**100)


def keep_scores(scores: Any, kept: Any) -> Any:
    """The scores, but MASKED where `kept`, broadcast to their shape, is false."""
    return ops.where(ops.cast(kept, "bool"), scores, ops.cast(MASKED, scores.dtype))


def padded(scores: Any) -> Any:
    """Ragged scores, as `predict` gives them for batches of different lengths, in one tensor, MASKED at the ends."""
    return scores.to_tensor(MASKED) if hasattr(scores, "to_tensor") else scores


def is_masked(scores: Any) -> Any:
    """Booleans: MASKED or less. NaN is not, so that it is not overlooked."""
    return scores <= MASKED
