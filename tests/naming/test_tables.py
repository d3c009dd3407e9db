"""Naming tables as data: each is a one-to-one map, its operations invert each other, and it swallows nothing real."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import FIXTURES
from tests.releases import CASES, NEEDS_TORCH
from tfloader.checkpoints import open_checkpoint
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError
from tfloader.naming import RELEASES, detect_release, find_config, read_raw_config, register_release
from tfloader.naming.base import Identity, LeadingOne, Repeated, Split, Transpose, counts
from tfloader.naming.gin import parse_gin

FORMATS = {"tensorflow", "safetensors", "hdf5", "torch", "memory"}
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
@settings(max_examples=30, deadline=None)
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
        # ALBERT's blocks are named by what they share, all others alike on both sides.
        assert ours == {frozenset(["block"])} if "group" in theirs else ours == {frozenset(theirs)}
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
        assert all(marks.count(mark) == 1 and mark for mark in marks) or not alike, (release.name, marks)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpoint_is_recognised_by_its_tensors_or_else_by_its_config_or_family(case):
    if case.name in NEEDS_TORCH:
        pytest.importorskip("torch", reason="pytorch_model.bin is read through torch, which is not installed")
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


# ---- gin


def test_gin_values_of_every_kind_are_read():
    text = """
# Macros:
import mesh_tensorflow.optimize
n = 3
rate = 1e-06
a/B.list = \\
    [@transformer.sublayer_rms_norm,
     @x.y.Last(), %n]  # with a comment (and a bracket
a/B.n = %n
a/B.text = 'a # b [ @c %d = e'
a/B.quoted = "it's"
a/B.both = ('tokens', 65_536)
a/B.none = None
a/B.dict = {'inputs': 512}
a/B.negative = -1.5
a/B.rate = %rate
"""
    assert parse_gin(text, "x") == {
        "n": 3,
        "rate": 1e-6,
        "a/B.list": ["sublayer_rms_norm", "Last", 3],
        "a/B.n": 3,
        "a/B.text": "a # b [ @c %d = e",
        "a/B.quoted": "it's",
        "a/B.both": ("tokens", 65536),
        "a/B.none": None,
        "a/B.dict": {"inputs": 512},
        "a/B.negative": -1.5,
        "a/B.rate": 1e-6,
    }
    assert parse_gin(text.replace("\n", "\r\n"), "x") == parse_gin(text, "x")


GIN_FAULTS = {
    "an expression": ("a = __import__('os').system('touch /tmp/tfloader-was-here')", "line 1.*not understood"),
    "arithmetic": ("a = 9 ** 9 ** 9", "line 1.*not understood"),
    "a call": ("a = open('x')", "not understood"),
    "a comprehension": ("a = [x for x in 'ab']", "not understood"),
    "a formatted string": ("a = f'{1}'", "not understood"),
    "a set of lists": ("a = {[1]}", "not understood"),
    "an include": ("include 'base.gin'", "line 1 includes another file.*operative_config.gin"),
    "no binding": ("x = 1\nhello world\n", "line 2 is not a gin binding: 'hello world'"),
    "a strange name": ("a b = 1", "not a gin binding"),
    "no value": ("a =", "not understood"),
    "an unknown macro": ("a = %b", "%b is used but never set"),
    "a macro of itself": ("a = %b\nb = %a", "refers to itself"),
    "bytes": ("a = b'\\xff'", "never set"),
    "an open list": ("a = [1,\n2\n", "not closed.*cut off"),
    "an open string": ("a = 'x\n", "line 1 is not understood"),
    "a bracket too many": ("a = [1]]", "do not match"),
    "a huge integer": ("a = " + "9" * 10_000, "not understood"),
    "macros that multiply": (
        "\n".join(f"m{i} = [{', '.join([f'%m{i + 1}'] * 50)}]" for i in range(9)) + "\nm9 = [1]",
        "a macro within a list stands for a list",
    ),
    "10^5 brackets": ("a = " + "[" * 10**5, "brackets"),
    "30 brackets": ("a = " + "[" * 30 + "]" * 30, "brackets"),
    "10^5 pairs of brackets": ("a = " + "[" * 10**5 + "]" * 10**5, "brackets"),
    "10^5 brackets one a line": ("a = " + "[\n" * 10**5, "brackets"),
    "a list of 10^5 lines": ("a = [\n" + "1,\n" * 10**5, "too much"),
    "10^4 signs": ("a = " + "-" * 10**4 + "1", "not understood"),
    "10^4 sums": ("a = 1" + "+1" * 9_000, "not understood"),
    "10^6 spaces": ("a = 1" + " " * 10**6 + "x", "too much"),
    "10^6 quotes": ("a = " + "'" * 10**6, "too much"),
    "an open string of 10^6": ("a = '" + "x" * 10**6, "not understood"),
    "10^6 at signs": ("a = " + "@" * 10**6, "not understood"),
    "NUL": ("a = 'a\0b'", "not understood"),
}


@pytest.mark.parametrize("name", GIN_FAULTS)
def test_a_faulty_gin_file_is_refused_quickly_and_runs_nothing(name):
    text, words = GIN_FAULTS[name]
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words) as caught:
        parse_gin(text, "some.gin")
    assert time.perf_counter() - start < 2
    assert str(caught.value).startswith("some.gin: ") and len(str(caught.value)) < 400


@given(
    st.text()
    | st.text("ab/.=%@[](){}'\"#\\\n ,-1e_:fr\r\t\0", max_size=60)
    | st.lists(
        st.sampled_from(["a", " = ", "%a", "@b.c", "[", "]", "'x'", ",", "\n", "1", "{", "}", ":", "#", "b'"])
    ).map("".join)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_either_refused_or_read_as_bindings(text):
    try:
        found = parse_gin(text, "x")
    except ConfigError:
        return
    assert isinstance(found, dict) and all(isinstance(name, str) for name in found)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_gin_file_is_either_refused_or_read_as_bindings(data):
    text = (FIXTURES / "configs" / "tiny_t5_mesh.gin").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 50)))
    with contextlib.suppress(ConfigError):
        parse_gin(text[:start] + data.draw(st.text(max_size=5)) + text[end:], "x")
