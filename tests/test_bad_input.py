"""Faults of meaning: a load that cannot be exact is refused with one error that says what, where and what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import case
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import CheckpointError, ConfigError, WeightsError
from tfloader.files import MAX_TEXT_BYTES, parse_json, read_json

BERT = CHECKPOINTS / "hf_bert"
RAW = json.loads((BERT / "config.json").read_text())
HEADS = {"with_nsp": True, "with_mlm": True}
WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def tensors_of(folder):
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint}


@pytest.fixture(scope="module")
def tensors():
    return tensors_of(BERT)


@pytest.fixture
def folder(tmp_path):
    """A copy of a good folder, to be damaged."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(BERT / name, tmp_path)
    return tmp_path


def refused(error, words, function, *arguments, **options):
    """Checks that it is refused as `error`, with all of `words` in the message; gives the message."""
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 5_000
    return message


# ---- the config file

CONFIG_FILES = {
    # name: (bytes of config.json or None, words of the error)
    "missing": (None, ["no config file of a Hugging Face BERT checkpoint", "model.safetensors", "Pass config="]),
    "empty": (b"", ["config.json", "empty", "Download it again"]),
    "blank": (b" \n\t ", ["empty"]),
    "not UTF-8": (b'{"a": "\xff"}', ["not UTF-8"]),
    "a web page": (b"<!DOCTYPE html><html>", ["not valid JSON", "<!DOCTYPE html>"]),
    "cut off": (json.dumps(RAW).encode()[:100], ["not valid JSON"]),
    "a list": (b"[1, 2]", ["expected a JSON object, found a JSON list"]),
    "NaN": (json.dumps(RAW | {"layer_norm_eps": float("nan")}).encode(), ["NaN", "not valid JSON"]),
    "Infinity": (json.dumps(RAW | {"layer_norm_eps": float("inf")}).encode(), ["Infinity"]),
    "1e999": (json.dumps(RAW).replace("1e-12", "1e999").encode(), ["layer_norm_eps must lie in [0, 1), found inf"]),
    "a key twice": (b'{"vocab_size": 211, ' + json.dumps(RAW).encode()[1:], ["'vocab_size' comes more than once"]),
    "10^5 keys twice": (b"{" + b",".join([b'"a": 1, "b": 2'] * 10**5) + b"}", ["'a', 'b' comes more than once"]),
    "10^5 different keys": (b"{" + b",".join(b'"%d": 1' % i for i in range(10**5)) + b"}", ["100000 keys"]),
    "a long key twice": (b'{"%s": 1, "%s": 2}' % (b"k" * 10**6, b"k" * 10**6), ["(1000000 characters)"]),
    "nested 10^5 deep": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, ["nested too deeply"]),
    "10^5 brackets": (b"[" * 10**5, ["nested too deeply"]),
    "an integer of 10^5 digits": (b'{"vocab_size": ' + b"9" * 10**5 + b"}", ["not valid JSON"]),
    "an integer of 4000 digits": (
        json.dumps(RAW | {"vocab_size": 10**4000}).encode(),
        ["vocab_size must lie between 1", "about 2 **"],
    ),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_a_damaged_config_file_is_refused(name, folder):
    data, words = CONFIG_FILES[name]
    (folder / "config.json").unlink()
    if data is not None:
        (folder / "config.json").write_bytes(data)
    start = time.perf_counter()
    message = refused(ConfigError, [str(folder), *words], tfloader.load, folder)
    assert time.perf_counter() - start < 5
    assert len(message) < 1_500


def test_a_byte_order_mark_is_accepted(folder):
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())
    assert tfloader.load_config(folder).vocab_size == 211


def test_a_file_of_a_gigabyte_is_refused_unread(folder):
    with open(folder / "config.json", "r+b") as file:
        file.truncate(2**30)
    start = time.perf_counter()
    refused(ConfigError, ["1073741824 bytes", str(MAX_TEXT_BYTES)], tfloader.load, folder)
    assert time.perf_counter() - start < 1


def test_two_config_files_of_equal_rank_are_refused(tmp_path):
    for path in (CHECKPOINTS / "gpt2_ml").iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(tmp_path / "config.json", tmp_path / "my_config.json")
    refused(ConfigError, ["several files may be the config (config.json, my_config.json)"], tfloader.load, tmp_path)


def test_a_mapping_of_arrays_needs_a_config(tensors):
    refused(ConfigError, ["A config is needed"], tfloader.load, tensors)


