"""The best sequence of tags (Viterbi, 1967), over batches and inside graphs, with tags and transitions ruled out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.errors import ConfigError, listing
from tfloader.layers import chain
from tfloader.layers.masking import is_masked, padded
from tfloader.losses.common import as_float32


@public
def viterbi_decode(
    emissions: Any, transitions: Any, mask: Any = None, starts: Any = None, ends: Any = None, forbidden: Any = None
) -> Any:
    """Finds the path of tags with the highest sum of emissions and transitions in each row.

    Among equally good paths it takes the one with the lowest last tag, then the lowest last but one, and so on.

    Args:
        emissions: [batch, length, tags] floats; also ragged, as `predict` gives them for batches of different lengths.
        transitions: [tags, tags] floats, [i, j] for tag i followed by tag j.
        mask: [batch, length], false where a position takes no part; None: as a tagging layer has marked the emissions,
            and without marks all take part.
        starts, ends: ids of the tags with which a path may begin and end, or None for all.
        forbidden: [tags, tags] booleans, true where tag j may not follow tag i, or None.

    Returns:
        tags, int32 [batch, length] with -1 at padding; and the paths' scores [batch]. Where no path is allowed, or the
        scores are NaN, the whole row is -1 and its score -inf or NaN. A row of padding only has score 0.

    Raises:
        ConfigError: shapes or tag ids do not fit together.
    """
    if isinstance(emissions, keras.KerasTensor):
        raise ConfigError("emissions: found a Keras tensor. In a model, `decode` of the CRF or MEMM gives the tags.")
    emissions, transitions = as_float32(padded(emissions)), as_float32(transitions)
    start, end, follow = constraint_scores(emissions.shape, transitions.shape, starts, ends, forbidden)
    if mask is not None:
        emissions = chain.mark_padding(emissions, mask)
    packing = chain.Packing(chain.real_positions(emissions))
    emissions = packing.pack(emissions)
    transitions = ops.cast(transitions, emissions.dtype) + ops.cast(follow, emissions.dtype)
    position = ops.arange(ops.shape(emissions)[1])
    first, last = position == 0, position == ops.expand_dims(packing.lengths, 1) - 1
    emissions = emissions + ops.where(ops.expand_dims(first, 1), ops.cast(start, emissions.dtype), 0.0)
    emissions = emissions + ops.where(ops.expand_dims(last, 2), ops.cast(end, emissions.dtype), 0.0)
    prefixes = chain.prefix_scores(emissions, transitions, packing.lengths, ops.max, chain.scan_to_decode)

    def step(following, element):
        prefix, last = element
        onwards = ops.take(ops.transpose(transitions), following, axis=0)
        return first_highest(prefix + ops.where(ops.expand_dims(last, 1), 0.0, onwards))

    # From the back; what lies behind the last real position has no influence on it.
    tags = chain.scan_to_decode(step, ops.zeros_like(packing.lengths), (prefixes, ops.transpose(last)), reverse=True)
    score = ops.where(packing.lengths > 0, ops.max(prefixes[-1], axis=-1), 0.0)
    found = ops.logical_and(packing.present, ops.expand_dims(score > float("-inf"), 1))
    return packing.unpack(ops.where(found, ops.transpose(tags), -1)), score


def first_highest(scores: Any) -> Any:
    """[...] int32: which of the scores [..., n] is the highest, the first of equals."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # To Keras -0.0 is lower than 0.0, which it finds out by operations that ONNX does not have.
        return tf.argmax(scores, axis=-1, output_type=tf.int32)
    return ops.cast(ops.argmax(scores, axis=-1), "int32")


def constraint_scores(
    emissions_shape: Any, transitions_shape: Any, starts: Any, ends: Any, forbidden: Any
) -> list[np.ndarray]:
    """Starts, ends and forbidden transitions as scores to add: 0, or -inf where not allowed."""
    tags = emissions_shape[-1]
    problems = []
    if len(emissions_shape) != 3:
        problems.append(f"emissions have shape {tuple(emissions_shape)}; expected [batch, length, tags]")
    if tuple(transitions_shape) != (tags, tags):
        problems.append(f"transitions have shape {tuple(transitions_shape)}; {tags} tags need {(tags, tags)}")
    forbidden = np.zeros((tags, tags), bool) if forbidden is None else np.asarray(forbidden)
    if forbidden.dtype != bool or forbidden.shape != (tags, tags):
        problems.append(f"forbidden is {forbidden.dtype} {forbidden.shape}; expected booleans {(tags, tags)}")
    allowed = {"starts": starts, "ends": ends}
    for name, ids in allowed.items():
        allowed[name] = list(range(tags)) if ids is None else [int(tag) for tag in ids]
        outside = [tag for tag in allowed[name] if not 0 <= tag < tags]
        if outside or not allowed[name]:
            problems.append(f"{name} must name some of the tags 0 to {tags - 1}; found {outside or 'none'}")
    if problems:
        raise ConfigError(f"These sequences cannot be decoded:\n{listing(problems)}")
    ruled_out = [~np.isin(np.arange(tags), ids) for ids in allowed.values()]
    return [np.where(out, -np.inf, 0.0) for out in (*ruled_out, forbidden)]


