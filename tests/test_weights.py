"""Loading is all or nothing: one error says of every tensor what does not fit, and a model in use stays as it was."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.refusals import BERT, HEADS, RAW, WORDS, refused, tensors_of
from tests.releases import case
from tfloader.errors import CheckpointError, WeightsError

Q = "bert.encoder.layer.1.attention.self.query.weight"
DECODER = "cls.predictions.decoder.weight"


@pytest.fixture(scope="module")
def tensors():
    return tensors_of(BERT)


def without(name):
    return lambda tensors: tensors.pop(name)


def put(name, make):
    def damage(tensors):
        tensors[name] = make(tensors)

    return damage


def both(*damages):
    return lambda tensors: [damage(tensors) for damage in damages]


TENSORS = {
    # name: (how to damage the tensors, error, words)
    "a missing one": (without(Q), WeightsError, ["Variables without a source (1)", "query/kernel", Q]),
    "one too many": (
        put("classifier.weight", lambda t: np.zeros((2, 48), "float32")),
        WeightsError,
        ["Tensors without a use (1)", "classifier.weight (2, 48)", "ignore=["],
    ),
    "missing, left over and misshapen": (
        both(
            without(Q),
            put("classifier.weight", lambda t: np.zeros((2, 48), "float32")),
            put("bert.pooler.dense.bias", lambda t: np.zeros(47, "float32")),
        ),
        WeightsError,
        ["without a source (1)", Q, "without a use (1)", "classifier.weight", "do not fit (1)", "pooler.dense.bias"],
    ),
    "float64": (put(Q, lambda t: t[Q].astype("float64")), WeightsError, [Q, "float64", "supported: bfloat16"]),
    "int8": (put(Q, lambda t: t[Q].astype("int8")), WeightsError, [Q, "int8", "supported"]),
    "bool": (put(Q, lambda t: t[Q] > 0), WeightsError, [Q, "bool"]),
    "no dimension": (put(Q, lambda t: np.float32(1)), WeightsError, [f"{Q} has shape ()"]),
    "no rows": (put(WORDS, lambda t: t[WORDS][:0]), WeightsError, [f"{WORDS} has shape (0, 48)"]),
    "a flat matrix": (put(Q, lambda t: t[Q].reshape(-1)), WeightsError, [f"{Q} has shape (2304,)"]),
    "an old and a new name that differ": (
        put("bert.embeddings.LayerNorm.gamma", lambda t: t["bert.embeddings.LayerNorm.weight"] + 1),
        WeightsError,
        ["LayerNorm.gamma should repeat bert.embeddings.LayerNorm.weight"],
    ),
    "a tied copy that differs": (
        put(DECODER, lambda t: t[WORDS] + 1),
        WeightsError,
        [f"{DECODER} should repeat {WORDS}"],
    ),
    "a tied copy of another shape": (put(DECODER, lambda t: t[WORDS][1:]), WeightsError, [DECODER, "another shape"]),
    "a tied copy with NaN": (put(DECODER, lambda t: t[WORDS] * np.nan), WeightsError, [f"{DECODER} should repeat"]),
    "no names that are known": (
        lambda t: (t.clear(), t.update({f"tensor_{i}": np.zeros(1, "float32") for i in range(30)})),
        CheckpointError,
        ["its 30 tensors", "tensor_0", "Known: ", "Google BERT", "OpenAI GPT-2"],
    ),
    "none at all": (lambda t: t.clear(), CheckpointError, ["0 tensors", "(none)"]),
    "not an array": (put(Q, lambda t: "weights"), CheckpointError, [Q]),
    "an object": (put(Q, lambda t: np.array([{}], object)), CheckpointError, [Q]),
    "a number for a name": (lambda t: t.update({3: np.zeros(1)}), CheckpointError, ["3"]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused(name, tensors):
    damage, error, words = TENSORS[name]
    damaged = dict(tensors)
    damage(damaged)
    refused(error, words, tfloader.load, damaged, config=RAW, **HEADS)


def test_a_tied_copy_that_is_equal_to_the_bit_is_no_conflict(tensors):
    words = tensors[WORDS].copy()
    words[7, 3] = np.nan
    tfloader.load(tensors | {WORDS: words, DECODER: words.copy()}, config=RAW, **HEADS)


def test_byte_order_changes_nothing(tensors):
    swapped = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in tensors.items()}
    found, expected = (tfloader.load(arrays, config=RAW) for arrays in (swapped, tensors))
    for old, new in zip(values(expected), values(found), strict=True):
        np.testing.assert_array_equal(old, new)


def test_nan_and_infinity_are_loaded_as_they_are(tensors):
    query = tensors[Q].copy()
    query[0, 0], query[1, 1], query[2, 2] = np.nan, np.inf, -np.inf
    model = tfloader.load(tensors | {Q: query}, config=RAW)
    kernel = model.transformer.variable("Transformer-1-MultiHeadSelfAttention/query/kernel").numpy()
    np.testing.assert_array_equal(kernel, query.T)


PREFIXES = {
    "saved from DataParallel": lambda name: f"module.{name}",
    "gamma and beta": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    ),
    "BertModel alone": lambda name: name.removeprefix("bert.") if name.startswith("bert.") else None,
}


@pytest.mark.parametrize("name", PREFIXES)
def test_variants_of_the_names_are_the_same_model(name, tensors):
    renamed = {PREFIXES[name](key): value for key, value in tensors.items() if PREFIXES[name](key)}
    model = tfloader.load(renamed, config=RAW)
    hf = case("hf_bert")
    expected = tfloader.load(BERT)(hf.input_arrays[:2])
    np.testing.assert_array_equal(model(hf.input_arrays[:2]), expected)


@pytest.mark.parametrize("prefix", ["model.", "camembert.", "bert.bert.", "bert_"])
def test_unknown_prefixes_are_refused(prefix, tensors):
    renamed = {f"{prefix}{name.removeprefix('bert.')}": value for name, value in tensors.items()}
    refused(CheckpointError, ["not named as in any release", prefix], tfloader.load, renamed, config=RAW)


def test_tensors_that_the_user_names_may_be_left_over(tensors):
    more = tensors | {"classifier.weight": np.zeros((2, 48), "float32"), "classifier.bias": np.zeros(2, "float32")}
    tfloader.load(more, config=RAW, ignore=["classifier.*"])
    refused(WeightsError, ["classifier.bias"], tfloader.load, more, config=RAW, ignore=["classifier.w*"])


def test_a_value_that_float16_cannot_hold_is_refused(tensors):
    large = tensors | {Q: tensors[Q] * 1e6}
    refused(WeightsError, [Q, "float16 cannot hold", "bfloat16"], tfloader.load, large, config=RAW, dtype="float16")
    tfloader.load(large, config=RAW, dtype="bfloat16")


def values(model):
    return [weight.numpy().copy() for weight in model.weights]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def last_tensor_damaged(tmp_path):
    for path in (CHECKPOINTS / "bert_google").iterdir():
        shutil.copy(path, tmp_path)
    flip(tmp_path / "bert_model.ckpt.data-00000-of-00001", -8)
    return tmp_path


def first_tensor_damaged(tmp_path):
    last_tensor_damaged(tmp_path)
    for at in (-8, 8):
        flip(tmp_path / "bert_model.ckpt.data-00000-of-00001", at)
    return tmp_path


def one_missing(tmp_path):
    tensors = tensors_of(CHECKPOINTS / "bert_google")
    del tensors["bert/encoder/layer_2/output/dense/bias"]
    return tensors


def one_misshapen(tmp_path):
    tensors = tensors_of(CHECKPOINTS / "bert_google")
    tensors["cls/predictions/output_bias"] = tensors["cls/predictions/output_bias"][1:]
    return tensors


def of_another_release(tmp_path):
    return CHECKPOINTS / "hf_gpt2"


FAILING = {
    "a bit flipped in the last tensor": (last_tensor_damaged, CheckpointError),
    "a bit flipped in the first tensor": (first_tensor_damaged, CheckpointError),
    "a tensor missing": (one_missing, WeightsError),
    "a tensor misshapen": (one_misshapen, WeightsError),
    "another release": (of_another_release, WeightsError),
}


@pytest.fixture(scope="module")
def filled():
    return tfloader.load(CHECKPOINTS / "bert_google", with_nsp=True, with_mlm=True)


@pytest.mark.parametrize("name", FAILING)
def test_after_a_failed_load_a_model_is_as_before(name, filled, tmp_path):
    make, error = FAILING[name]
    source = make(tmp_path)
    model = filled
    for weight in model.weights:
        weight.assign(weight + 1)
    before = values(model)
    with pytest.raises(error):
        model.transformer.load_weights_from_checkpoint(source)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_after_a_failed_load_into_float16_a_model_is_as_before():
    tensors = tensors_of(CHECKPOINTS / "bert_google")
    model = tfloader.load(CHECKPOINTS / "bert_google", dtype="float16", with_nsp=True, with_mlm=True)
    for weight in model.weights:
        weight.assign(weight + 1)
    before = values(model)
    name = "bert/encoder/layer_2/output/dense/bias"
    tensors[name] = tensors[name] + 1e6
    with pytest.raises(WeightsError, match="float16 cannot hold"):
        model.transformer.load_weights_from_checkpoint(tensors)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_good_load_after_a_failed_one_fills_everything(filled):
    filled.transformer.load_weights_from_checkpoint(CHECKPOINTS / "bert_google")
    google = case("bert_google")
    again = tfloader.load(google.path, with_nsp=True, with_mlm=True)
    for old, new in zip(values(again), values(filled), strict=True):
        np.testing.assert_array_equal(old, new)