def test_the_strict_json_reader_is_linear_in_the_number_of_keys():
    text = "{" + ",".join(f'"{i}": 0' for i in range(300_000)) + ', "7": 1}'
    start = time.perf_counter()
    refused(ConfigError, ["'7' comes more than once"], parse_json, text, "x.json")
    assert time.perf_counter() - start < 5


def test_the_strict_json_reader_raises_the_callers_error(tmp_path):
    (tmp_path / "x.json").write_text("{")
    refused(CheckpointError, ["x.json"], read_json, str(tmp_path / "x.json"), CheckpointError)
    refused(
        CheckpointError, ["no-such.json", "cannot be read"], read_json, str(tmp_path / "no-such.json"), CheckpointError
    )
    refused(CheckpointError, ["y: ", "not valid JSON", "UTF-8"], parse_json, b"\xff", "y", CheckpointError)


# ---- values of the config, against themselves and against the tensors

VALUES = {
    # name: (changes, error, words)
    "a string for a size": ({"vocab_size": "211"}, ConfigError, ["vocab_size must be an integer, found '211'"]),
    "true for a size": ({"num_hidden_layers": True}, ConfigError, ["num_hidden_layers must be an integer, found True"]),
    "null for a size": ({"hidden_size": None}, ConfigError, ["hidden_size must be an integer, found None"]),
    "a fraction": ({"intermediate_size": 80.0}, ConfigError, ["intermediate_size must be an integer, found 80.0"]),
    "a negative size": ({"num_hidden_layers": -1}, ConfigError, ["num_hidden_layers must lie between 0"]),
    "no heads": ({"num_attention_heads": 0}, ConfigError, ["num_attention_heads must lie between 1"]),
    "10^12 tokens": ({"vocab_size": 10**12}, ConfigError, ["vocab_size must lie between 1 and 10000000"]),
    "10^6 layers": ({"num_hidden_layers": 10**6}, ConfigError, ["num_hidden_layers must lie between 0 and 1000"]),
    "heads that do not divide": ({"num_attention_heads": 5}, ConfigError, ["48 is not a multiple of", "5"]),
    "two faults": ({"vocab_size": -1, "hidden_size": "a"}, ConfigError, ["vocab_size must", "hidden_size must"]),
    "another family": ({"model_type": "roberta"}, ConfigError, ["model_type is 'roberta'", "Hugging Face BERT"]),
    "another size of vocabulary": (
        {"vocab_size": 216},
        WeightsError,
        [f"{WORDS} has shape (211, 48), the config means (216, 48)", "pass vocab_size="],
    ),
    "other positions": (
        {"max_position_embeddings": 514},
        WeightsError,
        ["position_embeddings.weight has shape (37, 48), the config means (514, 48)"],
    ),
    "four segments": ({"type_vocab_size": 4}, WeightsError, ["has shape (2, 48), the config means (4, 48)"]),
    "another width": ({"intermediate_size": 81}, WeightsError, ["(80, 48), the config means (81, 48)"]),
    "a layer more": (
        {"num_hidden_layers": 4},
        WeightsError,
        ["Variables without a source", "Transformer-3-", "bert.encoder.layer.3."],
    ),
    "a layer less": ({"num_hidden_layers": 2}, WeightsError, ["Tensors without a use", "bert.encoder.layer.2."]),
    "many things at once": (
        {"vocab_size": 216, "intermediate_size": 81},
        WeightsError,
        [WORDS, "layer.0.intermediate.dense.weight", "layer.2.output.dense.weight", "Tensors that do not fit (11)"],
    ),
    "twice the layers of a large model": (
        {"num_hidden_layers": 1000, "hidden_size": 4096},
        ConfigError,
        ["about", "weights, but the checkpoint holds", "Is it the config of this checkpoint?"],
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_config_that_does_not_fit_is_refused(name, folder):
    changes, error, words = VALUES[name]
    (folder / "config.json").write_text(json.dumps(RAW | changes))
    refused(error, words, tfloader.load, folder, **HEADS)


# ---- tensors

Q = "bert.encoder.layer.1.attention.self.query.weight"


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


# ---- options

OPTIONS = {
    # name: (options, error, words)
    "an unknown option": ({"with_poool": True}, ConfigError, ["'with_poool'", "did you mean 'with_pool'"]),
    "several unknown ones": ({"with_poool": 1, "frob": 2}, ConfigError, ["'with_poool'", "'frob'"]),
    "an application that is none": ({"application": "decoder"}, ConfigError, ["application", "encoder, lm, unilm"]),
    "another model": ({"model": "gpt2"}, ConfigError, ["model='gpt2'", "Hugging Face BERT", "model='bert'"]),
    "a model of another framework": ({"model": "llama"}, ConfigError, ["Unknown model 'llama'", "gpt2, gpt2_ml, t5"]),
    "an unknown compat": ({"compat": "keras"}, ConfigError, ["compat", "'bert4keras'"]),
    "a token out of range": (
        {"keep_tokens": [0, 211]},
        WeightsError,
        ["id 211", "211 tokens", "leave keep_tokens out"],
    ),
    "a negative token": ({"keep_tokens": [0, -1]}, WeightsError, ["id -1"]),
    "a token twice": ({"keep_tokens": [1, 2, 1]}, ConfigError, ["twice"]),
    "no tokens": ({"keep_tokens": []}, ConfigError, ["keep_tokens"]),
    "tokens that are words": ({"keep_tokens": ["a"]}, ConfigError, ["keep_tokens", "'a'"]),
    "fractions of tokens": ({"keep_tokens": [0.5]}, ConfigError, ["keep_tokens"]),
    "a compound out of range": ({"compound_tokens": [[1, 211]]}, ConfigError, ["compound_tokens", "0 to 210"]),
    "a compound of dropped tokens": (
        {"keep_tokens": [5, 6, 7], "compound_tokens": [[3]]},
        ConfigError,
        ["compound_tokens", "0 to 2", "after keep_tokens"],
    ),
    "a compound of nothing": ({"compound_tokens": [[]]}, ConfigError, ["compound_tokens"]),
    "weights that do not match": ({"compound_tokens": [([1, 2], [1.0])]}, ConfigError, ["one weight for each id"]),
    "heads that do not divide": ({"num_attention_heads": 5}, ConfigError, ["num_attention_heads"]),
    "an activation that is none": ({"hidden_act": "frob"}, ConfigError, ["'frob'", "gelu_tanh"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_impossible_option_is_refused(name):
    options, error, words = OPTIONS[name]
    refused(error, words, tfloader.load, BERT, **options)


@pytest.mark.parametrize("name, application", [("hf_gpt2", "encoder"), ("gpt2_ml", "unilm"), ("hf_t5_v10", "lm")])
def test_an_application_that_a_family_lacks_is_refused(name, application):
    refused(
        ConfigError, [f"application={application!r}", "it has"], tfloader.load, case(name).path, application=application
    )


def test_keep_tokens_of_an_already_pruned_checkpoint_says_so(tmp_path):
    keep = [0, 100, 101, 102, 103, 200]
    tfloader.save(tfloader.load(BERT, keep_tokens=keep), tmp_path)
    tfloader.load(tmp_path)
    refused(
        WeightsError, ["id 200", "has 6 tokens", "saved after such a cut"], tfloader.load, tmp_path, keep_tokens=keep
    )


def test_a_release_cannot_be_written_in_a_format_that_it_lacks(tmp_path):
    model = tfloader.load(case("hf_gpt2").path, num_hidden_layers=1)
    refused(ConfigError, ["'gpt2' models cannot be written as 'onnx'"], tfloader.save, model, tmp_path / "x", "onnx")
    assert not (tmp_path / "x").exists()


# ---- all or nothing


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


# ---- no memory is taken for what is refused

ABSURD = [
    {"vocab_size": 10**12},
    {"vocab_size": 10_000_000},
    {"vocab_size": 1_000_000},
    {"num_hidden_layers": 1_000},
    {"intermediate_size": 1_000_000},
    {"max_position_embeddings": 10_000_000},
    {"hidden_size": 100_000},
    {"type_vocab_size": 1_000_000},
]
PROBE = """
import json, resource, sys, time
import tfloader, tfloader.models.builder
from tfloader.errors import TfloaderError
folder, changes = sys.argv[1], json.loads(sys.argv[2])
raw = json.load(open(f"{folder}/config.json"))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tfloader.load(folder)
for change in changes:
    before, start = peak(), time.perf_counter()
    try:
        tfloader.load(f"{folder}/model.safetensors", config=raw | change)
        print("accepted", change)
    except TfloaderError:
        pass
    if peak() - before > 100_000 or time.perf_counter() - start > 5:
        print("took", peak() - before, "KiB and", time.perf_counter() - start, "s", change)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_an_absurd_config_is_refused_before_memory_is_taken():
    command = [sys.executable, "-c", PROBE, str(BERT), json.dumps(ABSURD)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout == ""


def test_reading_a_config_imports_no_framework():
    code = (
        "import sys; from tfloader.naming import RELEASES, read_config\n"
        "read_config(next(r for r in RELEASES if r.name == 'hf_bert'), sys.argv[1])\n"
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(BERT / "config.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
