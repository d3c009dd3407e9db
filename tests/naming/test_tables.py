"""Naming tables as data: each is a one-to-one map, its operations invert each other, and it swallows nothing real."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.releases import CASES
from tfloader.checkpoints import open_checkpoint
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError
from tfloader.naming import RELEASES, detect_release, find_config, read_raw_config, register_release
from tfloader.naming.base import Identity, LeadingOne, Repeated, Split, Transpose, counts

FORMATS = {"tensorflow", "safetensors", "hdf5", "torch", "memory", "keras2"}
SIZES = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 9}
CONFIG = TransformerConfig(
    "any", num_hidden_layers=12, num_decoder_layers=11, num_hidden_groups=3, inner_group_num=2, **SIZES
)
COUNTS = counts(CONFIG)
EACH = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)


def names_of(release):
    return [row.theirs for row in release.naming.expand(COUNTS)]


# ---- operations


def variables_for(op):
    """Shapes of our variables that an operation can take."""
    inner = op.inner if isinstance(op, LeadingOne) else op
    if isinstance(inner, Split):
        shape = st.lists(st.integers(1, 5), min_size=1, max_size=2).map(tuple)
        return shape.map(lambda found: [found] * inner.parts)
    rank = 2 if isinstance(inner, Transpose) else None
    return st.lists(st.integers(0, 5), min_size=rank or 1, max_size=rank or 3).map(lambda found: [tuple(found)])


def operations():
    used = {row.op for release in RELEASES for row in release.naming.rows}
    assert {type(op) for op in used} == {Identity, Transpose, Split, LeadingOne}
    return sorted(used, key=repr)


@pytest.mark.parametrize("op", operations(), ids=repr)
@given(data=st.data())
def test_an_operation_and_its_inverse_change_nothing(op, data):
    shapes = data.draw(variables_for(op))
    arrays = [np.random.default_rng(index).normal(size=shape) for index, shape in enumerate(shapes)]
    theirs = op.to_theirs(*arrays)
    assert theirs.shape == op.their_shape(*shapes)
    back = op.to_ours(theirs)
    assert len(back) == len(arrays)
    for found, array in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(op.to_theirs(*back), theirs)


def test_a_repeated_tensor_is_written_once():
    op, matrix = Repeated(3, Split(2)), np.arange(12.0).reshape(2, 6)
    pieces = op.to_ours(matrix)
    assert len(pieces) == 6 and all(np.array_equal(piece, pieces[index % 2]) for index, piece in enumerate(pieces))
    assert op.their_shape(*(piece.shape for piece in pieces)) == matrix.shape
    np.testing.assert_array_equal(op.to_theirs(*pieces), matrix)


# ---- tables


@EACH
def test_each_name_stands_once_on_either_side(release):
    rows = release.naming.expand(COUNTS)
    for side in (names_of(release), [path for row in rows for path in row.ours]):
        assert [name for name, times in Counter(side).items() if times > 1] == []
    assert all("{" not in name for row in rows for name in (row.theirs, *row.ours))


@EACH
def test_every_placeholder_on_one_side_stands_on_the_other(release):
    for row in release.naming.rows:
        theirs = set(re.findall(r"\{(\w+)", row.theirs))
        ours = {frozenset(re.findall(r"\{(\w+)", path)) for path in row.ours}
        assert len(ours) == 1
        # ALBERT's blocks are named by what they share, keras-bert's count from 1, all others are alike on both sides.
        other = {"group": ["block"], "number": ["layer"]}
        assert ours == {frozenset(next((other[name] for name in other if name in theirs), theirs))}
        assert not theirs or any(theirs <= set(names) for blocks in COUNTS.values() for names in blocks)
        parts = row.op.inner if isinstance(row.op, LeadingOne) else row.op
        assert len(row.ours) == getattr(parts, "parts", 1)


@EACH
def test_a_release_is_complete(release):
    assert set(release.formats) <= FORMATS and release.formats
    assert release.config_files and release.dialects and release.title and release.family
    assert release.fits(names_of(release))
    assert release.writes in (None, "huggingface", "tensorflow")


@EACH
def test_canonical_names_are_their_own_canonical_names(release):
    naming = release.naming
    for name in [*names_of(release), *(copy.theirs for copy in naming.duplicates)]:
        assert naming.canonical(name) == name
    for name in STRANGE:
        assert naming.canonical(naming.canonical(name)) == naming.canonical(name), name


STRANGE = [
    "module.bert.pooler.dense.weight",
    "module.module.wte.weight",
    "embeddings.LayerNorm.gamma",
    "h.0.ln_1.weight",
    "bert/tf_bert/bert/encoder/layer_._0/attention/self/query/kernel:0",
    "transformer/m/transformer/h_._1/ln_1/gamma:0",
    "",
    "a" * 1000,
    "../../etc/passwd",
]


@EACH
def test_no_tensor_of_the_model_is_ignorable(release):
    naming = release.naming
    copies = [copy.theirs for copy in naming.duplicates]
    assert [name for name in [*names_of(release), *copies] if naming.is_ignorable(name)] == []


@EACH
def test_duplicates_repeat_tensors_of_the_table(release):
    names = set(names_of(release))
    assert all(copy.of in names for copy in release.naming.duplicates)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_releases_of_a_container_are_told_apart_by_names_or_else_by_config_or_family(form):
    here = [release for release in RELEASES if form in release.formats]
    for release in here:
        alike = [other for other in here if other is not release and other.fits(names_of(release))]
        marks = [dialect.constants for item in (release, *alike) for dialect in item.dialects[:1]]
        assert all(other.family != release.family for other in alike)
        if form == "keras2":  # the layers of several families have the same names: then `model=` is asked for
            continue
        assert all(marks.count(mark) == 1 and mark for mark in marks) or not alike, (release.name, marks)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpoint_is_recognised_by_its_tensors_or_else_by_its_config_or_family(case):
    with open_checkpoint(case.path) as checkpoint:
        families = [case.options["model"]] if "model" in case.options else []
        release = detect_release(checkpoint, families)
        assert release.name == case.release
        if "memory" in release.formats:
            arrays = {name: checkpoint.read(name) for name in checkpoint}
            config = read_raw_config(find_config(case.path, release))
            assert detect_release(open_checkpoint(arrays), families, config).name == case.release
        table = {release.naming.canonical(name) for name in names_of(release)}
        table |= {copy.theirs for copy in (*release.naming.duplicates, *release.naming.constants)}
        unknown = [
            name
            for name in checkpoint
            if release.naming.canonical(name) not in table and not release.naming.is_ignorable(name)
        ]
        assert unknown == []


def test_tensors_of_two_releases_at_once_are_ambiguous():
    names = ("model/wte", "bert/embeddings/position_embeddings", "bert/embeddings/token_type_embeddings")
    arrays = {name: np.zeros((2, 2), "float32") for name in names}
    with pytest.raises(CheckpointError, match=r"fit several releases.*Google BERT.*OpenAI GPT-2"):
        detect_release(open_checkpoint(arrays))


def test_a_registered_release_replaces_the_one_of_its_name():
    before = list(RELEASES)
    try:
        register_release(RELEASES[0])
        assert Counter(item.name for item in RELEASES) == Counter(item.name for item in before)
    finally:
        RELEASES[:] = before


# ---- what is beside the model in training checkpoints

# Suffixes as the public optimizers name them: BERT's AdamWeightDecayOptimizer and LAMB, tf.train's, Mesh TensorFlow's
# and gpt2-ml's Adafactor.
SLOTS = [
    "/adam_m",
    "/adam_v",
    "/adam_m_1",
    "/lamb_m",
    "/lamb_v",
    "/Adam",
    "/Adam_1",
    "/LAMB",
    "/LAMB_1",
    "/Momentum",
    "/Adafactor",
    "/adafactor_m",
    "/adafactor_v",
    "/adafactor_vr",
    "/adafactor_vc",
    "_slot_v",
    "_slot_vr",
    "_slot_vc",
    "_slot_m",
]
COUNTERS = [
    "global_step",
    "training/global_step",
    "beta1_power",
    "beta2_power",
    "beta1_power_1",
    "current_loss_scale",
    "good_steps",
    "loss_scale",
    "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
]
TENSORFLOW = [release for release in RELEASES if "tensorflow" in release.formats]


@pytest.mark.parametrize("release", TENSORFLOW, ids=lambda release: release.name)
def test_optimizer_slots_and_counters_are_ignorable(release):
    names = [*COUNTERS, *(name + slot for name in names_of(release) for slot in SLOTS)]
    assert [name for name in names if not release.naming.is_ignorable(name)] == []


@pytest.mark.parametrize("release", TENSORFLOW, ids=lambda release: release.name)
def test_what_may_hold_weights_is_not_ignorable(release):
    """Averaged weights, other heads, names that only contain a slot's name."""
    first = names_of(release)[0]
    names = [f"{first}/ExponentialMovingAverage", "output_weights", "loss/output_bias", "crf/transitions"]
    names += [f"{first}/adam_mm", "adam_m/kernel", "my_global_step_embedding", f"{first}_slot_x", "Adam/kernel"]
    assert [name for name in names if release.naming.is_ignorable(name)] == []
