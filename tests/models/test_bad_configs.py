"""A config file that is damaged, or says something else than the tensors, is refused before memory is taken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.refusals import BERT, HEADS, RAW, WORDS, calls, refused, tensors_of
from tfloader.errors import ConfigError, WeightsError
from tfloader.files import MAX_JSON_BYTES


@pytest.fixture
def folder(tmp_path):
    """A copy of a good folder, to be damaged."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(BERT / name, tmp_path)
    return tmp_path


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
    messages = []
    work = calls(lambda: messages.append(refused(ConfigError, [str(folder), *words], tfloader.load, folder)))
    assert len(messages[0]) < 1_500
    assert work < 200_000 + 10 * len(data or b"")  # linear in the file: a pair of keys is a few calls


def test_a_byte_order_mark_is_accepted(folder):
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())
    assert tfloader.load_config(folder).vocab_size == 211


def test_a_file_of_a_gigabyte_is_refused_unread(folder):
    with open(folder / "config.json", "r+b") as file:
        file.truncate(2**30)
    tracemalloc.start()
    try:
        refused(ConfigError, ["1073741824 bytes", str(MAX_JSON_BYTES)], tfloader.load, folder)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_two_config_files_of_equal_rank_are_refused(tmp_path):
    for path in (CHECKPOINTS / "gpt2_ml").iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(tmp_path / "config.json", tmp_path / "my_config.json")
    refused(ConfigError, ["several files may be the config (config.json, my_config.json)"], tfloader.load, tmp_path)


def test_a_mapping_of_arrays_needs_a_config():
    refused(ConfigError, ["A config is needed"], tfloader.load, tensors_of(BERT))


def test_ignored_config_keys_reach_the_reader():
    raw = RAW | {"frobnicate": 1}
    with pytest.raises(ConfigError, match="ignore_config_keys"):
        tfloader.load(BERT / "model.safetensors", config=raw)
    tfloader.load(BERT / "model.safetensors", config=raw, ignore_config_keys=["frobnicate"], num_hidden_layers=1)


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
import json, resource, sys
import keras, tfloader
from tfloader.errors import TfloaderError
folder, changes = sys.argv[1], json.loads(sys.argv[2])
raw = json.load(open(f"{folder}/config.json"))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tfloader.load(folder)
layers, make = [], keras.layers.Layer.__init__
keras.layers.Layer.__init__ = lambda self, *args, **kwargs: layers.append(self) or make(self, *args, **kwargs)
for change in changes:
    before = peak()
    try:
        tfloader.load(f"{folder}/model.safetensors", config=raw | change)
        print("accepted", change)
    except TfloaderError:
        pass
    if peak() - before > 100_000 or layers:
        print("took", peak() - before, "KiB and made", len(layers), "layers", change)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_an_absurd_config_is_refused_before_memory_is_taken():
    command = [sys.executable, "-c", PROBE, str(BERT), json.dumps(ABSURD)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout == ""