class ViterbiDecoder:
    """Finds best paths in NumPy arrays, sentence by sentence and without a graph.

    Args:
        trans: [tags, tags], [i, j] for tag i followed by tag j, such as a CRF's `transitions`; may be set again later.
        starts, ends, forbidden: as for `viterbi_decode`; `**tag_constraints(labels)` gives them.
    """

    @public
    def __init__(
        self, trans: Any, starts: Iterable[int] | None = None, ends: Iterable[int] | None = None, forbidden: Any = None
    ) -> None:
        self.trans = trans
        self.starts = None if starts is None else list(starts)
        self.ends = None if ends is None else list(ends)
        self.forbidden = forbidden

    def decode(self, nodes: Any, mask: Any = None) -> np.ndarray:
        """The best tags of one sentence, [length, tags] -> [length], or of several, [batch, ...] -> [batch, length].

        The path and the padding (-1) are those of `viterbi_decode`, and nodes may be ragged; `mask` is [length] or
        [batch, length].

        Raises:
            ConfigError: shapes do not fit, or no path is allowed in a row.
        """
        nodes, transitions = np.asarray(padded(nodes)), ops.convert_to_numpy(self.trans)
        rows = nodes if nodes.ndim == 3 else nodes[None]
        start, end, follow = constraint_scores(rows.shape, transitions.shape, self.starts, self.ends, self.forbidden)
        real = ~is_masked(rows).all(axis=-1)
        if mask is not None:
            if np.shape(mask) != nodes.shape[:-1]:
                raise ConfigError(f"mask has shape {np.shape(mask)}; nodes of {nodes.shape} need {nodes.shape[:-1]}.")
            real &= np.asarray(mask, bool).reshape(real.shape)
        tags, lost = np.full(real.shape, -1, "int32"), []
        for row in np.flatnonzero(real.any(axis=1)):
            emissions = rows[row, real[row]].astype("float64")
            emissions[0] += start
            emissions[-1] += end
            path, score = best_path(emissions, transitions + follow)
            tags[row, real[row]] = path
            if not score > -np.inf:
                lost.append(int(row))
        if lost:
            raise ConfigError(
                f"No path of tags is possible in rows {lost}: starts, ends, forbidden and scores of -inf rule all out, "
                "or a score is NaN."
            )
        return tags if nodes.ndim == 3 else tags[0]


def best_path(emissions: np.ndarray, transitions: np.ndarray) -> tuple[list[int], float]:
    """The best tags of one sentence without padding, and their score; ties as in `viterbi_decode`."""
    scores, origins = emissions[0], []
    for emission in emissions[1:]:
        candidates = scores[:, None] + transitions
        origins.append(candidates.argmax(axis=0))
        scores = candidates.max(axis=0) + emission
    path = [int(scores.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1], scores.max()


# What each letter before the hyphen of a tag does to the entity: is it in progress before it, and after it?
TAG_ROLES = {
    **dict.fromkeys("O", (False, False)),
    **dict.fromkeys("B", (False, True)),
    **dict.fromkeys("IM", (True, True)),
    **dict.fromkeys("EL", (True, False)),
    **dict.fromkeys("SU", (False, False)),
}


@public
def tag_constraints(labels: Sequence[str]) -> dict[str, Any]:
    """The starts, ends and forbidden transitions of a tagging scheme, from its tags' names in the order of their ids.

    Understands BIO, BIOES, BMES and BILOU, with types (B-PER) or as letters alone (word segmentation). Where there are
    end tags (E or L), an entity must end in one.

        ViterbiDecoder(crf.transitions, **tag_constraints(["O", "B-PER", "I-PER"]))

    Raises:
        ConfigError: a name is of none of these forms, or occurs twice.
    """
    names = [label.partition("-") for label in labels]
    problems = [f"{label!r}" for label, (letter, _, _) in zip(labels, names, strict=True) if letter not in TAG_ROLES]
    problems += [f"{label!r} twice" for label in dict.fromkeys(labels) if list(labels).count(label) > 1]
    if problems:
        raise ConfigError(
            "A tag is named O, or B, I, M, E, L, S or U, alone or with a hyphen and a type, such as B-PER; not:\n"
            f"{listing(problems)}"
        )
    must_close = any(letter in "EL" for letter, _, _ in names)
    inside_before = np.array([TAG_ROLES[letter][0] for letter, _, _ in names])
    inside_after = np.array([TAG_ROLES[letter][1] for letter, _, _ in names])
    kinds = np.array([kind for _, _, kind in names])
    continues = inside_after[:, None] & (kinds[:, None] == kinds)
    allowed = np.where(inside_before, continues, ~inside_after[:, None] | (not must_close))
    return {
        "starts": np.flatnonzero(~inside_before).tolist(),
        "ends": np.flatnonzero(~inside_after | (not must_close)).tolist(),
        "forbidden": ~allowed,
    }
